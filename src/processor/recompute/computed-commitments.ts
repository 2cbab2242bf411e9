// Whether the unreported commitments of a range have their cells, as the store alone shows it: what `final` rests on
// for a command line, which has no keeper that knows how far it went back.

import type { LedgerStore } from '../../store/ledger-store.ts'
import { missingCommitments } from '../ledger/invalidation.ts'
import { PriceBookVersions } from '../prices/price-book-versions.ts'

/** Whether each committed cell of a range of whole minutes exists. Rejects with a StoreError. */
export async function areCommitmentsComputed(ledger: LedgerStore, fromMs: number, toMs: number): Promise<boolean> {
  const books = new PriceBookVersions(ledger)
  await books.refresh()
  const { done } = await missingCommitments(ledger, books, { fromMs, toMs }).next()
  return done === true
}
