// Repricing a range of the past. (Being written; the interface stands.)

import type { LedgerStore, Revision } from '../store/ledger-store.ts'
import type { ProgressOf, RangeTotals } from './price-change.ts'

/** What a revision keeps of itself; the JSON in `Revision.summary`. Money is decimal text of 10⁻⁹ USD. */
export interface RevisionSummary extends RangeTotals {
  /** False until all cells of the range are marked; a keeper finishes what a crash left. */
  done: boolean
}

export interface RepriceOptions {
  ledger: LedgerStore
  /** Whole minutes, epoch milliseconds, `toMs` exclusive. */
  fromMs: number
  toMs: number
  /** The version that the range is pinned to. */
  bookVersion: number
  nowMs: number
  onProgress?: ProgressOf
}

/**
 * Pins a range to a version of the price book, marks its cells, and answers with before and after. The keeper computes
 * the cells within a minute or two. Throws a RangeError for a range or version that makes no sense.
 */
export async function reprice(_options: RepriceOptions): Promise<Revision & { summary: RevisionSummary }> {
  throw new Error('being written')
}
