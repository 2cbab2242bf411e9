// Deletes what retention purges, raw events and cells of a range; when it fails half-way, repeating it deletes the
// rest. Every document of the embedded store is pertoken's.

import type { EventKind } from '../../../domain/events/event.ts'
import { bucketIdRange } from '../../bucket-id.ts'
import { addToCounter, TABLE_OF } from '../events/rows.ts'
import { CHUNK_ROWS, type StoreDatabase } from '../store-database.ts'

export async function purge(
  file: StoreDatabase,
  fromMs: number,
  toMs: number,
): Promise<{ events: number; cells: number }> {
  const samples = await purgeEvents(file, 'gpu', { fromMs, toMs })
  const tokens = await purgeEvents(file, 'token', { fromMs, toMs })
  const { from, to } = bucketIdRange('minute', fromMs, toMs)
  const sql = `DELETE FROM cost_ledger WHERE _id IN (
    SELECT _id FROM cost_ledger WHERE _id >= ? AND _id < ? LIMIT ${CHUNK_ROWS})`
  const cells = await file.deleteInChunks('Purging cells failed', () => file.run(sql, from, to))
  return { events: samples + tokens, cells }
}

function purgeEvents(
  file: StoreDatabase,
  kind: EventKind,
  { fromMs, toMs }: { fromMs: number; toMs: number },
): Promise<number> {
  const table = TABLE_OF[kind]
  const sql = `DELETE FROM ${table} WHERE rowid IN (
    SELECT rowid FROM ${table} INDEXED BY ${table}_ts WHERE ts >= ? AND ts < ? LIMIT ${CHUNK_ROWS})`
  return file.deleteInChunks('Purging events failed', () => {
    const deleted = file.run(sql, fromMs, toMs)
    addToCounter(file, kind, -deleted)
    if (kind === 'gpu') repairSlots(file, { fromMs, toMs })
    return deleted
  })
}

/** Slots whose newest sample was deleted get the newest remaining one, or are dropped where none remains. */
function repairSlots(file: StoreDatabase, { fromMs, toMs }: { fromMs: number; toMs: number }): void {
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
