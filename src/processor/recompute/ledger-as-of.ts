// The ledger as of an earlier revision: `report --revision N`. No copies of old cells are kept; the cells of the range
// are computed from the raw events with the books as they were pinned then. So it shows today's knowledge of the events
// at yesterday's prices, which is what a correction of prices is compared with. Frozen days cannot be reported: their
// ledger is what it was when they froze, and their raw events are gone or about to go.

import type { LedgerBucket, LedgerStore } from '../../store/ledger-store.ts'
import { ClosedDays } from '../closed-days.ts'
import { PriceBookVersions } from '../prices/price-book-versions.ts'
import { minutesOf, recomputedRanges } from './minutes-of.ts'

/** An old revision was requested for days that are frozen or purged. */
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
 * The cells of a range as they are with only the revisions up to `revision` (0: none), by (start, host), with `rev` 0;
 * empty cells are left out. Throws FrozenDaysError, a RangeError for a revision that does not exist, or a StoreError.
 * Times are epoch milliseconds, whole minutes, `toMs` exclusive.
 */
export async function* ledgerAsOf(options: {
  ledger: LedgerStore
  fromMs: number
  toMs: number
  revision: number
  /** The clock's time, up to which unreported commitments count. */
  nowMs?: number
}): AsyncGenerator<LedgerBucket, void, undefined> {
  const { ledger, fromMs, toMs, revision, nowMs = Date.now() } = options
  const books = new PriceBookVersions(ledger)
  await books.refresh()
  const last = books.revisions.at(-1)?.revision ?? 0
  if (!Number.isSafeInteger(revision) || revision < 0 || revision > last) {
    throw new RangeError(`Unknown revision: ${revision}, the newest is ${last}`)
  }
  const days = await ClosedDays.read(ledger)
  const frozen = days.frozenWithin(fromMs, toMs)
  if (frozen.length > 0) throw new FrozenDaysError(frozen)
  const bookFor = (minuteMs: number) => books.bookFor(minuteMs, revision)
  for (const range of await recomputedRanges(ledger, days, { fromMs, toMs, nowMs })) {
    const minutes = minutesOf(ledger, { ...range, nowMs }, (minuteMs) => [bookFor(minuteMs)])
    for await (const { startMs, hosts, inputs } of minutes) {
      const book = bookFor(startMs)
      for (const host of hosts) {
        const { rows, overflow, bookVersion } = inputs.cell(host, book)
        if (rows.length === 0) continue
        const fields = { bookVersions: [bookVersion], rows, totals: null, capped: overflow, computedMs: 0 }
        yield { level: 'minute', startMs, host, rev: 0, ...fields }
      }
    }
  }
}
