// Which days of event time the ledger never writes again. The list is read after the marks that it is asked about: a day
// freezes only when no marks are pending, so a mark that was read before the list either belongs to a day that is still
// open, or came too late and is dropped.

import { DAY_MS, floorTo } from '../domain/ledger/buckets.ts'
import type { LedgerStore } from '../store/ledger-store.ts'

export class FrozenDays {
  readonly #starts: ReadonlySet<number>

  private constructor(starts: ReadonlySet<number>) {
    this.#starts = starts
  }

  static async read(ledger: LedgerStore): Promise<FrozenDays> {
    const days = await ledger.readDayStates()
    return new FrozenDays(new Set(days.filter(({ state }) => state !== 'closing').map(({ startMs }) => startMs)))
  }

  /** Whether an instant of event time lies in a frozen or purged day. */
  has(atMs: number): boolean {
    return this.#starts.size > 0 && this.#starts.has(floorTo(DAY_MS, atMs))
  }

  /** The frozen days that a range touches, as 2026-01-31. */
  within(fromMs: number, toMs: number): string[] {
    return [...this.#starts]
      .filter((startMs) => startMs < toMs && startMs + DAY_MS > fromMs)
      .sort((a, b) => a - b)
      .map(dayText)
  }

  /** The parts of a range outside frozen days, ascending. */
  openParts(fromMs: number, toMs: number): { fromMs: number; toMs: number }[] {
    const parts: { fromMs: number; toMs: number }[] = []
    let openMs = fromMs
    for (const startMs of [...this.#starts].sort((a, b) => a - b)) {
      if (startMs + DAY_MS <= fromMs || startMs >= toMs) continue
      if (startMs > openMs) parts.push({ fromMs: openMs, toMs: startMs })
      openMs = Math.max(openMs, startMs + DAY_MS)
    }
    if (openMs < toMs) parts.push({ fromMs: openMs, toMs })
    return parts
  }
}

/** A day for people: 2026-01-31. */
export function dayText(startMs: number): string {
  return new Date(startMs).toISOString().slice(0, 10)
}
