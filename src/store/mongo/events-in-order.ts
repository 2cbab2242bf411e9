// Documents of a collection in order of (ts, _id), streamed in bounded memory. The index is {ts: 1}, so the server gives
// them by ts without sorting, and what has equal ts is put in order here. (Sorting by both on the server is a blocking
// sort of the whole range, 100 MB and then disk; an index on both costs every insert.) More than MAX_TIES of one ts are
// fetched in pages that the server sorts, a bounded top-k each, and so are ids of mixed types in a foreign collection.
// Ids are compared by their UTF-8 bytes, as MongoDB and SQLite do, not by UTF-16 units as `<` does.

import type { Collection, Document, Filter } from 'mongodb'
import { ObjectId } from 'mongodb'
import { ID_PREFIX, ID_PREFIX_END } from '../../domain/event-id.ts'
import { ItemsOf } from '../items-of.ts'

/** Most documents of one ts that are put in order here. */
const MAX_TIES = 5_000
/** Documents that are made of bytes in one go, some milliseconds: by the driver, and by a decoder of ours. */
const PAGE_DOCUMENTS = 500
const DECODED_PAGE_DOCUMENTS = 2_000
/** The first and last instant that a Date can hold; a range over them leaves out what is no date. */
const EARLIEST_MS = -8.64e15
const LATEST_MS = 8.64e15

/** Filter for documents that pertoken wrote. */
export const OWN_IDS: Filter<Document> = { _id: { $gte: ID_PREFIX, $lt: ID_PREFIX_END } as never }

export interface EventRange {
  filter: Filter<Document>
  /** Epoch milliseconds; the range has its start and not its end. */
  fromMs?: number | undefined
  toMs?: number | undefined
  /** Begins behind this place. */
  after?: { tsMs: number; id: unknown } | undefined
  /** Makes an object, with `_id` and `ts`, of a document's bytes; without it the driver makes one of all fields. */
  decode?: (bytes: Uint8Array) => Document
  /** Documents that the server sends at once. */
  batchSize: number
  /** Limit of the server's time, for queries that end soon; a stream has none. */
  maxTimeMs?: number
}

/** The documents of a range, one by one. */
export function eventsInOrder(collection: Collection<Document>, range: EventRange): ItemsOf<Document> {
  return new ItemsOf(pagesInOrder(collection, range))
}

/** The documents of a range, in pages of any length. */
export async function* pagesInOrder(
  collection: Collection<Document>,
  range: EventRange,
): AsyncGenerator<Document[], void, undefined> {
  const upper = range.toMs === undefined ? { $lte: new Date(LATEST_MS) } : { $lt: new Date(range.toMs) }
  let lower: Document = { $gte: new Date(range.fromMs ?? EARLIEST_MS) }
  if (range.after !== undefined) {
    const { tsMs, id } = range.after
    const inRange = tsMs >= (range.fromMs ?? EARLIEST_MS) && tsMs < (range.toMs ?? Number.POSITIVE_INFINITY)
    if (inRange) yield* tiesByServer(collection, range, tsMs, { id })
    lower = { $gt: new Date(Math.max(tsMs, (range.fromMs ?? EARLIEST_MS) - 1)) }
  }
  for (;;) {
    const tooMany = yield* scan(collection, range, { ...lower, ...upper })
    if (tooMany === null) return
    yield* tiesByServer(collection, range, tooMany)
    lower = { $gt: new Date(tooMany) }
  }
}

/** Gives documents by (ts, _id) until the end (null), or up to a ts that has too many, which it returns. */
async function* scan(
  collection: Collection<Document>,
  range: EventRange,
  ts: Document,
): AsyncGenerator<Document[], number | null> {
  const options = { batchSize: range.batchSize, ...optionsOf(range) }
  // allowDiskUse is for a collection whose ts index somebody dropped.
  const cursor = collection
    .find({ $and: [range.filter, { ts }] }, options)
    .sort({ ts: 1 })
    .allowDiskUse(true)
  const pageDocuments = range.decode === undefined ? PAGE_DOCUMENTS : DECODED_PAGE_DOCUMENTS
  /** Complete and in order. */
  let page: Document[] = []
  let ties: Document[] = []
  let tiesMs = Number.NaN
  try {
    for await (const first of cursor) {
      // What the server sent with it is here already: taken at once, it costs no promises.
      for (const sent of [first, ...cursor.readBufferedDocuments(pageDocuments - 1)]) {
        const document = decoded(range, sent)
        const tsMs = (document['ts'] as Date).getTime()
        if (tsMs !== tiesMs) {
          if (sortTies(ties)) for (const one of ties) page.push(one)
          else {
            yield page
            yield* tiesByServer(collection, range, tiesMs)
            page = []
          }
          ties = []
          tiesMs = tsMs
        }
        if (ties.length === MAX_TIES) {
          yield page
          return tsMs
        }
        ties.push(document)
      }
      yield page
      page = []
    }
  } finally {
    await cursor.close()
  }
  if (sortTies(ties)) yield ties
  else yield* tiesByServer(collection, range, tiesMs)
  return null
}

/** Puts documents of one ts in order; false where ids are of types whose order only the server knows. */
function sortTies(ties: Document[]): boolean {
  if (ties.length <= 1) return true
  if (ties.every(({ _id }) => typeof _id === 'string')) {
    ties.sort((a, b) => compareUtf8(a['_id'] as string, b['_id'] as string))
    return true
  }
  if (!ties.every(({ _id }) => (_id as unknown) instanceof ObjectId)) return false
  ties.sort((a, b) => (String(a['_id']) < String(b['_id']) ? -1 : 1))
  return true
}

/** All documents of one ts by _id, or those behind `after.id`. */
async function* tiesByServer(
  collection: Collection<Document>,
  range: EventRange,
  tsMs: number,
  after?: { id: unknown },
): AsyncGenerator<Document[]> {
  for (let behind = after; ; ) {
    // $expr compares across types, as the order does; inside $literal nothing of a cursor's value is interpreted.
    const place = behind === undefined ? {} : { $expr: { $gt: ['$_id', { $literal: behind.id }] } }
    const page = await collection
      .find({ $and: [range.filter, { ts: new Date(tsMs) }, place] }, optionsOf(range))
      .sort({ _id: 1 })
      .limit(range.batchSize)
      .allowDiskUse(true)
      .map((sent) => decoded(range, sent))
      .toArray()
    yield page
    if (page.length < range.batchSize) return
    behind = { id: page.at(-1)!['_id'] }
  }
}

function optionsOf({ maxTimeMs, decode }: EventRange): { maxTimeMS?: number; raw?: boolean } {
  return {
    ...(maxTimeMs === undefined ? {} : { maxTimeMS: maxTimeMs }),
    ...(decode === undefined ? {} : { raw: true }),
  }
}

/** A document as the range asks for it; what the driver gives as `raw` is bytes, whatever its type says. */
function decoded({ decode }: EventRange, sent: Document): Document {
  return decode === undefined ? sent : decode(sent as Uint8Array)
}

/** Order of well-formed strings by their UTF-8 bytes: as by UTF-16 units, but surrogates come after all else. */
export function compareUtf8(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const unitA = a.charCodeAt(i)
    const unitB = b.charCodeAt(i)
    if (unitA !== unitB) return lift(unitA) - lift(unitB)
  }
  return a.length - b.length
}

function lift(unit: number): number {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit
}
