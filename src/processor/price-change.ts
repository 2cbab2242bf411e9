// What a range of the past costs under one book and under another, computed from the raw events without writing anything.
// (Being written; the interface stands.)

import type { PriceBookData } from '../domain/price-book-schema.ts'
import type { LedgerStore } from '../store/ledger-store.ts'

/** Told now and then while a range is worked through; times are epoch milliseconds of event time. */
export type ProgressOf = (progress: { doneToMs: number; fromMs: number; toMs: number; cells: number }) => void

/** Money before and after, of one (model, tenant); decimal text of 10⁻⁹ USD. */
export interface ModelTenantChange {
  model: string | null
  tenant: string | null
  before_nano_usd: string
  after_nano_usd: string
  before_uncovered_nano_usd: string
  after_uncovered_nano_usd: string
}

/** The same for a whole range. */
export interface RangeTotals {
  from: string
  to: string
  cells: number
  before_nano_usd: string
  after_nano_usd: string
  before_uncovered_nano_usd: string
  after_uncovered_nano_usd: string
  by: ModelTenantChange[]
  /** Frozen days in the range, as 2026-01-31: they are skipped. */
  skipped_days: string[]
}

/**
 * What a book would change if the range had been priced with it: for `prices set`, over the last `WHAT_IF_MS` of the
 * ledger. Read-only.
 */
export async function whatIf(_options: {
  ledger: LedgerStore
  book: PriceBookData
  fromMs: number
  toMs: number
  onProgress?: ProgressOf
}): Promise<RangeTotals> {
  throw new Error('being written')
}
