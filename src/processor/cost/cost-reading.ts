// Reads the answer to a question about cost from the ledger: the buckets of its plan (days, hours, minutes at the
// edges), grouped, and whether the result is final. Rows come as they are complete, so any range fits in memory; pages
// are cut from the same stream, because totals need all of it. An old revision is computed from the raw events.

import { setImmediate as nextTurn } from 'node:timers/promises'
import { DAY_MS, HOUR_MS } from '../../domain/ledger/buckets.ts'
import { type CostAnswer, type CostHead, type CostTail, headOf } from '../../report/cost-answer.ts'
import { figuresOf } from '../../report/cost-figures.ts'
import {
  CostGrouping,
  type CostRow,
  cursorAfter,
  EMPTY_KEY,
  isAfter,
  type PageEnd,
} from '../../report/cost-grouping.ts'
import { type CostQuery, type PlannedRead, planOf, totalsFor } from '../../report/cost-query.ts'
import type { EventStore } from '../../store/event-store.ts'
import type { LedgerBucket, LedgerStore } from '../../store/ledger-store.ts'
import { areCommitmentsComputed } from '../recompute/computed-commitments.ts'
import { ledgerAsOf } from '../recompute/ledger-as-of.ts'
import { hostNotes } from './host-notes.ts'

/** How far the log has been read. */
export interface Progress {
  /**
   * Record time, epoch milliseconds, up to which every current partition of the group was read and stored; now where
   * all of them are caught up; null where unknown.
   */
  readUpToMs(): number | null
  /** Whether all unreported commitments in a range are marked or computed; absent: known to be. */
  isSwept?(fromMs: number, toMs: number): boolean | Promise<boolean>
}

/** What an answer is read from. */
export interface CostSource {
  ledger: LedgerStore
  progress: Progress
  /** How late an event may be and still be expected, milliseconds. */
  latenessMs: number
}

/** Without a known progress no answer is final. */
export const UNKNOWN_PROGRESS: Progress = { readUpToMs: () => null }

/** How long ago a range must have ended for an answer without a running processor to be final, milliseconds. */
const QUIET_MS = HOUR_MS
/** After so many rows of the ledger other requests get their turn. */
const ROWS_PER_TURN = 4_000

/**
 * Progress as the store alone shows it, for a command line without a processor: up to the newest stored event, and
 * never closer than an hour to now, because another partition may lag behind the newest event.
 */
export async function storedProgress(
  events: Pick<EventStore, 'newestMs' | 'ledger'>,
  nowMs: number,
): Promise<Progress> {
  const newest = await Promise.all([events.newestMs('gpu'), events.newestMs('token')])
  const newestMs = Math.max(...newest.map((ms) => ms ?? Number.NEGATIVE_INFINITY))
  const upToMs = newestMs === Number.NEGATIVE_INFINITY ? null : Math.min(newestMs, nowMs - QUIET_MS)
  return { readUpToMs: () => upToMs, isSwept: (fromMs, toMs) => areCommitmentsComputed(events.ledger, fromMs, toMs) }
}

type Outlook = Pick<CostTail, 'final' | 'watermark' | 'missing'>

/** One reading of the ledger for one question: `rows` once, then `tail`. */
export class CostReading {
  readonly query: CostQuery
  readonly head: CostHead
  readonly #source: CostSource
  readonly #revision: number | null
  readonly #grouping: CostGrouping
  #isBegun = false
  #readUpToMs: number | null = null
  #pending = 0
  #isSettled = false

  /** `revision`: the ledger as of this revision; null: as it is. */
  constructor(source: CostSource, query: CostQuery, { revision = null }: { revision?: number | null } = {}) {
    this.query = query
    this.head = headOf(query, revision)
    this.#source = source
    this.#revision = revision
    this.#grouping = new CostGrouping(query)
  }

  /** What is known before the first row, for an answer that is streamed with its state ahead; call it before `rows`. */
  async outlook(): Promise<Outlook> {
    await this.#begin()
    return this.#outlookWith(this.#pending)
  }

  /** The rows in order. Throws TooManyRows, FrozenDaysError, a RangeError for an unknown revision, or a StoreError. */
  async *rows(): AsyncGenerator<CostRow, void, undefined> {
    await this.#begin()
    let rowsInTurn = 0
    for await (const bucket of this.#buckets()) {
      yield* this.#grouping.add(bucket)
      rowsInTurn += bucket.rows.length + 1
      if (rowsInTurn < ROWS_PER_TURN) continue
      rowsInTurn = 0
      await nextTurn()
    }
    yield* this.#grouping.finish()
  }

  /** What is known after the last row. */
  async tail(): Promise<CostTail> {
    const { fromMs, toMs } = this.query
    const pending = this.#pending + (await this.#source.ledger.pendingMarks(fromMs, toMs))
    const { missing, ...state } = await this.#outlookWith(pending)
    const { totals } = this.#grouping
    const notes = this.#revision === null ? await hostNotes(this.#source.ledger, this.query) : []
    return {
      ...state,
      totals: figuresOf({ startMs: fromMs, endMs: toMs, key: EMPTY_KEY, amounts: totals }),
      ...(missing === undefined ? {} : { missing }),
      ...(notes.length === 0 ? {} : { notes }),
    }
  }

  /** Before the first bucket is read: what is read, marked and pending afterwards may be in the answer or not. */
  async #begin(): Promise<void> {
    if (this.#isBegun) return
    this.#isBegun = true
    const { ledger, progress } = this.#source
    this.#readUpToMs = progress.readUpToMs()
    this.#isSettled = await this.#isRangeSettled()
    this.#pending = await ledger.pendingMarks(this.query.fromMs, this.query.toMs)
  }

  async #outlookWith(pending: number): Promise<Outlook> {
    const upToMs = this.#readUpToMs
    const missing = await this.#missing()
    return {
      final: pending === 0 && this.#isSettled && missing.length === 0,
      watermark: upToMs === null ? null : new Date(upToMs).toISOString(),
      ...(missing.length === 0 ? {} : { missing }),
    }
  }

  get #isRead(): boolean {
    return this.#readUpToMs !== null && this.#readUpToMs > this.query.toMs + this.#source.latenessMs
  }

  /** Before marks are counted: all events are stored, and neither a revision nor a commitment is yet to be marked. */
  async #isRangeSettled(): Promise<boolean> {
    const { ledger, progress } = this.#source
    const { fromMs, toMs } = this.query
    if (!this.#isRead) return false
    for (const revision of await ledger.readRevisions()) {
      const { done } = (revision.summary ?? {}) as { done?: boolean }
      if (done !== true && revision.fromMs < toMs && revision.toMs > fromMs) return false
    }
    return (await progress.isSwept?.(fromMs, toMs)) ?? true
  }

  async *#buckets(): AsyncGenerator<Pick<LedgerBucket, 'startMs' | 'host' | 'rows'>, void, undefined> {
    const { ledger } = this.#source
    const { fromMs, toMs, host } = this.query
    if (this.#revision !== null) {
      const cells = ledgerAsOf({ ledger, fromMs, toMs, revision: this.#revision })
      for await (const cell of cells) if (host === undefined || cell.host === host) yield cell
      return
    }
    const hosts = host === undefined ? undefined : [host]
    const by = totalsFor(this.query)
    for (const { level, fromMs: startMs, toMs: endMs } of planOf(this.query)) {
      if (by === null) yield* ledger.readBuckets(level, startMs, endMs, hosts)
      else yield* ledger.readTotals(by, level, startMs, endMs, hosts)
    }
  }

  /** Minutes live as long as the raw events: the parts of the range that are planned in minutes of purged days. */
  async #missing(): Promise<NonNullable<CostTail['missing']>> {
    if (this.#revision !== null) return []
    const reads = planOf(this.query).filter(({ level }) => level === 'minute')
    if (reads.length === 0) return []
    const days = await this.#source.ledger.readDayStates()
    const purged = days.filter(({ state }) => state === 'purged').map(({ startMs }) => startMs)
    return purged.flatMap((dayMs) => reads.flatMap((read) => missingOf(read, dayMs)))
  }
}

/** A page of an answer: at most `limit` rows after the end of the previous page, the totals of all, and the cursor. */
export async function costPage(
  reading: CostReading,
  { limit, after }: { limit: number; after: PageEnd | null },
): Promise<CostAnswer & { cursor: string | null }> {
  const kept: CostRow[] = []
  let hasMore = false
  for await (const row of reading.rows()) {
    if (after !== null && !isAfter(row, after)) continue
    if (kept.length < limit) kept.push(row)
    else hasMore = true
  }
  const { totals, final, watermark, ...rest } = await reading.tail()
  const cursor = hasMore ? cursorAfter(kept.at(-1)!) : null
  return { ...reading.head, final, watermark, ...rest, rows: kept.map(figuresOf), totals, cursor }
}

function missingOf(read: PlannedRead, dayMs: number): NonNullable<CostTail['missing']>[number][] {
  const fromMs = Math.max(read.fromMs, dayMs)
  const toMs = Math.min(read.toMs, dayMs + DAY_MS)
  if (fromMs >= toMs) return []
  const reason = 'The minutes of this day were purged with its raw events: ask in whole hours or days'
  return [{ from: new Date(fromMs).toISOString(), to: new Date(toMs).toISOString(), reason }]
}
