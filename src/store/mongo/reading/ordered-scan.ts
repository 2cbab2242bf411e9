// Documents of a collection by (ts, _id), streamed in bounded memory. The index is {ts: 1}, so the server returns them
// by ts without sorting, and ties, documents of equal ts, are sorted here. (Sorting by both on the server is a blocking
// sort of the whole range, 100 MB and then disk; an index on both costs every insert.) A ts that fills a page alone is
// read in pages that the server sorts, a bounded top-k each, and so are ids of mixed types in a foreign collection. Ids
// are compared by their UTF-8 bytes, as MongoDB and SQLite do, not by UTF-16 units as `<` does.

import type { Db, Document, Filter } from 'mongodb'
import { ObjectId } from 'mongodb'
import { ID_PREFIX, ID_PREFIX_END } from '../../../domain/events/event-id.ts'
import { PagedIterator } from '../../paged-iterator.ts'
import type { ReadDocument } from './bson-reader.ts'
import { documentOf, type FoundPage, findPage } from './find-page.ts'

/** The first and last instant of a Date; a range of both excludes values that are no date. */
const EARLIEST_MS = -8.64e15
const LATEST_MS = 8.64e15

/** Filter for documents that pertoken wrote. */
export const OWN_IDS: Filter<Document> = { _id: { $gte: ID_PREFIX, $lt: ID_PREFIX_END } as never }

/** Documents of a time range of a collection. */
export interface EventRange {
  db: Db
  collection: string
  filter: Filter<Document>
  /** Epoch milliseconds, `toMs` exclusive. */
  fromMs?: number | undefined
  toMs?: number | undefined
  /** Begins behind this key. */
  after?: { tsMs: number; id: unknown } | undefined
  /** Decodes a document's bytes to an object with at least `_id` and `ts`; by default the driver does, all fields. */
  read?: ReadDocument<Document>
  /** Most documents of a page. */
  pageDocuments: number
  /** Limit of the server's time for a page, milliseconds. */
  maxTimeMs?: number
}

/** The documents of a range, one by one. */
export function eventsInOrder(range: EventRange): PagedIterator<Document> {
  return new PagedIterator(pagesInOrder(range))
}

/** The documents of a range, in pages of any length. */
export async function* pagesInOrder(range: EventRange): AsyncGenerator<Document[], void, undefined> {
  const fromMs = range.fromMs ?? EARLIEST_MS
  const upper = range.toMs === undefined ? { $lte: new Date(LATEST_MS) } : { $lt: new Date(range.toMs) }
  let lower: Document = { $gte: new Date(fromMs) }
  if (range.after !== undefined) {
    const { tsMs, id } = range.after
    if (tsMs >= fromMs && tsMs < (range.toMs ?? Number.POSITIVE_INFINITY)) yield* tiesByServer(range, tsMs, { id })
    lower = { $gt: new Date(Math.max(tsMs, fromMs - 1)) }
  }
  for (;;) {
    const { documents, isLast } = await pageOf(range, { ts: { ...lower, ...upper } }, { ts: 1 })
    let given = 0
    let at = 0
    while (at < documents.length) {
      const tsMs = tsMsOf(documents[at]!)
      const end = endOfTies(documents, at)
      // More of the page's last ts may lie behind the page. Then that ts begins the next page, unless it began this
      // one.
      const isWhole = end < documents.length || isLast
      if (!isWhole && at > 0) break
      if (!isWhole || !sortTies(documents, at, end)) {
        yield documents.slice(given, at)
        yield* tiesByServer(range, tsMs)
        given = end
      }
      lower = { $gt: new Date(tsMs) }
      at = end
    }
    yield documents.slice(given, at)
    if (isLast) return
  }
}

/** The end of the run of documents that have the ts of the one at `start`. */
function endOfTies(documents: readonly Document[], start: number): number {
  const tsMs = tsMsOf(documents[start]!)
  let end = start + 1
  while (end < documents.length && tsMsOf(documents[end]!) === tsMs) end++
  return end
}

/** Sorts documents of one ts by id, in place; false if ids are of types whose order only the server knows. */
function sortTies(documents: Document[], start: number, end: number): boolean {
  if (end - start === 1) return true
  const ties = documents.slice(start, end)
  if (ties.every(({ _id }) => typeof _id === 'string')) {
    ties.sort((a, b) => compareUtf8(a['_id'] as string, b['_id'] as string))
  } else if (ties.every(({ _id }) => (_id as unknown) instanceof ObjectId)) {
    ties.sort((a, b) => (String(a['_id']) < String(b['_id']) ? -1 : 1))
  } else return false
  for (const [i, document] of ties.entries()) documents[start + i] = document
  return true
}

/** All documents of one ts by _id, or those behind `after.id`, sorted by the server. */
async function* tiesByServer(
  range: EventRange,
  tsMs: number,
  after?: { id: unknown },
): AsyncGenerator<Document[], void, undefined> {
  for (let behind = after; ; ) {
    // $expr compares across types, as the sort does; inside $literal nothing of a cursor's value is interpreted.
    const bound = behind === undefined ? {} : { $expr: { $gt: ['$_id', { $literal: behind.id }] } }
    const { documents, isLast } = await pageOf(range, { ts: new Date(tsMs), ...bound }, { _id: 1 })
    yield documents
    if (isLast) return
    behind = { id: documents.at(-1)!['_id'] }
  }
}

function pageOf(range: EventRange, bounds: Document, sort: Record<string, 1>): Promise<FoundPage<Document>> {
  const { db, collection, filter, pageDocuments: limit, maxTimeMs, read = documentOf } = range
  return findPage(db, collection, { filter: { $and: [filter, bounds] }, sort, limit, maxTimeMs, read })
}

function tsMsOf(document: Document): number {
  return (document['ts'] as Date).getTime()
}

/** Compares well-formed strings by their UTF-8 bytes: as by UTF-16 units, but surrogates sort after everything else. */
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
