// What happens when the embedded log grows past its bounds: the oldest records that every group known to their partition
// has committed past are removed, a little at each append. A partition that no group has ever read keeps its records:
// nobody can tell whether they were needed. When nothing may be removed, the log is full, which appending says; unless
// it was told what to drop instead (a spool was: better a gap in old samples than none of today's).

import { LogError } from '../event-log.ts'
import type { LogDatabase } from './log-database.ts'
import { oldestRecord, partitionsOf } from './partition-tables.ts'

/** Pruning goes on to this share of the bound, so that it does not begin again at once. */
const TARGET_SHARE = 0.9
const RECORDS_PER_CHUNK = 1000
/** What nobody has read is dropped in smaller chunks: no more of it than must go. */
const RECORDS_PER_DROP = 100
/** How long one call may block the event loop. */
const BUDGET_MS = 15

/** Records that may be lost when the log is full. */
export interface DropOldest {
  /** Their topics; a later one only when nothing is left of those before it. */
  topics: readonly string[]
  /** Called after the append that dropped them. Some may be with a reader already. */
  onDropped(topic: string, records: number): void
}

export interface RoomLimits {
  /** Bound of what the file holds. */
  maxBytes: number
  /** From here on what every group has committed past goes; at most maxBytes. */
  keepBytes: number
  dropOldest: DropOldest | null
}

interface Floor {
  id: number
  floor: number
}

/** Inside the transaction of an append: prunes where a bound is passed, throws where nothing may go; answers drops by topic. */
export function makeRoom(file: LogDatabase, { maxBytes, keepBytes, dropOldest }: RoomLimits): Map<string, number> {
  const dropped = new Map<string, number>()
  if (file.liveBytes() <= keepBytes || pruneCommitted(file, keepBytes) > 0 || file.liveBytes() <= maxBytes)
    return dropped
  if (dropOldest !== null) dropUntilBelow(file, maxBytes, { topics: dropOldest.topics, dropped })
  if (dropped.size > 0) return dropped
  const reason = `it holds its bound of ${maxBytes} bytes and ${whyNothingGoes(file)} or raise the bound`
  throw new LogError(`Log is full: ${reason}`, { retriable: true })
}

/** Drops records, read or not, until the bound is kept, the time is up or none is left. */
function dropUntilBelow(
  file: LogDatabase,
  maxBytes: number,
  { topics, dropped }: { topics: readonly string[]; dropped: Map<string, number> },
): void {
  const startedMs = performance.now()
  for (const topic of topics) {
    for (const { id } of partitionsOf(file, topic)) {
      while (performance.now() - startedMs < BUDGET_MS && file.liveBytes() > maxBytes) {
        const first = oldestRecord(file, id)
        if (first === undefined) break
        const count = file.run(`DELETE FROM records_${id} WHERE offset < ?`, first.offset + RECORDS_PER_DROP)
        dropped.set(topic, (dropped.get(topic) ?? 0) + count)
      }
    }
  }
}

/** Removes what may go until the live size is under the target or the time is up; answers how many records went. */
function pruneCommitted(file: LogDatabase, maxBytes: number): number {
  const startedMs = performance.now()
  let pruned = 0
  while (performance.now() - startedMs < BUDGET_MS && file.liveBytes() > maxBytes * TARGET_SHARE) {
    const chunk = pruneOldestChunk(file)
    if (chunk === 0) break
    pruned += chunk
  }
  return pruned
}

/** Who keeps the log from being pruned, for people. */
function whyNothingGoes(file: LogDatabase): string {
  const behind = file.get<{ group_name: string; topic: string; partition: number }>(
    `SELECT group_name, name AS topic, partition FROM committed
     JOIN partitions ON partitions.id = partition_id JOIN topics ON topics.id = topic
     WHERE next_offset > coalesce(offset, 0) ORDER BY next_offset - coalesce(offset, 0) DESC LIMIT 1`,
  )
  if (behind === undefined) return 'no group has read what is in it, start one'
  return `group "${behind.group_name}" is behind in ${behind.topic} partition ${behind.partition}, let it catch up`
}

function pruneOldestChunk(file: LogDatabase): number {
  let oldest: { id: number; from: number; to: number; timeMs: number } | null = null
  const floors = file.all<Floor>(
    'SELECT partition_id AS id, min(coalesce(offset, 0)) AS floor FROM committed GROUP BY partition_id',
  )
  for (const { id, floor } of floors) {
    const first = oldestRecord(file, id)
    if (first === undefined || first.offset >= floor) continue
    if (oldest !== null && oldest.timeMs <= first.time_ms) continue
    oldest = { id, from: first.offset, to: Math.min(floor, first.offset + RECORDS_PER_CHUNK), timeMs: first.time_ms }
  }
  return oldest === null ? 0 : file.run(`DELETE FROM records_${oldest.id} WHERE offset < ?`, oldest.to)
}
