// The ledger held against the single raw documents: every cell of a range is computed from documents that are read one
// by one, not as the store groups them, and compared to the last unit; hours are compared with the sums of the cells, days with
// the sums of the hours, and the tokens of all events with the tokens of all cells. Streamed: memory holds the groups of a
// minute, samples of four and the sums of a day. What differs is asked again by itself, since a keeper may be at work:
// with marks pending it is `pending`, and only what nobody is going to correct is a difference.

import { type BucketLevel, CELL_MS, DAY_MS, HOUR_MS, LEVELS, type RollupLevel } from '../../domain/ledger/buckets.ts'
import type { LedgerBucket, LedgerStore } from '../../store/ledger-store.ts'
import { FrozenDays } from '../frozen-days.ts'
import { EventCellInputs } from '../ledger/raw-minutes.ts'
import { RollupBuilder } from '../ledger/rollup-keeper.ts'
import { commitmentsWithin } from '../ledger/stale-cells.ts'
import { noCounts, type PlainCounts } from '../ledger/token-aggregator.ts'
import { PriceBookVersions } from '../prices/price-book-versions.ts'
import { expectedCell, mismatchOf } from './verify-expected.ts'
import type { VerifyOptions, VerifyResult } from './verify-result.ts'
import { MismatchRecheck } from './verify-suspects.ts'

export type { Difference, VerifyOptions, VerifyResult } from './verify-result.ts'

const DEFAULT_LAG_MS = 105_000

/** Compares a range. Rejects with the signal's reason when aborted, with a StoreError, or with a RangeError. */
export async function verify(options: VerifyOptions): Promise<VerifyResult> {
  const { ledger, fromMs, nowMs, lagMs = DEFAULT_LAG_MS } = options
  if (fromMs % CELL_MS !== 0 || options.toMs % CELL_MS !== 0) {
    throw new RangeError(`Cannot verify from ${fromMs} to ${options.toMs}: expected whole minutes`)
  }
  const settledMs = Math.floor((nowMs - lagMs) / CELL_MS) * CELL_MS
  const toMs = Math.max(fromMs, Math.min(options.toMs, settledMs))
  const books = new PriceBookVersions(ledger)
  await books.refresh()
  const days = await FrozenDays.read(ledger)
  const run = new Verification({ ...options, toMs }, books)
  for (const part of days.openParts(fromMs, toMs)) await run.part(part)
  return run.end(days.within(fromMs, toMs))
}

class Verification {
  readonly #options: VerifyOptions
  readonly #books: PriceBookVersions
  readonly #suspects: MismatchRecheck
  readonly #counts: Record<BucketLevel, number> = { minute: 0, hour: 0, day: 0 }
  readonly #ofEvents = noCounts()
  readonly #ofCells = noCounts()
  #events = 0

  constructor(options: VerifyOptions, books: PriceBookVersions) {
    this.#options = options
    this.#books = books
    this.#suspects = new MismatchRecheck(options, books)
  }

  /** Compares a part of the range that is outside frozen days. */
  async part(part: { fromMs: number; toMs: number }): Promise<void> {
    const { ledger } = this.#options
    const { fromMs, toMs } = part
    const raw = new EventCellInputs(ledger, part)
    const cells = new SpansInOrder(ledger.readBuckets('minute', fromMs, toMs))
    const hours = new SumCheck('hour', ledger, part)
    const days = new SumCheck('day', ledger, part)
    try {
      for (let startMs = fromMs; startMs < toMs; startMs += CELL_MS) {
        this.#options.signal?.throwIfAborted()
        if (startMs % HOUR_MS === 0) {
          await this.#sums(hours, startMs, days)
          if (startMs % DAY_MS === 0) await this.#sums(days, startMs, null)
          this.#tell(startMs)
        }
        await raw.moveTo(startMs)
        const stored = await cells.at(startMs)
        await this.#minute(startMs, raw, stored)
        for (const cell of stored.values()) hours.add(cell)
      }
      await this.#sums(hours, toMs, days)
      await this.#sums(days, toMs, null)
    } finally {
      this.#events += raw.read
      await Promise.all([raw.close(), cells.close(), hours.close(), days.close()])
    }
    this.#tell(toMs)
  }

  async end(skippedDays: string[]): Promise<VerifyResult> {
    await this.#suspects.settle()
    const { differences, differenceCount, pending, repaired } = this.#suspects
    const { fromMs, toMs } = this.#options
    const range = { from: new Date(fromMs).toISOString(), to: new Date(toMs).toISOString() }
    const { minute: cellsCompared, hour: hoursCompared, day: daysCompared } = this.#counts
    const result: VerifyResult = {
      ...range,
      events: this.#events,
      cellsCompared,
      hoursCompared,
      daysCompared,
      differences,
      differenceCount,
      pending,
      skippedDays,
      repaired,
    }
    const expected = countsText(this.#ofEvents)
    const found = countsText(this.#ofCells)
    if (expected !== found) {
      result.differenceCount++
      differences.push({ level: 'minute', start: range.from, host: null, what: 'token totals', expected, found })
    }
    return result
  }

  async #minute(startMs: number, raw: EventCellInputs, stored: Map<string | null, LedgerBucket>): Promise<void> {
    const claimed = commitmentsWithin(this.#books, { fromMs: startMs, toMs: startMs + CELL_MS }).flatMap(
      ({ hosts }) => hosts,
    )
    for (const host of new Set([...raw.hosts, ...stored.keys(), ...claimed])) {
      const cell = stored.get(host)
      const expected = expectedCell(this.#books, { startMs, host, stored: cell }, raw.events(host))
      this.#counts.minute++
      if (mismatchOf('minute', expected, cell) !== null) {
        await this.#suspects.add({ level: 'minute', startMs, host })
        continue
      }
      addCounts(this.#ofEvents, raw.counts(host))
      for (const row of cell?.rows ?? []) addCounts(this.#ofCells, row)
    }
  }

  /** Compares the sum that ends at `endMs` with what is stored, and hands the stored ones on to the next level. */
  async #sums(check: SumCheck, endMs: number, next: SumCheck | null): Promise<void> {
    const { startMs, expected, stored } = await check.take(endMs)
    for (const span of stored.values()) next?.add(span)
    if (startMs === null) return
    for (const host of new Set([...expected.keys(), ...stored.keys()])) {
      this.#counts[check.level]++
      const sum = (expected.get(host) ?? new RollupBuilder()).span()
      if (mismatchOf(check.level, sum, stored.get(host)) !== null) {
        await this.#suspects.add({ level: check.level, startMs, host })
      }
    }
  }

  #tell(doneToMs: number): void {
    const { fromMs, toMs, onProgress } = this.#options
    onProgress?.({ doneToMs, fromMs, toMs, events: this.#events, cells: this.#counts.minute })
  }
}

/** Sums of one level as they build up, and the stored ones beside them. */
class SumCheck {
  readonly level: RollupLevel
  readonly #lengthMs: number
  readonly #fromMs: number
  readonly #stored: SpansInOrder
  #sums = new Map<string | null, RollupBuilder>()

  constructor(level: RollupLevel, ledger: LedgerStore, part: { fromMs: number; toMs: number }) {
    const { lengthMs } = LEVELS[level]
    this.level = level
    this.#lengthMs = lengthMs
    this.#fromMs = part.fromMs
    // Whole ones only: the sum of half an hour is nothing that is stored.
    const firstMs = Math.ceil(part.fromMs / lengthMs) * lengthMs
    const endMs = Math.floor(part.toMs / lengthMs) * lengthMs
    this.#stored = new SpansInOrder(ledger.readBuckets(level, firstMs, Math.max(firstMs, endMs)))
  }

  add(part: LedgerBucket): void {
    const sum = this.#sums.get(part.host) ?? new RollupBuilder()
    sum.add(part)
    this.#sums.set(part.host, sum)
  }

  /** The sums of the span that ends at `endMs`; `startMs` is null where the range holds only a part of it. */
  async take(endMs: number): Promise<{
    startMs: number | null
    expected: Map<string | null, RollupBuilder>
    stored: Map<string | null, LedgerBucket>
  }> {
    const startMs = endMs - this.#lengthMs
    const isWhole = endMs % this.#lengthMs === 0 && startMs >= this.#fromMs
    const expected = this.#sums
    this.#sums = new Map()
    return { startMs: isWhole ? startMs : null, expected, stored: isWhole ? await this.#stored.at(startMs) : new Map() }
  }

  close(): Promise<void> {
    return this.#stored.close()
  }
}

/** Stored spans, handed out start by start. */
class SpansInOrder {
  readonly #spans: AsyncIterator<LedgerBucket>
  #next: LedgerBucket | null = null
  #isDone = false

  constructor(spans: AsyncIterable<LedgerBucket>) {
    this.#spans = spans[Symbol.asyncIterator]()
  }

  /** The spans of a start, which is after the one before; what lies between is passed over. */
  async at(startMs: number): Promise<Map<string | null, LedgerBucket>> {
    const found = new Map<string | null, LedgerBucket>()
    for (;;) {
      if (this.#next === null && !this.#isDone) {
        const { done, value } = await this.#spans.next()
        if (done === true) this.#isDone = true
        else this.#next = value
      }
      if (this.#next === null || this.#next.startMs > startMs) return found
      if (this.#next.startMs === startMs) found.set(this.#next.host, this.#next)
      this.#next = null
    }
  }

  async close(): Promise<void> {
    this.#isDone = true
    await this.#spans.return?.()
  }
}

function addCounts(into: PlainCounts, from: PlainCounts): void {
  into.requests += from.requests
  into.prompt_tokens += from.prompt_tokens
  into.cached_prompt_tokens += from.cached_prompt_tokens
  into.completion_tokens += from.completion_tokens
}

function countsText(counts: PlainCounts): string {
  return Object.entries(counts)
    .map(([field, count]) => `${field}=${count}`)
    .join(' ')
}
