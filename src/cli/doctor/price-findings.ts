// Findings of `doctor` about the effective price book: rules that fit no GPU that was seen, and GPUs that get the
// default since no rule fits them. Together they are most often one slip in a name, and wrong; a rule without a GPU
// alone is not.

import { CELL_MS, floorTo } from '../../domain/ledger/buckets.ts'
import { PriceBookVersions } from '../../processor/prices/price-book-versions.ts'
import { type BookFit, readBookFit } from '../../processor/prices/seen-gpus.ts'
import type { EventStore } from '../../store/event-store.ts'
import { defaultText } from '../price-fit-text.ts'
import type { Finding } from './finding.ts'

const MAX_LISTED = 5

/** Reads the effective book and the GPUs. Rejects with a StoreError. */
export async function checkPrices(store: EventStore, nowMs: number): Promise<Finding[]> {
  const books = new PriceBookVersions(store.ledger)
  await books.refresh()
  if (books.versions.length === 0) return []
  const book = books.bookFor(floorTo(CELL_MS, nowMs))
  return book.rules.length === 0 ? [] : priceFindings(await readBookFit(store, book, nowMs), book.rules.length)
}

/** `rules`: how many the book has. */
function priceFindings(fit: BookFit, rules: number): Finding[] {
  if (fit.seen_since === null) return []
  const findings: Finding[] = []
  const unpriced = defaultText(fit)
  for (const { state, message } of fit.unmatched_rules.slice(0, MAX_LISTED)) {
    const isSlip = unpriced !== null && (state === 'never_seen' || state === 'not_reported')
    findings.push({ part: 'prices', ok: isSlip ? false : null, message })
  }
  const more = fit.unmatched_rules_count - findings.length
  if (more > 0) {
    findings.push({ part: 'prices', ok: null, message: `${more} more rules fit no GPU that was seen: see prices show` })
  }
  if (unpriced !== null) findings.push({ part: 'prices', ok: null, message: unpriced })
  if (findings.length > 0) return findings
  return [{ part: 'prices', ok: true, message: `each of ${rules} rules fits a GPU that was seen` }]
}
