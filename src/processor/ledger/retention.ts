// Retention of raw events by whole days of event time. A day older than the retention goes through three states, oldest
// days first, each step small enough to be repeated after a crash and harmless when two processors take it at once:
//
//   closing  new events for it are rejected (ClosedDays), while marks drain: for an hour, and until none is left
//   frozen   its cells, hours and days are never written again; every older day with a ledger is frozen too
//   purged   its raw events and cells are deleted, except its last 90 s, which the next day's first cells need
//
// A day that is being filled (a trace of an old day is replayed) is left alone until it has been quiet. Dead letters
// are raw events too: those that were rejected before the retention are deleted with them.

import { setTimeout as sleep } from 'node:timers/promises'
import { DAY_MS, floorTo, HOUR_MS, MAX_SAMPLE_GAP_MS } from '../../domain/ledger/buckets.ts'
import type { Logger } from '../../runtime/logger.ts'
import type { EventStore } from '../../store/event-store.ts'
import type { DayState, LedgerStore } from '../../store/ledger-store.ts'
import { dayText } from '../closed-days.ts'
import { Retrier } from '../retry.ts'

export interface RetentionOptions {
  /** Days of event time that raw events are kept, RAW_RETENTION_DAYS; 0: all are kept, `run` returns at once. */
  days: number
  log: Logger
  now?: () => number
  /** How long a day is closing before it may freeze, milliseconds; an hour when absent. */
  closingMs?: number
  /** How long nothing must have been computed for a day before it may close, milliseconds; an hour when absent. */
  quietMs?: number
  /** Pause between passes, milliseconds; a minute when absent. */
  intervalMs?: number
}

/** Days that a pass moved to each state, as 2026-01-31. */
export type RetentionPass = Record<DayState['state'], string[]>

/** Days that a pass looks at, oldest first. */
const MAX_DAYS = 100

export class Retention {
  readonly #store: Pick<EventStore, 'purgeDeadLetters'>
  readonly #ledger: LedgerStore
  readonly #options: Required<RetentionOptions>
  readonly #retrier: Retrier

  constructor(store: Pick<EventStore, 'ledger' | 'purgeDeadLetters'>, options: RetentionOptions) {
    this.#store = store
    this.#ledger = store.ledger
    this.#options = { now: Date.now, closingMs: HOUR_MS, quietMs: HOUR_MS, intervalMs: 60_000, ...options }
    this.#retrier = new Retrier(options.log, this.#options.now)
  }

  /** Runs until the signal aborts; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    if (this.#options.days <= 0) return
    while (!signal.aborted) {
      await this.#retrier.run('keep the retention', signal, () => this.pass()).catch(() => {})
      await sleep(this.#options.intervalMs, undefined, { signal }).catch(() => {})
    }
  }

  /** What fails right now, for /health. */
  get failing(): { what: string; message: string; sinceMs: number }[] {
    return this.#retrier.failing
  }

  /** Moves each day by at most one state. Rejects with a StoreError; what was moved until then is moved. */
  async pass(): Promise<RetentionPass> {
    const moved: RetentionPass = { closing: [], frozen: [], purged: [] }
    const { days, now, log } = this.#options
    if (days <= 0) return moved
    const nowMs = now()
    const cutoffMs = floorTo(DAY_MS, nowMs - days * DAY_MS)
    const states = new Map((await this.#ledger.readDayStates()).map((day) => [day.startMs, day]))
    /** Every older day that has a ledger is frozen. */
    let olderAreFrozen = true
    for (const startMs of await this.#daysBefore(cutoffMs, states)) {
      const next = await this.#nextState(startMs, { states, nowMs, olderAreFrozen })
      if (next !== null && (await this.#ledger.advanceDay({ startMs, state: next, sinceMs: nowMs }))) {
        states.set(startMs, { startMs, state: next, sinceMs: nowMs })
        moved[next].push(dayText(startMs))
        log.info({ day: dayText(startMs), state: next }, 'Retention moved a day on')
      }
      const state = states.get(startMs)?.state
      if (state !== 'frozen' && state !== 'purged') olderAreFrozen = false
    }
    const letters = await this.#store.purgeDeadLetters(cutoffMs)
    if (letters > 0) log.info({ letters, before: dayText(cutoffMs) }, 'Deleted old dead letters')
    return moved
  }

  /** Does what a day's next state requires; returns that state, or null when the day stays. */
  async #nextState(
    startMs: number,
    context: { states: ReadonlyMap<number, DayState>; nowMs: number; olderAreFrozen: boolean },
  ): Promise<DayState['state'] | null> {
    const { states, nowMs, olderAreFrozen } = context
    const day = states.get(startMs)
    switch (day?.state) {
      case undefined:
        return (await this.#isQuiet(startMs, nowMs)) ? 'closing' : null
      case 'closing': {
        const isDrained = nowMs >= day.sinceMs + this.#options.closingMs && !(await this.#hasMarks(startMs))
        // Cells near midnight are computed from both days' samples: the older day must be past that.
        return isDrained && olderAreFrozen ? 'frozen' : null
      }
      case 'frozen': {
        if (nowMs === day.sinceMs) return null
        const before = states.get(startMs - DAY_MS)?.state
        // The end of the day before, which was kept for this one, goes as well.
        const tailMs = before === 'frozen' || before === 'purged' ? MAX_SAMPLE_GAP_MS : 0
        const deleted = await this.#ledger.purge(startMs - tailMs, startMs + DAY_MS - MAX_SAMPLE_GAP_MS)
        this.#options.log.info({ day: dayText(startMs), ...deleted }, 'Deleted the raw events of a frozen day')
        return 'purged'
      }
      default:
        return null
    }
  }

  /** Days before the cutoff that have a ledger or are not purged yet, oldest first. */
  async #daysBefore(cutoffMs: number, states: ReadonlyMap<number, DayState>): Promise<number[]> {
    const raw = await this.#ledger.rawRange()
    if (raw === null) return []
    const days = new Set<number>()
    for (const { startMs, state } of states.values()) if (state !== 'purged' && startMs < cutoffMs) days.add(startMs)
    // A token event is counted up to an hour before its ts: the day before the first event's may have a ledger too.
    const fromMs = floorTo(DAY_MS, raw.fromMs - HOUR_MS)
    for await (const { startMs, rows } of this.#ledger.readBuckets('day', fromMs, Math.max(fromMs, cutoffMs))) {
      if (rows.length === 0 && startMs + DAY_MS <= raw.fromMs) continue
      if (states.get(startMs)?.state !== 'purged') days.add(startMs)
      if (days.size >= MAX_DAYS) break
    }
    return [...days].sort((a, b) => a - b)
  }

  /** Nothing is marked in the day, and nothing was computed for it recently. */
  async #isQuiet(startMs: number, nowMs: number): Promise<boolean> {
    if (await this.#hasMarks(startMs)) return false
    for await (const { computedMs } of this.#ledger.readBuckets('day', startMs, startMs + DAY_MS)) {
      if (computedMs > nowMs - this.#options.quietMs) return false
    }
    return true
  }

  async #hasMarks(startMs: number): Promise<boolean> {
    return (await this.#ledger.pendingMarks(startMs, startMs + DAY_MS)) > 0
  }
}
