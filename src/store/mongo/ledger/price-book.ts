// Versions of the price book and revisions of the ledger in `price_book`, told apart by `kind`, and the states of days
// under retention in the bookkeeping. Numbers are unique by `_id`: of two processes that want the same number one is told
// that it is taken. A day only moves forward, by an insert first and then by updates that name the state before.

import type { DayState, PriceBookVersion, Revision } from '../../ledger-store.ts'
import { META, PRICE_BOOK } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { bulkError, faultsOf, insertDocuments } from '../events/writes.ts'

interface StoredVersion {
  _id: string
  kind: 'version'
  version: number
  from: Date | null
  at: Date
  origin: string
  book: unknown
}

interface StoredRevision {
  _id: string
  kind: 'revision'
  revision: number
  from: Date
  to: Date
  book_version: number
  at: Date
  summary: unknown
}

interface StoredDay {
  /** `day:` and the date. */
  _id: string
  start: Date
  state: DayState['state']
  since: Date
}

/** The state that a day must be in to enter each. */
const STATE_BEFORE = { closing: null, frozen: 'closing', purged: 'frozen' } as const

export async function readBooks(connection: MongoConnection): Promise<PriceBookVersion[]> {
  const options = { maxTimeMS: connection.queryTimeMs }
  const versions = connection.db.collection<StoredVersion>(PRICE_BOOK).find({ kind: 'version' }, options)
  const stored = await versions.sort({ version: 1 }).toArray()
  return stored.map(({ version, from, at, origin, book }) => ({
    version,
    fromMs: from === null ? null : from.getTime(),
    atMs: at.getTime(),
    origin,
    book,
  }))
}

export async function insertBook(
  connection: MongoConnection,
  { version, fromMs, atMs, origin, book }: PriceBookVersion,
): Promise<boolean> {
  const stored: StoredVersion = {
    _id: `version:${version}`,
    kind: 'version',
    version,
    from: fromMs === null ? null : new Date(fromMs),
    at: new Date(atMs),
    origin,
    book,
  }
  return (await insertDocuments(connection, PRICE_BOOK, [stored])).stored === 1
}

export async function readRevisions(connection: MongoConnection): Promise<Revision[]> {
  const options = { maxTimeMS: connection.queryTimeMs }
  const revisions = connection.db.collection<StoredRevision>(PRICE_BOOK).find({ kind: 'revision' }, options)
  const stored = await revisions.sort({ revision: 1 }).toArray()
  return stored.map(({ revision, from, to, book_version, at, summary }) => ({
    revision,
    fromMs: from.getTime(),
    toMs: to.getTime(),
    bookVersion: book_version,
    atMs: at.getTime(),
    summary,
  }))
}

export async function insertRevision(connection: MongoConnection, given: Revision): Promise<boolean> {
  const stored: StoredRevision = {
    _id: `revision:${given.revision}`,
    kind: 'revision',
    revision: given.revision,
    from: new Date(given.fromMs),
    to: new Date(given.toMs),
    book_version: given.bookVersion,
    at: new Date(given.atMs),
    summary: given.summary,
  }
  return (await insertDocuments(connection, PRICE_BOOK, [stored])).stored === 1
}

export async function updateRevisionSummary(
  connection: MongoConnection,
  revision: number,
  summary: unknown,
): Promise<void> {
  await updateOne(connection, PRICE_BOOK, { q: { _id: `revision:${revision}` }, u: { $set: { summary } } })
}

export async function readDayStates(connection: MongoConnection): Promise<DayState[]> {
  const options = { maxTimeMS: connection.queryTimeMs }
  // `;` is the character after `:`.
  const days = connection.db.collection<StoredDay>(META).find({ _id: { $gte: 'day:', $lt: 'day;' } }, options)
  const stored = await days.sort({ _id: 1 }).toArray()
  return stored.map(({ start, state, since }) => ({ startMs: start.getTime(), state, sinceMs: since.getTime() }))
}

export async function advanceDay(connection: MongoConnection, { startMs, state, sinceMs }: DayState): Promise<boolean> {
  const start = new Date(startMs)
  const since = new Date(sinceMs)
  const _id = `day:${start.toISOString().slice(0, 10)}`
  const before = STATE_BEFORE[state]
  if (before === null) return (await insertDocuments(connection, META, [{ _id, start, state, since }])).stored === 1
  return await updateOne(connection, META, { q: { _id, state: before }, u: { $set: { state, since } } })
}

/** Updates one document; false when there was none to update. */
async function updateOne(
  connection: MongoConnection,
  collection: string,
  update: { q: object; u: object },
): Promise<boolean> {
  const { writeConcern } = connection
  const answer = await connection.command({ update: collection, updates: [update], writeConcern })
  const faults = faultsOf(answer)
  if (faults.length > 0) throw bulkError(collection, faults, 1)
  return Number(answer['n']) === 1
}
