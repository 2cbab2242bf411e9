// The queries of the two event collections: streams and pages of events, the latest samples, the newest time, counts.
// All reads go to the primary with read concern majority (set on the database). Pages include foreign documents;
// everything that is typed as a document of ours is restricted to our ids.

import { Binary, type Collection, type Document, type Filter, MongoServerError, ObjectId } from 'mongodb'
import type { EventKind, GpuDocument } from '../../../domain/events/event.ts'
import { ID_PREFIX, ID_PREFIX_END } from '../../../domain/events/event-id.ts'
import type { EventQuery, LatestSampleQuery, Page, StoreCounts } from '../../event-store.ts'
import { COLLECTION_OF_KIND, DEAD_LETTERS } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { documentOf } from '../reading/find-page.ts'
import { eventsInOrder, OWN_IDS, pagesInOrder } from '../reading/ordered-scan.ts'
import { decodeCursor, encodeCursor, numberValue, textValue } from './cursor.ts'
import { withoutReach } from './reach.ts'

/** Documents that the driver decodes without a break, some milliseconds. */
const STREAM_PAGE = 500
const MAX_PAGE = 1_000
/** /health counts too; a count that takes longer is not worth waiting for. */
const COUNT_TIME_MS = 500
const MAX_TIME_MS_EXPIRED = 50

/**
 * Where ids of foreign documents can lie, one range a type: a clustered collection reads a range of one type in its
 * order, but is scanned as a whole for "not in our range". Booleans and the like as ids are left out.
 */
const FOREIGN_RANGES: readonly Document[] = [
  { $lt: ID_PREFIX },
  { $gte: ID_PREFIX_END },
  { $gte: new ObjectId('000000000000000000000000') },
  { $gte: Number.NEGATIVE_INFINITY },
  { $gte: new Binary(new Uint8Array(0)) },
  { $gte: {} },
]

/**
 * Documents of ours, in pages. With our ids they are of the kind's type, which the port's overloads name: so `never`.
 */
export function readEvents(
  connection: MongoConnection,
  kind: EventKind,
  fromMs: number,
  toMs: number,
): AsyncGenerator<never[]> {
  const events = { db: connection.db, collection: COLLECTION_OF_KIND[kind], filter: OWN_IDS }
  return pagesInOrder({ ...events, fromMs, toMs, pageDocuments: STREAM_PAGE, read: eventOf }) as AsyncGenerator<never[]>
}

/** A document as its event: without what only reading needs. */
function eventOf(bytes: Buffer, start: number): Document {
  return withoutReach(documentOf(bytes, start))
}

export async function listEvents(
  connection: MongoConnection,
  kind: EventKind,
  query: EventQuery,
): Promise<Page<Record<string, unknown>>> {
  const limit = Math.min(Math.max(1, Math.trunc(numberValue('limit', query.limit))), MAX_PAGE)
  const cursor = decodeCursor(query.cursor)
  const items: Document[] = []
  const range = {
    db: connection.db,
    collection: COLLECTION_OF_KIND[kind],
    filter: filterOf(query),
    fromMs: query.fromMs === undefined ? undefined : numberValue('from', query.fromMs),
    toMs: query.toMs === undefined ? undefined : numberValue('to', query.toMs),
    after: cursor && { tsMs: cursor.ms, id: cursor.id },
    // One more than is returned, to see that there is more, and one behind it, to see that it has no ties.
    pageDocuments: limit + 2,
    maxTimeMs: connection.queryTimeMs,
    read: eventOf,
  }
  for await (const document of eventsInOrder(range)) {
    if (items.length === limit) {
      const last = items.at(-1)!
      return { items, cursor: encodeCursor({ ms: (last['ts'] as Date).getTime(), id: last['_id'] }) }
    }
    items.push(document)
  }
  return { items, cursor: null }
}

export async function latestSample(connection: MongoConnection, query: LatestSampleQuery): Promise<GpuDocument | null> {
  const samples = rawCollection(connection, 'gpu')
  const filter: Filter<Document> = { $and: [OWN_IDS, filterOf(query), timeBoundsOf(query)] }
  const maxTimeMS = connection.queryTimeMs
  // Sorted by ts alone the first key of the index is the result; by both the server would sort all that match.
  const newest = await samples
    .find(filter, { maxTimeMS, projection: { ts: 1 } })
    .sort({ ts: -1 })
    .limit(1)
    .next()
  if (newest === null) return null
  const ties = samples.find({ $and: [filter, { ts: newest['ts'] }] }, { maxTimeMS })
  return (await ties.sort({ _id: -1 }).limit(1).next()) as GpuDocument | null
}

export async function latestSamplePerSlot(
  connection: MongoConnection,
  sinceMs: number,
  limit: number,
): Promise<GpuDocument[]> {
  const samples = rawCollection(connection, 'gpu')
  const options = { maxTimeMS: connection.queryTimeMs }
  // $max over a pair keeps one pair per slot; sorting first would hold every sample of the range.
  const newest = { $max: { ts: '$ts', id: '$_id' } }
  const slots = await samples
    .aggregate<{ newest: { id: string } }>(
      [
        { $match: { $and: [OWN_IDS, { ts: { $gte: new Date(numberValue('since', sinceMs)) } }] } },
        { $group: { _id: { host: '$host', gpu_index: '$gpu_index' }, newest } },
        { $sort: { 'newest.ts': -1, 'newest.id': -1 } },
        { $limit: Math.max(1, Math.trunc(numberValue('limit', limit))) },
      ],
      options,
    )
    .toArray()
  if (slots.length === 0) return []
  const ids = slots.map((slot) => slot.newest.id as never)
  return (await samples.find({ _id: { $in: ids } }, options).toArray()) as unknown as GpuDocument[]
}

export async function newestMs(connection: MongoConnection, kind: EventKind): Promise<number | null> {
  const options = { maxTimeMS: connection.queryTimeMs, projection: { ts: 1 } }
  const newest = await rawCollection(connection, kind).find(OWN_IDS, options).sort({ ts: -1 }).limit(1).next()
  return newest === null ? null : (newest['ts'] as Date).getTime()
}

export async function countDocuments(connection: MongoConnection): Promise<StoreCounts> {
  const estimate = (name: string) =>
    connection.db.collection(name).estimatedDocumentCount({ maxTimeMS: connection.queryTimeMs })
  const [gpu, token, deadLetters, foreignGpu, foreignToken] = await Promise.all([
    estimate(COLLECTION_OF_KIND.gpu),
    estimate(COLLECTION_OF_KIND.token),
    estimate(DEAD_LETTERS),
    countForeign(connection, 'gpu'),
    countForeign(connection, 'token'),
  ])
  return {
    gpuMetrics: Math.max(0, gpu - (foreignGpu ?? 0)),
    tokenUsage: Math.max(0, token - (foreignToken ?? 0)),
    deadLetters,
    foreign: foreignGpu === null || foreignToken === null ? null : foreignGpu + foreignToken,
  }
}

async function countForeign(connection: MongoConnection, kind: EventKind): Promise<number | null> {
  const untilMs = performance.now() + COUNT_TIME_MS
  let count = 0
  for (const range of FOREIGN_RANGES) {
    const maxTimeMS = Math.floor(untilMs - performance.now())
    if (maxTimeMS <= 0) return null
    try {
      // The count command, unlike countDocuments, counts keys of the _id index without looking at documents.
      const query = { _id: range }
      const readConcern = { level: 'majority' }
      const reply = await connection.command({ count: COLLECTION_OF_KIND[kind], query, maxTimeMS, readConcern })
      count += Number(reply['n'])
    } catch (error) {
      if (error instanceof MongoServerError && error.code === MAX_TIME_MS_EXPIRED) return null
      throw error
    }
  }
  return count
}

type FieldQuery = Pick<EventQuery, 'host' | 'gpuIndex' | 'model' | 'tenant'>

function filterOf(query: FieldQuery): Filter<Document> {
  const filter: Document = {}
  if (query.host !== undefined) filter['host'] = query.host === null ? null : textValue('host', query.host)
  if (query.gpuIndex !== undefined) filter['gpu_index'] = numberValue('gpu_index', query.gpuIndex)
  if (query.model !== undefined) filter['model'] = textValue('model', query.model)
  if (query.tenant !== undefined) filter['tenant'] = textValue('tenant', query.tenant)
  return filter
}

function timeBoundsOf({ atOrAfterMs, atOrBeforeMs }: LatestSampleQuery): Filter<Document> {
  const bounds: Document = {}
  if (atOrAfterMs !== undefined) bounds['$gte'] = new Date(numberValue('time', atOrAfterMs))
  if (atOrBeforeMs !== undefined) bounds['$lte'] = new Date(numberValue('time', atOrBeforeMs))
  return Object.keys(bounds).length === 0 ? {} : { ts: bounds }
}

function rawCollection(connection: MongoConnection, kind: EventKind): Collection<Document> {
  return connection.db.collection(COLLECTION_OF_KIND[kind])
}
