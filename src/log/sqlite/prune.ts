// What happens when the embedded log grows past its bound: the oldest records that every group known to their partition
// has committed past are removed, a little at each append. A partition that no group has ever read keeps its records:
// nobody can tell whether they were needed. When nothing may be removed, the log is full, which appending says.

import type { LogFile } from './log-file.ts'
import { oldestRecord } from './partition-tables.ts'

/** Pruning goes on to this share of the bound, so that it does not begin again at once. */
const TARGET_SHARE = 0.9
const RECORDS_PER_CHUNK = 1000
/** How long one call may block the event loop. */
const BUDGET_MS = 15

interface Floor {
  id: number
  floor: number
}

/** Removes what may go until the live size is under the target or the time is up; answers how many records went. */
export function pruneCommitted(file: LogFile, maxBytes: number): number {
  const startedMs = performance.now()
  let pruned = 0
  while (performance.now() - startedMs < BUDGET_MS) {
    const chunk = file.transaction('Pruning the log failed', { durable: false }, () => {
      return file.liveBytes() <= maxBytes * TARGET_SHARE ? 0 : pruneOldestChunk(file)
    })
    if (chunk === 0) break
    pruned += chunk
  }
  return pruned
}

/** Who keeps the log from being pruned, for people. */
export function whyNothingGoes(file: LogFile): string {
  const behind = file.get<{ group_name: string; topic: string; partition: number }>(
    `SELECT group_name, name AS topic, partition FROM committed
     JOIN partitions ON partitions.id = partition_id JOIN topics ON topics.id = topic
     WHERE next_offset > coalesce(offset, 0) ORDER BY next_offset - coalesce(offset, 0) DESC LIMIT 1`,
  )
  if (behind === undefined) return 'no group has read what is in it, start one'
  return `group "${behind.group_name}" is behind in ${behind.topic} partition ${behind.partition}, let it catch up`
}

function pruneOldestChunk(file: LogFile): number {
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
