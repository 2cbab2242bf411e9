// Raw events as the ledger needs them beside their grouping: samples with its fields only, the span of time that there
// are events for, and the deletion of a purged range. Only documents that pertoken wrote; those of others may lie between
// them in any number, so what looks for ours goes on in steps that end.

import type { Collection, Document } from 'mongodb'
import type { EventKind } from '../../../domain/events/documents.ts'
import type { LedgerToken } from '../../../domain/ledger/types.ts'
import { bucketIdRange } from '../../bucket-id.ts'
import { COLLECTION_OF_KIND, COST_LEDGER } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { deleteByIds } from '../events/delete-by-ids.ts'
import type { ReadDocument } from '../reading/bson-reader.ts'
import { OWN_IDS, pagesInOrder } from '../reading/ordered-scan.ts'
import { readAhead } from '../reading/read-ahead.ts'
import { type HostSample, sampleOf, tokenOf } from './bucket-documents.ts'

const PAGE_DOCUMENTS = 2_000
const STEP_EVENTS = 50_000
const PURGE_DOCUMENTS = 5_000
const KINDS: readonly EventKind[] = ['gpu', 'token']

interface TimeRange {
  fromMs: number
  toMs: number
}

/** Samples of a range by (ts, _id), in pages. */
export function readLedgerSamples(connection: MongoConnection, range: TimeRange): AsyncGenerator<HostSample[]> {
  return pagesOf(connection, 'gpu', { ...range, read: sampleOf }) as AsyncGenerator<never>
}

/** Token usage of a range by (ts, _id), in pages. */
export function readLedgerTokens(connection: MongoConnection, range: TimeRange): AsyncGenerator<LedgerToken[]> {
  return pagesOf(connection, 'token', { ...range, read: tokenOf }) as AsyncGenerator<never>
}

function pagesOf(
  connection: MongoConnection,
  kind: EventKind,
  range: TimeRange & { read: ReadDocument<Document> },
): AsyncGenerator<Document[]> {
  const events = { db: connection.db, collection: COLLECTION_OF_KIND[kind], filter: OWN_IDS }
  return readAhead(pagesInOrder({ ...events, pageDocuments: PAGE_DOCUMENTS, ...range }))
}

/** The span of event time of both kinds. */
export async function rawRange(connection: MongoConnection): Promise<{ fromMs: number; toMs: number } | null> {
  const edges = KINDS.flatMap((kind) => [edgeMs(connection, kind, 1), edgeMs(connection, kind, -1)])
  const times = (await Promise.all(edges)).filter((ms) => ms !== null)
  return times.length === 0 ? null : { fromMs: Math.min(...times), toMs: Math.max(...times) + 1 }
}

/** Time of the first (1) or last (-1) event of ours; null when there is none. */
async function edgeMs(connection: MongoConnection, kind: EventKind, direction: 1 | -1): Promise<number | null> {
  const events = rawCollection(connection, kind)
  const options = { maxTimeMS: connection.queryTimeMs, projection: { _id: 0, ts: 1 } }
  const [behind, upTo] = direction === 1 ? (['$gt', '$lte'] as const) : (['$lt', '$gte'] as const)
  const extreme = new Date(8.64e15 * -direction)
  for (let range: Document = { [`${behind}e`]: extreme }; ; ) {
    const inOrder = (filter: Document) => events.find(filter, options).sort({ ts: direction }).limit(1)
    const stepEnd = await inOrder({ ts: range }).skip(STEP_EVENTS).next()
    const step = stepEnd === null ? range : { ...range, [upTo]: stepEnd['ts'] }
    const found = await inOrder({ ...OWN_IDS, ts: step }).next()
    if (found !== null) return (found['ts'] as Date).getTime()
    if (stepEnd === null) return null
    range = { [behind]: stepEnd['ts'], [upTo]: new Date(8.64e15 * direction) }
  }
}

/** Deletes raw events and minute cells of a range; stopped half-way, repeating it deletes the rest. */
export async function purge(
  connection: MongoConnection,
  range: { fromMs: number; toMs: number },
): Promise<{ events: number; cells: number }> {
  let events = 0
  for (const kind of KINDS) events += await purgeEvents(connection, kind, range)
  const { from, to } = bucketIdRange('minute', range.fromMs, range.toMs)
  const cells = connection.db.collection(COST_LEDGER)
  const filter = { _id: { $gte: from, $lt: to } as never }
  const options = { maxTimeMS: connection.queryTimeMs, projection: { _id: 1 } }
  for (let deleted = 0; ; ) {
    const page = await cells.find(filter, options).sort({ _id: 1 }).limit(PURGE_DOCUMENTS).toArray()
    const ids = page.map(({ _id }) => _id)
    deleted += await deleteByIds(connection, COST_LEDGER, ids)
    if (page.length < PURGE_DOCUMENTS) return { events, cells: deleted }
  }
}

async function purgeEvents(
  connection: MongoConnection,
  kind: EventKind,
  { fromMs, toMs }: { fromMs: number; toMs: number },
): Promise<number> {
  const events = rawCollection(connection, kind)
  const options = { maxTimeMS: connection.queryTimeMs, projection: { _id: 1, ts: 1 } }
  let first = new Date(fromMs)
  for (let deleted = 0; ; ) {
    const filter = { ...OWN_IDS, ts: { $gte: first, $lt: new Date(toMs) } }
    const page = await events.find(filter, options).sort({ ts: 1 }).limit(PURGE_DOCUMENTS).toArray()
    if (page.length === 0) return deleted
    const last = page.at(-1)!['ts'] as Date
    const ids = page.map(({ _id }) => _id)
    // The times lead to the index: by a list of ids alone, mongod 6 reads a clustered collection whole.
    deleted += await deleteByIds(connection, COLLECTION_OF_KIND[kind], ids, { ts: { $gte: first, $lte: last } })
    if (page.length < PURGE_DOCUMENTS) return deleted
    first = last
  }
}

function rawCollection(connection: MongoConnection, kind: EventKind): Collection<Document> {
  return connection.db.collection(COLLECTION_OF_KIND[kind])
}
