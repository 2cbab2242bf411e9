// Walks through the minutes of a range with what their cells are computed from, for all that recomputes the past:
// `verify`, `reprice`, "what if" and old revisions. Single documents are read, in one pass over each range.

import { CELL_MS, HOUR_MS } from '../../domain/ledger/buckets.ts'
import { compareText } from '../../domain/ledger/rows.ts'
import type { PriceBook } from '../../domain/prices/price-book.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'
import type { ClosedDays } from '../closed-days.ts'
import { type CellInputs, documentInputs, type MinuteRange } from '../ledger/cell-inputs.ts'
import type { MinuteTokenAggregator } from '../ledger/token-aggregator.ts'

export interface Minute {
  startMs: number
  /** Hosts with events, by any of their names, or with commitments in one of the minute's books; sorted. */
  hosts: (string | null)[]
  /** Computes the cell of a host by a book; valid until the next minute is requested. */
  inputs: CellInputs<MinuteTokenAggregator>
}

/** All minutes of a range in order. `booksFor`: the books that the cells of a minute are to be computed with. */
export async function* minutesOf(
  ledger: LedgerStore,
  { fromMs, toMs }: MinuteRange,
  booksFor: (startMs: number) => readonly PriceBook[],
): AsyncGenerator<Minute, void, undefined> {
  const inputs = documentInputs(ledger, { fromMs, toMs })
  try {
    for (let startMs = fromMs; startMs < toMs; startMs += CELL_MS) {
      await inputs.moveTo(startMs)
      const hosts = inputs.hosts
      const more = booksFor(startMs).flatMap((book) => [
        ...book.committedHosts(startMs, startMs + CELL_MS),
        ...(book.hosts.isEmpty ? [] : [...hosts].map((host) => book.hosts.nameOf(host))),
      ])
      yield { startMs, hosts: [...new Set([...hosts, ...more])].sort(compareText), inputs }
    }
  } finally {
    await inputs.close()
  }
}

/** The parts of a range outside frozen days that raw events reach; nothing is to be computed elsewhere. */
export async function rangesWithEvents(
  ledger: LedgerStore,
  days: ClosedDays,
  { fromMs, toMs }: MinuteRange,
): Promise<MinuteRange[]> {
  const raw = await ledger.rawRange()
  if (raw === null) return []
  // A sample reaches two minutes into the past and the future, a token event an hour into the past.
  const firstMs = Math.floor(raw.fromMs / CELL_MS) * CELL_MS - HOUR_MS
  const lastMs = Math.ceil(raw.toMs / CELL_MS) * CELL_MS + 2 * CELL_MS
  return days.openRanges(Math.max(fromMs, firstMs), Math.min(toMs, lastMs))
}
