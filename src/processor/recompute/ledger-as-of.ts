// The ledger as it would be without later revisions: `report --revision N`. No copies of old cells are kept; the cells of
// the asked range are computed from the raw events with the books as they were pinned then. So it shows today's knowledge
// of the events at yesterday's prices, which is what a correction of prices is compared with. A frozen day cannot be
// asked: its ledger is what it was when it froze, and its raw events are gone or about to go.

import type { LedgerBucket, LedgerStore } from '../../store/ledger-store.ts'
import { FrozenDays } from '../frozen-days.ts'
import { eventCellInputs } from '../ledger/raw-minutes.ts'
import { PriceBookVersions } from '../prices/price-book-versions.ts'
import { hostsOf, partsWithEvents } from './price-change.ts'

/** An old revision was asked of days that are frozen or purged. */
export class FrozenDaysError extends Error {
  /** As 2026-01-31. */
  readonly days: readonly string[]

  constructor(days: readonly string[]) {
    super(`Cannot report an old revision of frozen days: ${days.join(', ')}`)
    this.name = 'FrozenDaysError'
    this.days = days
  }
}

/**
 * The cells of a range as they are with only the revisions up to `revision` (0: none), by (start, host), as spans with
 * `rev` 0; empty cells are left out. Throws FrozenDaysError, a RangeError for a revision that does not exist, or a
 * StoreError. Times are epoch milliseconds, whole minutes, `toMs` exclusive.
 */
export async function* ledgerAsOf(options: {
  ledger: LedgerStore
  fromMs: number
  toMs: number
  revision: number
}): AsyncGenerator<LedgerBucket, void, undefined> {
  const { ledger, fromMs, toMs, revision } = options
  const books = new PriceBookVersions(ledger)
  await books.refresh()
  const last = books.revisions.at(-1)?.revision ?? 0
  if (!Number.isSafeInteger(revision) || revision < 0 || revision > last) {
    throw new RangeError(`Unknown revision: ${revision}, the newest is ${last}`)
  }
  const days = await FrozenDays.read(ledger)
  const frozen = days.within(fromMs, toMs)
  if (frozen.length > 0) throw new FrozenDaysError(frozen)
  for (const part of await partsWithEvents(ledger, days, { fromMs, toMs })) {
    for await (const { startMs, minute } of eventCellInputs(ledger, part)) {
      const book = books.bookFor(startMs, revision)
      for (const host of hostsOf(minute.hosts, startMs, [book])) {
        const { rows, capped, bookVersion } = minute.cell(host, book)
        if (rows.length === 0) continue
        yield {
          level: 'minute',
          startMs,
          host,
          rev: 0,
          bookVersions: [bookVersion],
          rows,
          totals: null,
          capped,
          computedMs: 0,
        }
      }
    }
  }
}
