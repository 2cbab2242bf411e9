// Names of the collections and what each must have. The first five are published; `pt_` is for bookkeeping that nobody
// else should read. There is no TTL index anywhere: it would delete raw events under the ledger's feet.

import type { EventKind } from '../../domain/events/documents.ts'

export const COLLECTION_OF_KIND: Record<EventKind, string> = { gpu: 'gpu_metrics', token: 'token_usage' }
export const DEAD_LETTERS = 'dead_letters'
export const MARKS = 'pt_marks'
export const POSITIONS = 'pt_positions'
export const META = 'pt_meta'
export const COST_LEDGER = 'cost_ledger'
export const PRICE_BOOK = 'price_book'

export type IndexKey = Readonly<Record<string, 1 | -1>>

/** Every collection, with the indexes that it needs beside `_id`. */
export const COLLECTIONS: Readonly<Record<string, readonly IndexKey[]>> = {
  gpu_metrics: [{ ts: 1 }, { host: 1, gpu_index: 1 }],
  token_usage: [{ ts: 1 }, { model: 1 }],
  [COST_LEDGER]: [],
  [PRICE_BOOK]: [],
  [DEAD_LETTERS]: [{ time: -1, _id: -1 }],
  [MARKS]: [{ level: 1, start_ms: 1, at_ms: 1 }],
  [POSITIONS]: [],
  [META]: [],
}

/**
 * Collections that are asked for lists of ids, and so are not clustered on `_id`: for `$in`, mongod 6 reads a clustered
 * collection whole, of any size, where an index on `_id` takes it straight to each.
 */
export const UNCLUSTERED: ReadonlySet<string> = new Set([COST_LEDGER, MARKS])

/** The name that MongoDB itself would give. */
export function indexName(key: IndexKey): string {
  return Object.entries(key).flat().join('_')
}
