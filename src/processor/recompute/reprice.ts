// Repricing a range of the past: pins it to a version of the price book and invalidates its cells, so that the keeper
// recomputes them. The raw events stay as they are, so every revision can still be reported (ledger-as-of.ts). The
// order: before and after are computed, the revision is inserted (from then on it prices the range), its cells are
// marked, the revision is `done`. A crash in between leaves a revision that is not done: a keeper marks its cells again
// and finishes it (invalidation.ts).

import { CELL_MS } from '../../domain/ledger/buckets.ts'
import type { LedgerStore, Revision } from '../../store/ledger-store.ts'
import { invalidateMissingCommitments, invalidateRepriced } from '../ledger/invalidation.ts'
import { committedEndMs } from '../ledger/schedule.ts'
import { PriceBookVersions } from '../prices/price-book-versions.ts'
import { type PriceChange, type PriceChangeOptions, priceChange } from './price-change.ts'

/** What a revision keeps of itself: the JSON in `Revision.summary`. */
export interface RevisionSummary extends PriceChange {
  /** False until all cells of the range are marked. */
  done: boolean
}

export interface RepriceOptions extends PriceChangeOptions {
  nowMs: number
}

/**
 * Pins a range to a version of the price book, marks its cells, and returns the money before and after. The keeper
 * computes the cells within a minute or two. Frozen days are named and stay as they are. Rejects with a RangeError for
 * an invalid range or an unknown version, or with a StoreError; after one, the revision may exist: a keeper finishes
 * it.
 */
export async function reprice(options: RepriceOptions): Promise<Revision & { summary: RevisionSummary }> {
  const { ledger, fromMs, toMs, bookVersion, nowMs } = options
  checkRange(fromMs, toMs)
  const summary: RevisionSummary = { ...(await priceChange(options)), done: false }
  const revision = await insert(ledger, { fromMs, toMs, bookVersion, atMs: nowMs, summary })
  const books = new PriceBookVersions(ledger)
  await books.refresh()
  await invalidateRepriced(ledger, books, { fromMs, toMs, nowMs })
  const committedToMs = Math.min(toMs, committedEndMs(nowMs))
  await invalidateMissingCommitments(ledger, books, { fromMs, toMs: committedToMs, nowMs })
  summary.done = true
  await ledger.updateRevisionSummary(revision.revision, summary)
  return { ...revision, summary }
}

async function insert<S>(
  ledger: LedgerStore,
  revision: Omit<Revision, 'revision' | 'summary'> & { summary: S },
): Promise<Revision & { summary: S }> {
  for (;;) {
    const last = (await ledger.readRevisions()).reduce((max, known) => Math.max(max, known.revision), 0)
    const next = { ...revision, revision: last + 1 }
    if (await ledger.insertRevision(next)) return next
  }
}

function checkRange(fromMs: number, toMs: number): void {
  const isWhole = (atMs: number) => Number.isSafeInteger(atMs) && atMs % CELL_MS === 0
  if (isWhole(fromMs) && isWhole(toMs) && fromMs < toMs) return
  throw new RangeError(`Cannot reprice from ${fromMs} to ${toMs}: expected whole minutes, the first before the second`)
}
