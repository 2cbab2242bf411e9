// What happens when the embedded log grows past its bounds: each append removes some of the oldest records that every
// group known to their partition has committed past. A partition that no group has ever read keeps its records: whether
// they are needed is unknown. When nothing may be removed, the log is full and append fails; unless `dropOldest` names
// topics that may lose records (a spool's does: better a gap in old samples than none of today's).

import { LogError } from '../event-log.ts'
import type { LogDatabase } from './log-database.ts'

/** Pruning continues to this share of the bound, so that it does not start again at once. */
const TARGET_SHARE = 0.9
const RECORDS_PER_CHUNK = 1000
/** Unread records are dropped in smaller chunks: no more of them than necessary. */
const RECORDS_PER_DROP = 100
/** How long one call may block the event loop. */
const BUDGET_MS = 15

/** Records that may be lost when the log is full. */
export interface DropOldest {
  /** Their topics; a later one only when nothing is left of those before it. */
  topics: readonly string[]
  /** Called after the append that dropped them. A reader may have some of them already. */
  onDropped(topic: string, records: number): void
}

export interface RoomLimits {
  /** Bound of the bytes in use. */
  maxBytes: number
  /** Above this, what every group has committed past is removed; at most maxBytes. */
  keepBytes: number
  dropOldest: DropOldest | null
}

interface CommittedFloor {
  /** The partition. */
  id: number
  /** The lowest offset that a group has committed. */
  floor: number
}

/**
 * Inside the transaction of an append: prunes above a bound, throws when nothing may be removed. Returns drops by
 * topic.
 */
export function makeRoom(database: LogDatabase, { maxBytes, keepBytes, dropOldest }: RoomLimits): Map<string, number> {
  const dropped = new Map<string, number>()
  if (database.liveBytes() <= keepBytes || pruneCommitted(database, keepBytes) > 0 || database.liveBytes() <= maxBytes)
    return dropped
  if (dropOldest !== null) dropUntilBelow(database, maxBytes, { topics: dropOldest.topics, dropped })
  if (dropped.size > 0) return dropped
  const reason = `it holds its bound of ${maxBytes} bytes and ${blockingGroup(database)} or raise the bound`
  throw new LogError(`Log is full: ${reason}`, { retriable: true })
}

/** Drops records, read or not, until the bound is met, the time is up or none is left. */
function dropUntilBelow(
  database: LogDatabase,
  maxBytes: number,
  { topics, dropped }: { topics: readonly string[]; dropped: Map<string, number> },
): void {
  const startedMs = performance.now()
  for (const topic of topics) {
    for (const { id } of database.partitions(topic)) {
      while (performance.now() - startedMs < BUDGET_MS && database.liveBytes() > maxBytes) {
        const first = database.oldestRecord(id)
        if (first === undefined) break
        const count = database.run(`DELETE FROM records_${id} WHERE offset < ?`, first.offset + RECORDS_PER_DROP)
        dropped.set(topic, (dropped.get(topic) ?? 0) + count)
      }
    }
  }
}

/** Removes committed records until the size is under the target or the time is up; returns how many. */
function pruneCommitted(database: LogDatabase, maxBytes: number): number {
  const startedMs = performance.now()
  let pruned = 0
  while (performance.now() - startedMs < BUDGET_MS && database.liveBytes() > maxBytes * TARGET_SHARE) {
    const chunk = pruneOldestChunk(database)
    if (chunk === 0) break
    pruned += chunk
  }
  return pruned
}

/** The group that keeps the log from being pruned, and the remedy, for the message. */
function blockingGroup(database: LogDatabase): string {
  const behind = database.get<{ group_name: string; topic: string; partition: number }>(
    `SELECT group_name, name AS topic, partition FROM committed
     JOIN partitions ON partitions.id = partition_id JOIN topics ON topics.id = topic
     WHERE next_offset > coalesce(offset, 0) ORDER BY next_offset - coalesce(offset, 0) DESC LIMIT 1`,
  )
  if (behind === undefined) return 'no group has read what is in it, start one'
  return `group "${behind.group_name}" is behind in ${behind.topic} partition ${behind.partition}, let it catch up`
}

function pruneOldestChunk(database: LogDatabase): number {
  let oldest: { id: number; from: number; to: number; timeMs: number } | null = null
  const floors = database.all<CommittedFloor>(
    'SELECT partition_id AS id, min(coalesce(offset, 0)) AS floor FROM committed GROUP BY partition_id',
  )
  for (const { id, floor } of floors) {
    const first = database.oldestRecord(id)
    if (first === undefined || first.offset >= floor) continue
    if (oldest !== null && oldest.timeMs <= first.time_ms) continue
    oldest = { id, from: first.offset, to: Math.min(floor, first.offset + RECORDS_PER_CHUNK), timeMs: first.time_ms }
  }
  return oldest === null ? 0 : database.run(`DELETE FROM records_${oldest.id} WHERE offset < ?`, oldest.to)
}
