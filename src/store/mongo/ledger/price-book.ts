// Versions of the price book and revisions of the ledger in `price_book`, distinguished by `kind`. Numbers are unique
// by `_id`: of two processes that insert the same number, one gets false and takes the next.

import type { PriceBookVersion, Revision } from '../../ledger-store.ts'
import { PRICE_BOOK } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { insertDocuments, updateOne } from '../events/writes.ts'

interface VersionDocument {
  _id: string
  kind: 'version'
  version: number
  from: Date | null
  at: Date
  origin: string
  book: unknown
}

interface RevisionDocument {
  _id: string
  kind: 'revision'
  revision: number
  from: Date
  to: Date
  book_version: number
  at: Date
  summary: unknown
}

export async function readBooks(connection: MongoConnection): Promise<PriceBookVersion[]> {
  const options = { maxTimeMS: connection.queryTimeMs }
  const versions = connection.db.collection<VersionDocument>(PRICE_BOOK).find({ kind: 'version' }, options)
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
  const stored: VersionDocument = {
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
  const revisions = connection.db.collection<RevisionDocument>(PRICE_BOOK).find({ kind: 'revision' }, options)
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

export async function insertRevision(
  connection: MongoConnection,
  { revision, fromMs, toMs, bookVersion, atMs, summary }: Revision,
): Promise<boolean> {
  const stored: RevisionDocument = {
    _id: `revision:${revision}`,
    kind: 'revision',
    revision,
    from: new Date(fromMs),
    to: new Date(toMs),
    book_version: bookVersion,
    at: new Date(atMs),
    summary,
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
