// Which days of event time are closed by retention, as a processor asks it for each event: a list from the store, kept,
// with an age limit. A processor that was stopped across a day's freeze (SIGSTOP) finds its list too old and reads it
// again before it writes, so it refuses the day's events by name instead of writing where nobody will ever look.
// A day closes an hour before it freezes: a list may be a minute old and still be in time.

import { DAY_MS, floorTo } from '../domain/ledger/buckets.ts'
import type { DayState, LedgerStore } from '../store/ledger-store.ts'

/** How old the list may be when documents are written, milliseconds. */
export const DAY_GATE_MAX_AGE_MS = 30_000

export class DayGate {
  readonly #ledger: LedgerStore
  readonly #now: () => number
  #days = new Map<number, DayState>()
  /** When the newest list was asked for (not when it came), by the clock; null before the first. */
  #readAtMs: number | null = null

  constructor(ledger: LedgerStore, now: () => number) {
    this.#ledger = ledger
    this.#now = now
  }

  /**
   * Reads the list again when it is older than `maxAgeMs`, or when the clock went back. To be awaited in every try of a
   * step's write, before `closedDay`. Throws a StoreError: then nothing may be written.
   */
  async refreshIfOlderThan(maxAgeMs: number): Promise<void> {
    const nowMs = this.#now()
    if (this.#readAtMs !== null && nowMs >= this.#readAtMs && nowMs - this.#readAtMs <= maxAgeMs) return
    const days = await this.#ledger.readDayStates()
    this.#days = new Map(days.map((day) => [day.startMs, day]))
    this.#readAtMs = nowMs
  }

  /** The state of the day that an instant of event time lies in when new events for it are refused, else null. */
  closedDay(tsMs: number): DayState | null {
    if (this.#days.size === 0) return null
    return this.#days.get(floorTo(DAY_MS, tsMs)) ?? null
  }

  /** Whether any day is closed; most stores have none. */
  get hasClosedDays(): boolean {
    return this.#days.size > 0
  }

  /** For the message of a refusal with reason `day_closed`. */
  static refusalText(day: DayState): string {
    return `${new Date(day.startMs).toISOString().slice(0, 10)} is ${day.state} by retention, since ${new Date(day.sinceMs).toISOString()}`
  }
}
