// Which days of event time retention has closed: new events for them are refused from `closing` on, and the ledger
// never writes a `frozen` or `purged` one again. The list is read from the store and kept, with an age limit where it
// decides about writes: a processor that was stopped across a day's freeze (SIGSTOP) finds its list too old, reads it
// again and refuses the day's events, instead of writing them where no keeper would ever compute them. A day closes an
// hour before it freezes, so a list that is a minute old is still in time. A keeper reads the list after the marks that
// it asks about: a day freezes only when no marks are pending, so such a mark belongs to an open day, or came too late.

import { intervalMs } from '../domain/events/event-interval.ts'
import { Rejection } from '../domain/events/rejection.ts'
import { DAY_MS, floorTo } from '../domain/ledger/buckets.ts'
import type { DayState, LedgerStore } from '../store/ledger-store.ts'

/** How old the list may be when documents are written, milliseconds. */
export const CLOSED_DAYS_MAX_AGE_MS = 30_000

export class ClosedDays {
  readonly #ledger: LedgerStore
  readonly #now: () => number
  #days = new Map<number, DayState>()
  /** Starts of frozen and purged days, ascending. */
  #frozen: readonly number[] = []
  /** When the newest list was requested (not when it came), by the clock; null before the first. */
  #readAtMs: number | null = null

  /** Empty until the first `refreshIfOlderThan`. */
  constructor(ledger: LedgerStore, now: () => number) {
    this.#ledger = ledger
    this.#now = now
  }

  /** The list as it is now: a snapshot, which does not refresh. Rejects with a StoreError. */
  static async read(ledger: LedgerStore): Promise<ClosedDays> {
    const days = new ClosedDays(ledger, () => 0)
    await days.refreshIfOlderThan(0)
    return days
  }

  /**
   * Reads the list again when it is older than `maxAgeMs`, or when the clock went back. To be awaited in every attempt
   * of a step's write, before `closedDay`. Rejects with a StoreError: then nothing may be written.
   */
  async refreshIfOlderThan(maxAgeMs: number): Promise<void> {
    const nowMs = this.#now()
    if (this.#readAtMs !== null && nowMs >= this.#readAtMs && nowMs - this.#readAtMs <= maxAgeMs) return
    const days = await this.#ledger.readDayStates()
    this.#days = new Map(days.map((day) => [day.startMs, day]))
    const frozen = days.filter(({ state }) => state !== 'closing')
    this.#frozen = frozen.map(({ startMs }) => startMs).sort((a, b) => a - b)
    this.#readAtMs = nowMs
  }

  /** Whether any day is closed; most stores have none. */
  get hasClosedDays(): boolean {
    return this.#days.size > 0
  }

  /** The state of the day that an instant of event time lies in when new events for it are refused, else null. */
  closedDay(tsMs: number): DayState | null {
    return this.hasClosedDays ? (this.#days.get(floorTo(DAY_MS, tsMs)) ?? null) : null
  }

  /**
   * Why a document may not be stored any more; null when it may. A token event whose interval begins in a closed day is
   * refused as a whole: that day's ledger would never have its part.
   */
  refusalOf(event: { ts: Date; interval_s?: number }): Rejection | null {
    const tsMs = event.ts.getTime()
    const day = this.closedDay(tsMs)
    if (day !== null) return Rejection.of('day_closed', textOf(day), '/ts')
    const begun = this.closedDay(tsMs - intervalMs(event))
    if (begun === null) return null
    const remedy = 'send what was made after that day as an event of its own'
    return Rejection.of('day_closed', `Begins in a day that is over: ${textOf(begun)}; ${remedy}`, '/interval_s')
  }

  /** Whether an instant of event time lies in a frozen or purged day. */
  isFrozen(atMs: number): boolean {
    const day = this.closedDay(atMs)
    return day !== null && day.state !== 'closing'
  }

  /** The frozen and purged days that a range touches, as 2026-01-31. */
  frozenWithin(fromMs: number, toMs: number): string[] {
    return this.#frozen.filter((startMs) => startMs < toMs && startMs + DAY_MS > fromMs).map(dayText)
  }

  /** The parts of a range outside frozen and purged days, ascending. */
  openRanges(fromMs: number, toMs: number): { fromMs: number; toMs: number }[] {
    const ranges: { fromMs: number; toMs: number }[] = []
    let openMs = fromMs
    for (const startMs of this.#frozen) {
      if (startMs + DAY_MS <= fromMs || startMs >= toMs) continue
      if (startMs > openMs) ranges.push({ fromMs: openMs, toMs: startMs })
      openMs = Math.max(openMs, startMs + DAY_MS)
    }
    if (openMs < toMs) ranges.push({ fromMs: openMs, toMs })
    return ranges
  }
}

function textOf({ startMs, state, sinceMs }: DayState): string {
  return `${dayText(startMs)} is ${state} by retention, since ${new Date(sinceMs).toISOString()}`
}

/** A day as 2026-01-31. */
export function dayText(startMs: number): string {
  return new Date(startMs).toISOString().slice(0, 10)
}
