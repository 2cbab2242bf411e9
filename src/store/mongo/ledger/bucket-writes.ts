// Spans of the ledger in `cost_ledger`, one document each; `_id` is made of level, start and host (span-id.ts). Whoever
// replaces a span must learn whether it did, also of many in one command: an insert names its duplicates, but an update
// only says how many it matched. So every write carries a fresh `write_id`, and only where the number falls short are the
// documents asked whose they are. One that was ours and was replaced again before we asked counts as not replaced, which
// is safe: the caller computes it once more.

import { type Document, ObjectId } from 'mongodb'
import type { BucketLevel } from '../../../domain/ledger/buckets.ts'
import { type CellRowJson, rowToJson } from '../../../domain/ledger/row-json.ts'
import { AMOUNT_FIELDS } from '../../../domain/ledger/rows.ts'
import type { CellRow, RowTotals } from '../../../domain/ledger/types.ts'
import { bucketId, bucketIdPages, bucketIdRange } from '../../bucket-id.ts'
import type { LedgerBucket } from '../../ledger-store.ts'
import { COST_LEDGER } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { bulkError, chunksOf, faultsOf, isDuplicateId } from '../events/writes.ts'
import { findPage } from '../reading/find-page.ts'
import { readAhead } from '../reading/read-ahead.ts'
import { bucketOf, type StoredBucket as SpanDocument } from './bucket-documents.ts'

const PAGE_SPANS = 100
const INTEGER_FIELDS = [...AMOUNT_FIELDS, 'energy_mj'] as const

interface StoredBucket extends SpanDocument {
  _id: string
  write_id: ObjectId
}

interface SpanRange {
  fromMs: number
  toMs: number
  hosts?: readonly (string | null)[] | undefined
}

/** Spans of a range by (start, host), in pages. */
export function readBuckets(
  connection: MongoConnection,
  level: BucketLevel,
  range: SpanRange,
): AsyncGenerator<LedgerBucket[]> {
  return readPages(connection, level, range, {})
}

/** The same with their sums in place of the rows where they have them, and never with both. */
export function readRollups(
  connection: MongoConnection,
  level: BucketLevel,
  range: SpanRange & { by: keyof RowTotals },
): AsyncGenerator<LedgerBucket[]> {
  const fields = { level: 1, start: 1, host: 1, rev: 1, book_versions: 1, capped: 1, computed_at: 1 }
  const rows = { $ifNull: [`$${range.by}_sums`, '$rows'] }
  return readPages(connection, level, range, { projection: { ...fields, rows } })
}

async function* readPages(
  connection: MongoConnection,
  level: BucketLevel,
  { fromMs, toMs, hosts }: SpanRange,
  options: { projection?: Document },
): AsyncGenerator<LedgerBucket[]> {
  const find = (filter: Document) => readAhead(pagesOf(connection, filter, options))
  const idPages = hosts === undefined ? null : bucketIdPages(level, { fromMs, toMs, hosts }, PAGE_SPANS)
  if (idPages !== null) {
    for (const ids of idPages) yield* find({ _id: { $in: ids } })
    return
  }
  const { from, to } = bucketIdRange(level, fromMs, toMs)
  const ofHosts = hosts === undefined ? {} : { host: { $in: [...hosts] } }
  yield* find({ _id: { $gte: from, $lt: to }, ...ofHosts })
}

async function* pagesOf(
  connection: MongoConnection,
  filter: Document,
  options: { projection?: Document },
): AsyncGenerator<LedgerBucket[], void, undefined> {
  const query = { sort: { _id: 1 }, limit: PAGE_SPANS, read: bucketOf, ...options } as const
  for (let behind = {}; ; ) {
    const page = await findPage(connection.db, COST_LEDGER, { filter: { $and: [filter, behind] }, ...query })
    yield page.documents
    if (page.isLast) return
    const { level, startMs, host } = page.documents.at(-1)!
    behind = { _id: { $gt: bucketId(level, startMs, host) } }
  }
}

export async function readRevs(
  connection: MongoConnection,
  { level, startMs, hosts }: { level: BucketLevel; startMs: number; hosts: readonly (string | null)[] },
): Promise<Map<string | null, number>> {
  const ids = hosts.map((host) => bucketId(level, startMs, host))
  const options = { projection: { host: 1, rev: 1 }, maxTimeMS: connection.queryTimeMs, batchSize: 10_000 }
  const stored = await spansOf(connection)
    .find({ _id: { $in: ids } }, options)
    .toArray()
  return new Map(stored.map(({ host, rev }) => [host, rev]))
}

/** Replaces those whose stored rev is theirs. */
export async function replaceBuckets(connection: MongoConnection, spans: readonly LedgerBucket[]): Promise<boolean[]> {
  const writeId = new ObjectId()
  const replaced = new Set<string>()
  const fresh = spans.filter(({ rev }) => rev === 0).map((span) => toDocument(span, writeId))
  for (const chunk of chunksOf(fresh)) await insertNew(connection, chunk, replaced)
  const updates = spans
    .filter(({ rev }) => rev !== 0)
    .map((span) => {
      const u = toDocument(span, writeId)
      return { q: { _id: u._id, rev: span.rev }, u }
    })
  for (const chunk of chunksOf(updates)) await replaceKnown(connection, chunk, { writeId, replaced })
  return spans.map(({ level, startMs, host }) => replaced.has(bucketId(level, startMs, host)))
}

async function insertNew(
  connection: MongoConnection,
  documents: readonly StoredBucket[],
  replaced: Set<string>,
): Promise<void> {
  const { writeConcern } = connection
  const answer = await connection.command({ insert: COST_LEDGER, documents, ordered: false, writeConcern })
  const faults = faultsOf(answer)
  const failed = faults.filter((fault) => !isDuplicateId(fault))
  if (failed.length > 0) throw bulkError(COST_LEDGER, failed, documents.length)
  const taken = new Set(faults.map((fault) => fault.index))
  for (const [i, { _id }] of documents.entries()) if (!taken.has(i)) replaced.add(_id)
}

async function replaceKnown(
  connection: MongoConnection,
  updates: readonly { q: { _id: string }; u: StoredBucket }[],
  { writeId, replaced }: { writeId: ObjectId; replaced: Set<string> },
): Promise<void> {
  const { writeConcern } = connection
  const answer = await connection.command({ update: COST_LEDGER, updates, ordered: false, writeConcern })
  const faults = faultsOf(answer)
  if (faults.length > 0) throw bulkError(COST_LEDGER, faults, updates.length)
  const ids = updates.map(({ q }) => q._id)
  if (Number(answer['n']) === updates.length) {
    for (const id of ids) replaced.add(id)
    return
  }
  const options = { projection: { _id: 1 }, maxTimeMS: connection.queryTimeMs, batchSize: 10_000 }
  const ours = await spansOf(connection)
    .find({ _id: { $in: ids }, write_id: writeId }, options)
    .toArray()
  for (const { _id } of ours) replaced.add(_id)
}

function toDocument(span: LedgerBucket, writeId: ObjectId): StoredBucket {
  return {
    _id: bucketId(span.level, span.startMs, span.host),
    level: span.level,
    start: new Date(span.startMs),
    host: span.host,
    rev: span.rev + 1,
    rows: span.rows.map(toRowDocument),
    ...(span.sums === null
      ? {}
      : { model_sums: span.sums.model.map(toRowDocument), tenant_sums: span.sums.tenant.map(toRowDocument) }),
    book_versions: span.bookVersions,
    capped: span.capped,
    computed_at: new Date(span.computedMs),
    write_id: writeId,
  }
}

/** As in JSON, but integers are BSON longs, so that one field has one type; text only beyond 2⁶³. */
function toRowDocument(row: CellRow): CellRowJson {
  const document = rowToJson(row) as Record<string, unknown>
  for (const field of INTEGER_FIELDS) {
    const value = row[field]
    if (document[field] !== undefined && value !== null && BigInt.asIntN(64, value) === value) document[field] = value
  }
  return document as CellRowJson
}

function spansOf(connection: MongoConnection) {
  return connection.db.collection<StoredBucket>(COST_LEDGER)
}
