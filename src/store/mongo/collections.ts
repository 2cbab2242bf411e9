// Names of the collections and the indexes that each must have. Those without the prefix `pt_` are published; `pt_` is
// internal bookkeeping. There is no TTL index: it would delete raw events that the ledger still needs.

import type { EventKind } from '../../domain/events/event.ts'

export const COLLECTION_OF_KIND: Record<EventKind, string> = { gpu: 'gpu_metrics', token: 'token_usage' }
export const DEAD_LETTERS = 'dead_letters'
export const MARKS = 'pt_marks'
export const POSITIONS = 'pt_positions'
export const META = 'pt_meta'
export const COST_LEDGER = 'cost_ledger'
export const PRICE_BOOK = 'price_book'

export type IndexKey = Readonly<Record<string, 1 | -1>>

/** An index, of all documents or of those that the filter matches. */
export interface Index {
  key: IndexKey
  partialFilterExpression?: Readonly<Record<string, unknown>>
}

/** Token events that are counted in minutes before their own, see events/reach.ts. */
const REACH_INDEX: Index = { key: { pt_reach: 1, ts: 1 }, partialFilterExpression: { pt_reach: { $gt: 0 } } }

/** Every collection, with the indexes that it needs besides `_id`. */
export const COLLECTIONS: Readonly<Record<string, readonly Index[]>> = {
  gpu_metrics: [{ key: { ts: 1 } }, { key: { host: 1, gpu_index: 1 } }],
  token_usage: [{ key: { ts: 1 } }, { key: { model: 1 } }, REACH_INDEX],
  [COST_LEDGER]: [],
  [PRICE_BOOK]: [],
  [DEAD_LETTERS]: [{ key: { time: -1, _id: -1 } }],
  [MARKS]: [{ key: { level: 1, start_ms: 1, at_ms: 1 } }],
  [POSITIONS]: [],
  [META]: [],
}

/**
 * Collections that are queried by lists of ids, and so are not clustered on `_id`: for `$in`, mongod 6 scans a
 * clustered collection of any size as a whole, while an index on `_id` leads straight to each document.
 */
export const UNCLUSTERED: ReadonlySet<string> = new Set([COST_LEDGER, MARKS])

/** MongoDB's default name of an index. */
export function indexName(key: IndexKey): string {
  return Object.entries(key).flat().join('_')
}
