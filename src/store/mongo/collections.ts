// Names of the collections and what each must have. The first five are published; `pt_` is for bookkeeping that nobody
// else should read. There is no TTL index anywhere: it would delete raw events under the ledger's feet.

import type { EventKind } from '../../domain/documents.ts'

export const COLLECTION_OF_KIND: Record<EventKind, string> = { gpu: 'gpu_metrics', token: 'token_usage' }
export const DEAD_LETTERS = 'dead_letters'
export const MARKS = 'pt_marks'
export const POSITIONS = 'pt_positions'
export const META = 'pt_meta'

export type IndexKey = Readonly<Record<string, 1 | -1>>

/** Every collection, with the indexes that it needs beside `_id`. */
export const COLLECTIONS: Readonly<Record<string, readonly IndexKey[]>> = {
  gpu_metrics: [{ ts: 1 }, { host: 1, gpu_index: 1 }],
  token_usage: [{ ts: 1 }, { model: 1 }],
  cost_ledger: [],
  price_book: [],
  [DEAD_LETTERS]: [{ time: -1, _id: -1 }],
  [MARKS]: [{ level: 1, start_ms: 1 }],
  [POSITIONS]: [],
  [META]: [],
}

/** The name that MongoDB itself would give. */
export function indexName(key: IndexKey): string {
  return Object.entries(key).flat().join('_')
}
