// Deleting what is too old: a day's raw events and minute cells, dead letters; in transactions of a bounded size, so that writers of new events
// get the lock in between. Stopped half-way, repeating it deletes the rest. Everything in this file is pertoken's.

import type { EventKind } from '../../domain/events/documents.ts'
import { bucketIdRange } from '../bucket-id.ts'
import { addToCounter, TABLE_OF } from './event-rows.ts'
import type { StoreDatabase } from './store-database.ts'

const CHUNK_ROWS = 5_000

export async function purge(
  file: StoreDatabase,
  range: { fromMs: number; toMs: number },
): Promise<{ events: number; cells: number }> {
  const events = (await purgeEvents(file, 'gpu', range)) + (await purgeEvents(file, 'token', range))
  const { from, to } = bucketIdRange('minute', range.fromMs, range.toMs)
  const sql = `DELETE FROM cost_ledger WHERE _id IN (
    SELECT _id FROM cost_ledger WHERE _id >= ? AND _id < ? LIMIT ${CHUNK_ROWS})`
  const cells = await inChunks(() => file.transaction('Purging cells failed', () => file.run(sql, from, to)))
  return { events, cells }
}

/** Deletes letters that were written before an instant. */
export function purgeDeadLetters(file: StoreDatabase, beforeMs: number): Promise<number> {
  const sql = `DELETE FROM dead_letters WHERE _id IN (
    SELECT _id FROM dead_letters WHERE time_ms < ? ORDER BY time_ms LIMIT ${CHUNK_ROWS})`
  return inChunks(() => file.transaction('Purging dead letters failed', () => file.run(sql, beforeMs)))
}

function purgeEvents(file: StoreDatabase, kind: EventKind, { fromMs, toMs }: { fromMs: number; toMs: number }) {
  const table = TABLE_OF[kind]
  const sql = `DELETE FROM ${table} WHERE rowid IN (
    SELECT rowid FROM ${table} INDEXED BY ${table}_ts WHERE ts >= ? AND ts < ? LIMIT ${CHUNK_ROWS})`
  return inChunks(() =>
    file.transaction('Purging events failed', () => {
      const deleted = file.run(sql, fromMs, toMs)
      addToCounter(file, kind, -deleted)
      if (kind === 'gpu') dropSlots(file, { fromMs, toMs })
      return deleted
    }),
  )
}

/** Slots whose newest sample was deleted have an older one now, where any is left, or are gone. */
function dropSlots(file: StoreDatabase, { fromMs, toMs }: { fromMs: number; toMs: number }): void {
  const dropped = file.all<{ host: string; gpu_index: number; ts: number }>(
    `DELETE FROM slots WHERE ts >= ? AND ts < ? AND NOT EXISTS (SELECT 1 FROM gpu_metrics WHERE _id = sample_id)
     RETURNING host, gpu_index, ts`,
    fromMs,
    toMs,
  )
  const sql = `INSERT INTO slots (host, gpu_index, ts, sample_id)
    SELECT ?1, gpu_index, ts, _id FROM gpu_metrics INDEXED BY gpu_metrics_ts
    WHERE ts <= ?3 AND gpu_index = ?2 AND ifnull(host, '') = ?1 ORDER BY ts DESC, _id DESC LIMIT 1`
  for (const { host, gpu_index, ts } of dropped) file.run(sql, host, gpu_index, ts)
}

async function inChunks(deleteChunk: () => Promise<number>): Promise<number> {
  for (let total = 0; ; ) {
    const deleted = await deleteChunk()
    total += deleted
    if (deleted < CHUNK_ROWS) return total
  }
}
