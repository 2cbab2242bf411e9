// The keeper: recomputes the buckets of the ledger that are due, minutes from raw events, hours from minutes, days from
// hours (a refresh worker of continuous aggregates). One runs in each processor; there is no leader and nothing to hand
// over. Two that do the same cost work, never a figure: see docs/adr/0003-keeper-protocol.md. A pass reads what is due
// and computes it, newest first, for a bounded time, so that the newest minutes stay current while days are caught up.

import { setTimeout as sleep } from 'node:timers/promises'
import { type BucketLevel, CELL_MS, type RollupLevel } from '../../domain/ledger/buckets.ts'
import type { Logger } from '../../runtime/logger.ts'
import { StoreError } from '../../store/event-store.ts'
import type { DirtyBucket, LedgerStore } from '../../store/ledger-store.ts'
import type { PriceBookVersions } from '../prices/price-book-versions.ts'
import { Retrier } from '../retry.ts'
import { CatchUp } from './catch-up.ts'
import { Invalidation } from './invalidation.ts'
import { KeeperCounters, type KeeperDependencies, MinuteKeeper } from './minute-keeper.ts'
import { RollupKeeper } from './rollup-keeper.ts'
import { isDue, LAG_MS, RunLength, runsOf, type Schedule, staggerRuns } from './schedule.ts'

export interface KeeperOptions {
  log: Logger
  now?: () => number
  /** Determines the keeper's jitter and the order in which it catches up; for tests. */
  random?: () => number
  /** A minute is due when its newest mark is this old, milliseconds. */
  settleMs?: number
  /** Or when its oldest mark is this old. */
  maxWaitMs?: number
  /** And never before its end + this much of the clock. */
  lagMs?: number
  /** Each keeper waits up to this much longer, so that two rarely do the same. */
  jitterMs?: number
  /** Hours wait this much for their newest and oldest mark; days twelve times as much, since each minute marks them. */
  rollupSettleMs?: number
  rollupMaxWaitMs?: number
  /** Pause between passes that found nothing to do. */
  intervalMs?: number
}

/** What the keeper did since it started, and what it saw last; for /health and /metrics. */
export interface KeeperStatus extends Readonly<KeeperCounters> {
  /** Bucket starts with marks, by level, as of the last pass; at most MAX_DIRTY each are read. */
  backlog: Record<BucketLevel, number>
  /** Age of the oldest mark that was seen, milliseconds; null when there is none. */
  oldestDirtyAgeMs: number | null
  /** When the last pass ended, epoch milliseconds; null before the first. */
  lastPassMs: number | null
  /** What fails right now. */
  failing: { what: string; message: string; sinceMs: number }[]
}

/** What one pass did. */
export interface PassResult {
  /** Bucket starts that were computed, by level. */
  minutes: number
  hours: number
  days: number
  /** Bucket starts that are due and were left for the next pass. */
  left: number
  /** Bucket starts that have marks but are not due yet. */
  waiting: number
}

/** Bucket starts that a pass reads, newest first. */
const MAX_DIRTY = 2000
/** After this long a pass ends, so that the next one reads again what is due, milliseconds. */
const MAX_PASS_MS = 10_000
/** What cannot be computed, for another reason than the store, is tried again after this long, milliseconds. */
const PUT_OFF_MS = 60_000
const DAY_WAIT_FACTOR = 12

export class Keeper {
  readonly counters = new KeeperCounters()
  readonly #deps: KeeperDependencies
  readonly #schedules: Record<BucketLevel, Schedule & { seed: number }>
  readonly #intervalMs: number
  readonly #retrier: Retrier
  readonly #invalidation: Invalidation
  readonly #minutes: MinuteKeeper
  readonly #rollups: RollupKeeper
  readonly #length = new RunLength()
  readonly #catchUp: CatchUp
  /** Buckets that could not be computed: when they are tried again, in runs of their own. */
  readonly #putOff = new Map<string, number>()
  readonly #seen: Record<BucketLevel, { count: number; oldestMs: number | null }> = {
    minute: { count: 0, oldestMs: null },
    hour: { count: 0, oldestMs: null },
    day: { count: 0, oldestMs: null },
  }
  #lastPassMs: number | null = null

  constructor(ledger: LedgerStore, books: PriceBookVersions, options: KeeperOptions) {
    const { log, now = Date.now, random = Math.random, lagMs = LAG_MS, jitterMs = 5000 } = options
    const { settleMs = 15_000, maxWaitMs = 60_000, rollupSettleMs = 5000, rollupMaxWaitMs = 30_000 } = options
    const common = { jitterMs, seed: Math.floor(random() * 2 ** 31) }
    const hour = { settleMs: rollupSettleMs, maxWaitMs: rollupMaxWaitMs, lagMs: 0, ...common }
    this.#schedules = {
      minute: { settleMs, maxWaitMs, lagMs: CELL_MS + lagMs, ...common },
      hour,
      day: { ...hour, settleMs: rollupSettleMs * DAY_WAIT_FACTOR, maxWaitMs: rollupMaxWaitMs * DAY_WAIT_FACTOR },
    }
    this.#deps = { ledger, books, counters: this.counters, log, now }
    this.#intervalMs = options.intervalMs ?? 1000
    this.#retrier = new Retrier(log, now)
    this.#invalidation = new Invalidation(this.#deps, lagMs)
    this.#minutes = new MinuteKeeper(this.#deps, this.#length)
    this.#rollups = new RollupKeeper(this.#deps)
    this.#catchUp = new CatchUp(log)
  }

  /** Keeps the ledger until the signal aborts; never rejects. Work in progress is then left for the next keeper. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const pass = await this.#retrier.run('keep the ledger', signal, () => this.pass(signal)).catch(() => null)
      if (pass === null || pass.left > 0) continue
      await sleep(this.#intervalMs, undefined, { signal }).catch(() => {})
    }
  }

  /** Reads once what is due, and computes it. Rejects with a StoreError; what was done until then is done. */
  async pass(signal?: AbortSignal): Promise<PassResult> {
    const { books, now } = this.#deps
    const result: PassResult = { minutes: 0, hours: 0, days: 0, left: 0, waiting: 0 }
    const untilMs = now() + MAX_PASS_MS
    const mayContinue = () => signal?.aborted !== true && now() < untilMs
    await books.refresh()
    if (books.versions.length === 0) {
      throw new StoreError('No price book yet: none was set, and no default at start', { retriable: true })
    }
    await this.#invalidation.pass(this.#seen.minute.count < MAX_DIRTY / 4)
    await this.#passMinutes(result, mayContinue)
    result.hours = await this.#passRollups('hour', result, mayContinue)
    result.days = await this.#passRollups('day', result, mayContinue)
    this.#lastPassMs = now()
    return result
  }

  /** Whether no unreported commitment in a range waits to be marked, as far as this keeper knows. */
  isSwept(fromMs: number, toMs: number): boolean {
    return this.#invalidation.isSwept(fromMs, toMs)
  }

  status(): KeeperStatus {
    const ages = Object.values(this.#seen).flatMap(({ oldestMs }) => (oldestMs === null ? [] : [oldestMs]))
    const { minute, hour, day } = this.#seen
    return {
      ...this.counters,
      backlog: { minute: minute.count, hour: hour.count, day: day.count },
      oldestDirtyAgeMs: ages.length === 0 ? null : Math.max(0, this.#deps.now() - Math.min(...ages)),
      lastPassMs: this.#lastPassMs,
      failing: this.#retrier.failing,
    }
  }

  async #passMinutes(result: PassResult, mayContinue: () => boolean): Promise<void> {
    const due = await this.#due('minute', result)
    let left = due.length
    const runs = runsOf(due, this.#length.ms, (startMs) => this.#putOff.has(`minute ${startMs}`))
    for (const run of staggerRuns(runs, this.#schedules.minute.seed)) {
      if (!mayContinue()) break
      const computed = await this.#guarded('minute', run, () => this.#minutes.compute(run))
      result.minutes += computed ?? 0
      left -= run.length
      this.#catchUp.report({ minutes: run.length, left, nowMs: this.#deps.now() })
    }
    result.left += left
  }

  async #passRollups(level: RollupLevel, result: PassResult, mayContinue: () => boolean): Promise<number> {
    const due = await this.#due(level, result)
    let computed = 0
    for (const [i, { startMs }] of due.entries()) {
      if (!mayContinue()) {
        result.left += due.length - i
        break
      }
      if ((await this.#guarded(level, [startMs], () => this.#rollups.compute(level, startMs))) === true) computed++
    }
    return computed
  }

  async #due(level: BucketLevel, result: PassResult): Promise<DirtyBucket[]> {
    const { ledger, now } = this.#deps
    // The clock is read before the marks: what comes in between waits for the next pass.
    const nowMs = now()
    const dirty = await ledger.dirtyBuckets(level, MAX_DIRTY)
    const oldestMs = dirty.reduce((oldest, bucket) => Math.min(oldest, bucket.firstAtMs), Number.POSITIVE_INFINITY)
    this.#seen[level] = { count: dirty.length, oldestMs: dirty.length === 0 ? null : oldestMs }
    const due = dirty.filter(
      (bucket) =>
        isDue(bucket, nowMs, this.#schedules[level]) && nowMs >= (this.#putOff.get(`${level} ${bucket.startMs}`) ?? 0),
    )
    result.waiting += dirty.length - due.length
    return due
  }

  /**
   * Runs work that may fail for another reason than the store (an unforeseen document): that must not
   * stop the rest of the ledger. Buckets that failed together are tried alone in the next pass; one that fails alone is
   * put off.
   */
  async #guarded<T>(level: BucketLevel, starts: readonly number[], work: () => Promise<T>): Promise<T | null> {
    const { log, now } = this.#deps
    try {
      const result = await work()
      for (const startMs of starts) this.#putOff.delete(`${level} ${startMs}`)
      return result
    } catch (error) {
      if (error instanceof StoreError) throw error
      this.counters.failures++
      if (this.#putOff.size > MAX_DIRTY) this.#putOff.clear()
      const againMs = starts.length > 1 ? 0 : now() + PUT_OFF_MS
      for (const startMs of starts) this.#putOff.set(`${level} ${startMs}`, againMs)
      const first = new Date(starts[0]!).toISOString()
      log.error({ level, first, spans: starts.length, error: String(error) }, 'Could not compute a part of the ledger')
      return null
    }
  }
}
