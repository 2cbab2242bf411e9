// The copies of rejected records in `dead_letters`. Bytes are BSON binaries. Headers are stored as a list of pairs,
// because a header's name is arbitrary text and a NUL in a field name would make the letter itself unstorable.

import type { Binary, Document, Filter } from 'mongodb'
import { recordDateOf } from '../../../domain/events/record-time.ts'
import type { DeadLetter, Page } from '../../event-store.ts'
import { DEAD_LETTERS } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { decodeCursor, encodeCursor, numberValue, textValue } from './cursor.ts'
import { deleteByIds, insertDocuments } from './writes.ts'

const MAX_PAGE = 1_000
const PURGE_LETTERS = 5_000

type StoredLetter = Omit<DeadLetter, 'key' | 'value' | 'headers'> & {
  key: Binary | null
  value: Binary | null
  headers: { name: string; value: string }[]
}

export async function writeDeadLetters(connection: MongoConnection, letters: readonly DeadLetter[]): Promise<void> {
  const documents = letters.map((letter) => ({
    ...letter,
    headers: Object.entries(letter.headers).map(([name, value]) => ({ name, value })),
  }))
  await insertDocuments(connection, DEAD_LETTERS, documents)
}

export async function listDeadLetters(
  connection: MongoConnection,
  query: { reason?: string; topic?: string; limit: number; cursor?: string },
): Promise<Page<DeadLetter>> {
  const limit = Math.min(Math.max(1, Math.trunc(numberValue('limit', query.limit))), MAX_PAGE)
  const filter: Document = {}
  if (query.reason !== undefined) filter['reason'] = textValue('reason', query.reason)
  if (query.topic !== undefined) filter['topic'] = textValue('topic', query.topic)
  const cursor = decodeCursor(query.cursor)
  if (cursor !== undefined) {
    const time = new Date(cursor.ms)
    filter['time'] = { $lte: time }
    filter['$or'] = [{ time: { $lt: time } }, { time, _id: { $lt: textValue('cursor', cursor.id) } }]
  }
  const found = await lettersOf(connection)
    .find(filter as Filter<StoredLetter>, { maxTimeMS: connection.queryTimeMs })
    .sort({ time: -1, _id: -1 })
    .limit(limit + 1)
    .allowDiskUse(true)
    .toArray()
  const items = found.slice(0, limit).map(letterOf)
  const last = items.at(-1)
  const more = found.length > limit && last !== undefined
  return { items, cursor: more ? encodeCursor({ ms: last.time.getTime(), id: last._id }) : null }
}

export async function readDeadLetter(connection: MongoConnection, id: string): Promise<DeadLetter | null> {
  const stored = await lettersOf(connection).findOne({ _id: textValue('id', id) })
  return stored === null ? null : letterOf(stored)
}

export async function markRedriven(connection: MongoConnection, id: string, at: Date): Promise<void> {
  await lettersOf(connection).updateOne({ _id: textValue('id', id) }, { $set: { redriven_at: at } })
}

/** Deletes letters written before an instant; when it fails half-way, repeating it deletes the rest. */
export async function purgeDeadLetters(connection: MongoConnection, beforeMs: number): Promise<number> {
  const filter = { time: { $lt: new Date(beforeMs) } }
  const options = { maxTimeMS: connection.queryTimeMs, projection: { _id: 1 } }
  for (let deleted = 0; ; ) {
    const page = await lettersOf(connection).find(filter, options).sort({ time: 1 }).limit(PURGE_LETTERS).toArray()
    deleted += await deleteByIds(
      connection,
      DEAD_LETTERS,
      page.map(({ _id }) => _id),
      filter,
    )
    if (page.length < PURGE_LETTERS) return deleted
  }
}

function lettersOf(connection: MongoConnection) {
  return connection.db.collection<StoredLetter>(DEAD_LETTERS)
}

function letterOf(stored: StoredLetter): DeadLetter {
  const headers = Object.fromEntries(stored.headers.map(({ name, value }) => [name, value]))
  // Before null was stored, a time that was none became 1970.
  const record_time = stored.record_time === null ? null : recordDateOf(stored.record_time.getTime())
  return { ...stored, record_time, key: bytesOf(stored.key), value: bytesOf(stored.value), headers }
}

function bytesOf(binary: Binary | null): Buffer | null {
  return binary === null ? null : Buffer.from(binary.value())
}
