// Verifies the ledger against the single raw documents: every cell of a range is computed from documents that are read
// one by one, not as the store groups them, and compared to the last unit; hours are compared with the sums of the
// cells, days with the sums of the hours, the tokens of all events with the tokens of all cells, and the documents with
// the store's groups, from which cells will be computed. Streamed: memory holds the groups of an hour, the samples of
// four minutes and the sums of a day. What differs is compared again on its own, since a keeper may be at work: with
// marks pending it is `pending`, and only what no keeper will correct is a difference.

import { type BucketLevel, CELL_MS, DAY_MS, HOUR_MS, LEVELS, type RollupLevel } from '../../domain/ledger/buckets.ts'
import type { LedgerBucket, LedgerStore } from '../../store/ledger-store.ts'
import { ClosedDays } from '../closed-days.ts'
import type { MinuteRange } from '../ledger/cell-inputs.ts'
import { OrderedStream } from '../ledger/ordered-stream.ts'
import { RollupBuilder } from '../ledger/rollup-keeper.ts'
import { LAG_MS } from '../ledger/schedule.ts'
import { type EventCounts, noCounts } from '../ledger/token-aggregator.ts'
import { PriceBookVersions } from '../prices/price-book-versions.ts'
import { type Difference, expectedCell, MismatchRecheck, mismatchOf } from './bucket-diff.ts'
import { GroupingCheck } from './grouping-check.ts'
import { type Minute, minutesOf } from './minutes-of.ts'

export interface VerifyOptions {
  ledger: LedgerStore
  /** Whole minutes, epoch milliseconds, `toMs` exclusive. Hours and days are compared where whole. */
  fromMs: number
  toMs: number
  /** Minutes that ended less than `lagMs` before this are not due yet and not compared. */
  nowMs: number
  /** The keeper's lag, milliseconds; 105,000 when absent. */
  lagMs?: number
  /** Marks what differs, so that the keeper recomputes it. */
  repair?: boolean
  /** Called about once an hour of event time. */
  onProgress?: (progress: { doneToMs: number; fromMs: number; toMs: number; events: number; cells: number }) => void
  signal?: AbortSignal
}

export interface VerifyResult {
  /** ISO 8601; `to` is where minutes are no longer due, when that is before what was asked. */
  from: string
  to: string
  /** Documents that were read, of both kinds. */
  events: number
  cellsCompared: number
  hoursCompared: number
  daysCompared: number
  /** The first 20, and of groupings as many. */
  differences: Difference[]
  differenceCount: number
  /** Buckets that differ and have marks pending, or changed meanwhile: the keeper is about to compute them. */
  pending: number
  /** Frozen and purged days, as 2026-01-31: skipped. */
  skippedDays: string[]
  /** How many differing buckets were marked. */
  repaired: number
}

/** Keepers may take this long to mark the newest commitments and to compute them, milliseconds. */
const SWEEP_SLACK_MS = 60_000

/** Compares a range. Rejects with the signal's reason when aborted, with a StoreError, or with a RangeError. */
export async function verify(options: VerifyOptions): Promise<VerifyResult> {
  const { ledger, fromMs, nowMs, lagMs = LAG_MS } = options
  if (fromMs % CELL_MS !== 0 || options.toMs % CELL_MS !== 0) {
    throw new RangeError(`Cannot verify from ${fromMs} to ${options.toMs}: expected whole minutes`)
  }
  const settledMs = Math.floor((nowMs - lagMs) / CELL_MS) * CELL_MS
  const toMs = Math.max(fromMs, Math.min(options.toMs, settledMs))
  const books = new PriceBookVersions(ledger)
  await books.refresh()
  const days = await ClosedDays.read(ledger)
  const verification = new Verification({ ...options, toMs }, books)
  for (const range of days.openRanges(fromMs, toMs)) await verification.compare(range)
  return verification.finish(days.frozenWithin(fromMs, toMs))
}

class Verification {
  readonly #options: VerifyOptions
  readonly #books: PriceBookVersions
  readonly #recheck: MismatchRecheck
  readonly #grouping: GroupingCheck
  readonly #compared: Record<BucketLevel, number> = { minute: 0, hour: 0, day: 0 }
  readonly #ofEvents = noCounts()
  readonly #ofCells = noCounts()
  #events = 0

  constructor(options: VerifyOptions, books: PriceBookVersions) {
    this.#options = options
    this.#books = books
    this.#recheck = new MismatchRecheck(options, books)
    this.#grouping = new GroupingCheck(options.ledger)
  }

  /** Compares a range outside frozen days. */
  async compare(range: MinuteRange): Promise<void> {
    const { ledger, signal } = this.#options
    const { fromMs, toMs } = range
    const before = this.#events
    // A store without events may have no price book yet.
    const booksFor = (startMs: number) => (this.#books.versions.length === 0 ? [] : [this.#books.bookFor(startMs)])
    const cells = new StoredBuckets(ledger.readBuckets('minute', fromMs, toMs))
    const hours = new RollupCheck('hour', ledger, range)
    const days = new RollupCheck('day', ledger, range)
    try {
      const committedAtMs = this.#options.nowMs - SWEEP_SLACK_MS
      for await (const minute of minutesOf(ledger, { ...range, nowMs: committedAtMs }, booksFor)) {
        signal?.throwIfAborted()
        const { startMs, inputs } = minute
        if (startMs % HOUR_MS === 0) {
          await this.#grouping.compare()
          await this.#compareRollups(hours, startMs, days)
          if (startMs % DAY_MS === 0) await this.#compareRollups(days, startMs, null)
          this.#report(startMs)
        }
        const stored = await cells.at(startMs)
        await this.#compareMinute(minute, stored)
        this.#grouping.add(startMs, inputs.tokens)
        for (const cell of stored.values()) hours.add(cell)
        this.#events = before + inputs.tokens.count + inputs.samples.count
      }
      await this.#grouping.compare()
      await this.#compareRollups(hours, toMs, days)
      await this.#compareRollups(days, toMs, null)
    } finally {
      await Promise.all([cells.close(), hours.close(), days.close()])
    }
    this.#report(toMs)
  }

  async finish(skippedDays: string[]): Promise<VerifyResult> {
    await this.#recheck.settle()
    const { pending, repaired } = this.#recheck
    const differences = [...this.#recheck.differences, ...this.#grouping.differences]
    let differenceCount = this.#recheck.differenceCount + this.#grouping.differenceCount
    const { fromMs, toMs } = this.#options
    const range = { from: new Date(fromMs).toISOString(), to: new Date(toMs).toISOString() }
    const expected = countsText(this.#ofEvents)
    const found = countsText(this.#ofCells)
    if (expected !== found) {
      differenceCount++
      differences.push({ level: 'minute', start: range.from, host: null, what: 'token totals', expected, found })
    }
    const { minute: cellsCompared, hour: hoursCompared, day: daysCompared } = this.#compared
    const compared = { events: this.#events, cellsCompared, hoursCompared, daysCompared }
    return { ...range, ...compared, differences, differenceCount, pending, skippedDays, repaired }
  }

  async #compareMinute({ startMs, hosts, inputs }: Minute, stored: Map<string | null, LedgerBucket>): Promise<void> {
    for (const host of new Set([...hosts, ...stored.keys()])) {
      const cell = stored.get(host)
      this.#compared.minute++
      const expected = expectedCell(this.#books, inputs, { startMs, host, stored: cell })
      if (mismatchOf('minute', expected, cell) !== null) {
        await this.#recheck.add({ level: 'minute', startMs, host })
        continue
      }
      for (const name of expected.names) addCounts(this.#ofEvents, inputs.tokens.counts(name))
      for (const row of cell?.rows ?? []) addCounts(this.#ofCells, row)
    }
  }

  /** Compares the rollups that end at `endMs` with the stored ones, and adds those to the next level. */
  async #compareRollups(check: RollupCheck, endMs: number, next: RollupCheck | null): Promise<void> {
    const { startMs, expected, stored } = await check.take(endMs)
    for (const bucket of stored.values()) next?.add(bucket)
    if (startMs === null) return
    for (const host of new Set([...expected.keys(), ...stored.keys()])) {
      this.#compared[check.level]++
      const rollup = (expected.get(host) ?? new RollupBuilder()).build()
      if (mismatchOf(check.level, rollup, stored.get(host)) !== null) {
        await this.#recheck.add({ level: check.level, startMs, host })
      }
    }
  }

  #report(doneToMs: number): void {
    const { fromMs, toMs, onProgress } = this.#options
    onProgress?.({ doneToMs, fromMs, toMs, events: this.#events, cells: this.#compared.minute })
  }
}

/** Rollups of one level as they build up, and the stored ones beside them. */
class RollupCheck {
  readonly level: RollupLevel
  readonly #lengthMs: number
  readonly #fromMs: number
  readonly #stored: StoredBuckets
  #expected = new Map<string | null, RollupBuilder>()

  constructor(level: RollupLevel, ledger: LedgerStore, { fromMs, toMs }: MinuteRange) {
    const { lengthMs } = LEVELS[level]
    this.level = level
    this.#lengthMs = lengthMs
    this.#fromMs = fromMs
    // Whole ones only: the sum of half an hour is not stored.
    const firstMs = Math.ceil(fromMs / lengthMs) * lengthMs
    const endMs = Math.floor(toMs / lengthMs) * lengthMs
    this.#stored = new StoredBuckets(ledger.readBuckets(level, firstMs, Math.max(firstMs, endMs)))
  }

  add(component: LedgerBucket): void {
    const builder = this.#expected.get(component.host) ?? new RollupBuilder()
    builder.add(component)
    this.#expected.set(component.host, builder)
  }

  /** The rollups of the bucket that ends at `endMs`; `startMs` is null where the range holds only a part of it. */
  async take(endMs: number): Promise<{
    startMs: number | null
    expected: Map<string | null, RollupBuilder>
    stored: Map<string | null, LedgerBucket>
  }> {
    const startMs = endMs - this.#lengthMs
    const isWhole = endMs % this.#lengthMs === 0 && startMs >= this.#fromMs
    const expected = this.#expected
    this.#expected = new Map()
    return { startMs: isWhole ? startMs : null, expected, stored: isWhole ? await this.#stored.at(startMs) : new Map() }
  }

  close(): Promise<void> {
    return this.#stored.close()
  }
}

/** Stored buckets of a level, start by start. */
class StoredBuckets {
  readonly #buckets: OrderedStream<LedgerBucket>

  constructor(buckets: AsyncIterable<LedgerBucket>) {
    this.#buckets = new OrderedStream(buckets, ({ startMs }) => startMs)
  }

  /** The buckets of a start, by host; starts are asked for in ascending order. */
  async at(startMs: number): Promise<Map<string | null, LedgerBucket>> {
    const found = new Map<string | null, LedgerBucket>()
    await this.#buckets.take(startMs, startMs + 1, (bucket) => found.set(bucket.host, bucket))
    return found
  }

  close(): Promise<void> {
    return this.#buckets.close()
  }
}

function addCounts(into: EventCounts, from: EventCounts): void {
  into.requests += from.requests
  into.prompt_tokens += from.prompt_tokens
  into.cached_prompt_tokens += from.cached_prompt_tokens
  into.completion_tokens += from.completion_tokens
}

function countsText(counts: EventCounts): string {
  return Object.entries(counts)
    .map(([field, count]) => `${field}=${count}`)
    .join(' ')
}
