// Marks in the embedded store: one row a bucket start and host, only inserted and deleted by id. AUTOINCREMENT never
// reuses an id, so deleting what was read deletes nothing that was inserted later. Which buckets are dirty is read from
// the index on (level, start, time of the mark) alone, newest start first, and no further than the limit.

import type { BucketLevel } from '../../../domain/ledger/buckets.ts'
import type { DirtyBucket, Mark, StaleBucket } from '../../ledger-store.ts'
import type { StoreDatabase } from '../store-database.ts'

export async function insertMarks(
  file: StoreDatabase,
  level: BucketLevel,
  buckets: readonly StaleBucket[],
  atMs: number,
): Promise<void> {
  if (buckets.length === 0) return
  await file.transaction('Writing marks failed', () => {
    const insert = file.statement('INSERT INTO marks (level, start_ms, host, at_ms) VALUES (?, ?, ?, ?)')
    for (const { startMs, hosts } of buckets) for (const host of hosts) insert.run(level, startMs, host, atMs)
  })
}

export async function dirtyBuckets(file: StoreDatabase, level: BucketLevel, limit: number): Promise<DirtyBucket[]> {
  const sql = `SELECT start_ms AS startMs, count(*) AS marks, min(at_ms) AS firstAtMs, max(at_ms) AS lastAtMs
    FROM marks INDEXED BY marks_span WHERE level = ? GROUP BY start_ms ORDER BY start_ms DESC LIMIT ?`
  const rows = file.use('Reading marks failed', () => file.all<DirtyBucket>(sql, level, limit))
  return rows.map((row) => ({ ...row }))
}

export async function readMarks(file: StoreDatabase, level: BucketLevel, startMs: number): Promise<Mark[]> {
  const sql = 'SELECT id, host FROM marks WHERE level = ? AND start_ms = ? ORDER BY id'
  const rows = file.use('Reading marks failed', () =>
    file.all<{ id: number; host: string | null }>(sql, level, startMs),
  )
  return rows.map(({ id, host }) => ({ id: String(id), hosts: [host] }))
}

export async function deleteMarks(file: StoreDatabase, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return
  await file.transaction('Deleting marks failed', () => {
    const remove = file.statement('DELETE FROM marks WHERE id = ?')
    for (const id of ids) remove.run(Number(id))
  })
}

export async function countMarks(file: StoreDatabase, fromMs: number, toMs: number): Promise<number> {
  const sql = `SELECT count(*) AS count FROM marks
    WHERE level IN ('minute', 'hour', 'day') AND start_ms >= ? AND start_ms < ?`
  return file.use('Counting marks failed', () => file.get<{ count: number }>(sql, fromMs, toMs)!.count)
}
