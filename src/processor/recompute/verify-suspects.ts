// Spans that looked wrong to `verify`, asked again some time later and by themselves. While a keeper works, events and
// spans that were read at different moments do not fit together; so a span is only called different when it differs
// though nothing is marked in it, before and after it was read again, and its rev stood still. Bounded: so many wait, and
// twenty differences are kept by name; all are counted.

import { type BucketLevel, CELL_MS, LEVELS } from '../../domain/ledger/buckets.ts'
import type { PriceBookVersions } from '../prices/price-book-versions.ts'
import { type BucketKey, compareAlone } from './verify-expected.ts'
import type { Difference, VerifyOptions } from './verify-result.ts'

const MAX_WAITING = 200
const MAX_NAMED = 20

export class MismatchRecheck {
  readonly differences: Difference[] = []
  differenceCount = 0
  pending = 0
  repaired = 0
  readonly #options: VerifyOptions
  readonly #books: PriceBookVersions
  #waiting: BucketKey[] = []

  constructor(options: VerifyOptions, books: PriceBookVersions) {
    this.#options = options
    this.#books = books
  }

  async add(place: BucketKey): Promise<void> {
    this.#waiting.push(place)
    if (this.#waiting.length >= MAX_WAITING) await this.settle()
  }

  /** Asks again for all that wait. */
  async settle(): Promise<void> {
    const waiting = this.#waiting
    this.#waiting = []
    await this.#books.refresh()
    for (const place of waiting) {
      this.#options.signal?.throwIfAborted()
      await this.#settleOne(place)
    }
  }

  async #settleOne(place: BucketKey): Promise<void> {
    const { ledger, repair, nowMs } = this.#options
    if (await this.#isMarked(place)) {
      this.pending++
      return
    }
    const { mismatch, rev } = await compareAlone({ ...this.#options, books: this.#books }, place)
    if (mismatch === null) return
    const { level, startMs, host } = place
    const revNow = (await ledger.readRevs(level, startMs, [host])).get(host) ?? 0
    if (revNow !== rev || (await this.#isMarked(place))) {
      this.pending++
      return
    }
    this.differenceCount++
    if (this.differences.length < MAX_NAMED) {
      this.differences.push({ level, start: new Date(startMs).toISOString(), host, ...mismatch })
    }
    if (repair !== true) return
    await ledger.insertMarks(level, [{ startMs, hosts: [host] }], nowMs)
    this.repaired++
  }

  /** Whether a keeper is going to compute the span, or one of those that it is the sum of. */
  async #isMarked({ level, startMs, host }: BucketKey): Promise<boolean> {
    const { ledger } = this.#options
    const isNamed = async (at: BucketLevel, ms: number) =>
      (await ledger.readMarks(at, ms)).some((mark) => mark.hosts.includes(host))
    if (await isNamed(level, startMs)) return true
    if (level === 'minute') return false
    if (level === 'hour' && (await isNamed('minute', startMs))) return true
    // Marks of other hosts count too here: to look at each minute of a day is too much for a doubtful case.
    return (await ledger.pendingMarks(startMs + (level === 'day' ? 0 : CELL_MS), startMs + LEVELS[level].lengthMs)) > 0
  }
}
