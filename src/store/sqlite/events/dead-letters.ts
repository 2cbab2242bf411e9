// Dead letters in the embedded store: unique by their position in the log, listed newest first.

import { recordDateOf } from '../../../domain/events/record-time.ts'
import type { Parameter } from '../../../sqlite/sqlite-file.ts'
import type { DeadLetter, Page } from '../../event-store.ts'
import { CHUNK_ROWS, type StoreDatabase } from '../store-database.ts'
import { decodeCursor, encodeCursor } from './cursor.ts'

type Row = Omit<DeadLetter, 'record_time' | 'time' | 'key' | 'value' | 'headers' | 'redriven_at'> & {
  record_ms: number
  time_ms: number
  key: Uint8Array | null
  value: Uint8Array | null
  headers: string
  redriven_ms: number | null
}

/** In `record_ms` where a record has no time: Kafka's own value for it. The column takes no null. */
const NO_TIME_MS = -1

const INSERT = `INSERT INTO dead_letters (_id, reason, message, topic, topic_id, partition, offset, record_ms, time_ms,
  key, value, value_length, value_sha256, headers, redriven_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
  ON CONFLICT (_id) DO NOTHING`

export async function writeDeadLetters(file: StoreDatabase, letters: readonly DeadLetter[]): Promise<void> {
  if (letters.length === 0) return
  await file.transaction('Writing dead letters failed', () => {
    for (const letter of letters) insertDeadLetter(file, letter)
  })
}

function insertDeadLetter(file: StoreDatabase, letter: DeadLetter): void {
  file.run(
    INSERT,
    letter._id,
    letter.reason,
    letter.message,
    letter.topic,
    letter.topic_id,
    letter.partition,
    letter.offset,
    letter.record_time?.getTime() ?? NO_TIME_MS,
    letter.time.getTime(),
    letter.key,
    letter.value,
    letter.value_length,
    letter.value_sha256,
    JSON.stringify(letter.headers),
    letter.redriven_at?.getTime() ?? null,
  )
}

export async function listDeadLetters(
  file: StoreDatabase,
  { reason, topic, limit, cursor }: { reason?: string; topic?: string; limit: number; cursor?: string },
): Promise<Page<DeadLetter>> {
  const conditions = ['true']
  const values: Parameter[] = []
  const where = (sql: string, ...parameters: Parameter[]) => {
    conditions.push(sql)
    values.push(...parameters)
  }
  if (reason !== undefined) where('reason = ?', reason)
  if (topic !== undefined) where('topic = ?', topic)
  if (cursor !== undefined) {
    const { ms, id } = decodeCursor(cursor)
    where('(time_ms, _id) < (?, ?)', ms, id)
  }
  const sql = `SELECT * FROM dead_letters WHERE ${conditions.join(' AND ')} ORDER BY time_ms DESC, _id DESC LIMIT ?`
  const rows = file.use('Listing dead letters failed', () => file.all<Row>(sql, ...values, limit + 1))
  const last = rows.length > limit ? rows[limit - 1]! : null
  return {
    items: rows.slice(0, limit).map(toDeadLetter),
    cursor: last === null ? null : encodeCursor({ ms: last.time_ms, id: last._id }),
  }
}

export async function readDeadLetter(file: StoreDatabase, id: string): Promise<DeadLetter | null> {
  const sql = 'SELECT * FROM dead_letters WHERE _id = ?'
  const row = file.use('Reading a dead letter failed', () => file.get<Row>(sql, id))
  return row === undefined ? null : toDeadLetter(row)
}

export async function markRedriven(file: StoreDatabase, id: string, at: Date): Promise<void> {
  const sql = 'UPDATE dead_letters SET redriven_ms = ? WHERE _id = ?'
  await file.transaction('Marking a dead letter failed', () => file.run(sql, at.getTime(), id))
}

/** Deletes letters written before an instant; when it fails half-way, repeating it deletes the rest. */
export function purgeDeadLetters(file: StoreDatabase, beforeMs: number): Promise<number> {
  const sql = `DELETE FROM dead_letters WHERE _id IN (
    SELECT _id FROM dead_letters WHERE time_ms < ? ORDER BY time_ms LIMIT ${CHUNK_ROWS})`
  return file.deleteInChunks('Purging dead letters failed', () => file.run(sql, beforeMs))
}

function toDeadLetter(row: Row): DeadLetter {
  const { record_ms, time_ms, redriven_ms, key, value, headers, ...same } = row
  return {
    ...same,
    record_time: recordDateOf(record_ms),
    time: new Date(time_ms),
    key: toBuffer(key),
    value: toBuffer(value),
    headers: JSON.parse(headers),
    ...(redriven_ms === null ? {} : { redriven_at: new Date(redriven_ms) }),
  }
}

function toBuffer(bytes: Uint8Array | null): Buffer | null {
  return bytes === null ? null : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
