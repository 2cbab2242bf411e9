// Walks through the minutes of a range with what their cells are computed from, for all that recomputes the past:
// `verify`, `reprice`, "what if" and old revisions. Single documents are read, in one pass over each range.

import { CELL_MS, DAY_MS, floorTo, HOUR_MS } from '../../domain/ledger/buckets.ts'
import { compareText } from '../../domain/ledger/rows.ts'
import type { PriceBook } from '../../domain/prices/price-book.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'
import type { ClosedDays } from '../closed-days.ts'
import { type CellInputs, documentInputs, type MinuteRange } from '../ledger/cell-inputs.ts'
import { committedEndMs } from '../ledger/schedule.ts'
import type { MinuteTokenAggregator } from '../ledger/token-aggregator.ts'
import { MAX_COMMITTED_DAYS, PriceBookVersions } from '../prices/price-book-versions.ts'

/** Whole minutes, and the clock's time; epoch milliseconds. */
interface RecomputedRange extends MinuteRange {
  nowMs: number
}

export interface Minute {
  startMs: number
  /** Hosts with events, by any of their names, or with commitments in one of the minute's books; sorted. */
  hosts: (string | null)[]
  /** Computes the cell of a host by a book; valid until the next minute is requested. */
  inputs: CellInputs<MinuteTokenAggregator>
}

/**
 * All minutes of a range in order. `booksFor`: the books that the cells of a minute are to be computed with. `nowMs`:
 * unreported commitments count in minutes that ended long enough before it, as keepers have it.
 */
export async function* minutesOf(
  ledger: LedgerStore,
  { fromMs, toMs, nowMs }: RecomputedRange,
  booksFor: (startMs: number) => readonly PriceBook[],
): AsyncGenerator<Minute, void, undefined> {
  const inputs = documentInputs(ledger, { fromMs, toMs })
  const committedToMs = committedEndMs(nowMs)
  try {
    for (let startMs = fromMs; startMs < toMs; startMs += CELL_MS) {
      await inputs.moveTo(startMs)
      const hosts = inputs.hosts
      const isCommitted = startMs < committedToMs
      const more = booksFor(startMs).flatMap((book) => [
        ...(isCommitted ? book.committedHosts(startMs, startMs + CELL_MS) : []),
        ...(book.hosts.isEmpty ? [] : [...hosts].map((host) => book.hosts.nameOf(host))),
      ])
      yield { startMs, hosts: [...new Set([...hosts, ...more])].sort(compareText), inputs }
    }
  } finally {
    await inputs.close()
  }
}

/** The parts of a range outside frozen days that raw events or commitments reach: elsewhere is nothing to compute. */
export async function recomputedRanges(
  ledger: LedgerStore,
  days: ClosedDays,
  { fromMs, toMs, nowMs }: RecomputedRange,
): Promise<MinuteRange[]> {
  const books = new PriceBookVersions(ledger)
  await books.refresh()
  const raw = await ledger.rawRange()
  // A sample reaches two minutes into the past and the future, a token event an hour into the past.
  const rawFromMs = raw === null ? Number.POSITIVE_INFINITY : floorTo(CELL_MS, raw.fromMs) - HOUR_MS
  const rawToMs = raw === null ? Number.NEGATIVE_INFINITY : floorTo(CELL_MS, raw.toMs - 1) + 3 * CELL_MS
  // A book that is only tried out may have commitments where no version has any: within its reach.
  const firstMs = Math.min(rawFromMs, floorTo(CELL_MS, books.committedFromMs), nowMs - MAX_COMMITTED_DAYS * DAY_MS)
  const lastMs = Math.max(rawToMs, committedEndMs(nowMs))
  return days.openRanges(Math.max(fromMs, floorTo(CELL_MS, firstMs)), Math.min(toMs, lastMs))
}
