// What makes cells dirty besides events: a range that was repriced, a version of the price book that counts from an
// instant whose cells exist already (set by a machine with a slow clock), and committed GPUs without events (a rule
// states that a GPU is paid for, and it is unreported). All that happens here is inserting marks, so it may be
// repeated. Each keeper watches the books and looks for unreported commitments: once after a minute's end, going
// forward with the clock; and backward, a day a pass, to where the first commitment begins, after each start, and after
// each change of the books as far as that reaches.

import { CELL_MS, type DirtyMinute, floorTo, HOUR_MS } from '../../domain/ledger/buckets.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'
import { ClosedDays } from '../closed-days.ts'
import type { PriceBookVersions } from '../prices/price-book-versions.ts'
import type { KeeperDependencies } from './minute-keeper.ts'
import { committedEndMs } from './schedule.ts'

/** A revision that is younger is left to the process that made it, milliseconds. */
const REVISION_GRACE_MS = 60_000
/** Versions that are older than this when the keeper starts were watched by others. */
const NEW_VERSION_MS = HOUR_MS
/** Hours that a pass goes back over: those without commitments need no read. */
const MAX_HOURS_BACK = 200
/** Hours with commitments among them, and cells that it marks: no more than a pass or two can compute. */
const MAX_COMMITTED_HOURS_BACK = 24
const MAX_CELLS_BACK = 20_000
/** Nothing else is on its way to a minute that was swept: it need not rest. */
const SETTLED_MS = 60_000
/** Minutes that are marked with one write. */
const MINUTES_PER_WRITE = 500

/** A range of whole minutes of event time, and the clock's time; epoch milliseconds. */
export interface InvalidationRange {
  fromMs: number
  toMs: number
  nowMs: number
}

export class Invalidation {
  readonly #deps: KeeperDependencies
  readonly #lagMs: number
  readonly #seenVersions = new Set<number>()
  #seenRevisions = 0
  /** Committed minutes before this were looked at going forward, and from `#backMs` on going backward. */
  #frontMs: number | null = null
  #backMs = Number.NaN
  /** Where going backward ends. */
  #floorMs = Number.NEGATIVE_INFINITY

  /** `lagMs`: minutes are computed this long after their end. */
  constructor(deps: KeeperDependencies, lagMs: number) {
    this.#deps = deps
    this.#lagMs = lagMs
  }

  /**
   * To be called once a pass, after the books were read. `mayGoBack`: false while much is marked already, so that old
   * commitments wait for the keeper. Rejects with a StoreError; the next call does the rest.
   */
  async pass(mayGoBack = true): Promise<void> {
    const { books, now } = this.#deps
    if (books.versions.length === 0) return
    const nowMs = now()
    await this.#finishRevisions(nowMs)
    await this.#invalidateSinceNewVersions(nowMs)
    if (books.committedFromMs !== Number.POSITIVE_INFINITY) await this.#sweepCommitments(nowMs, mayGoBack)
  }

  /** Whether all unreported commitments in a range that this keeper knows of are marked or computed. */
  isSwept(fromMs: number, toMs: number): boolean {
    const { books } = this.#deps
    const firstMs = Math.max(fromMs, books.committedFromMs)
    if (books.versions.length === 0) return false
    if (firstMs >= toMs) return true
    if (this.#frontMs === null) return false
    const isOpen = (openMs: number, endMs: number) =>
      Math.max(firstMs, openMs) < Math.min(toMs, endMs) &&
      isAnyCommitted(books, Math.max(firstMs, openMs), Math.min(toMs, endMs))
    return !isOpen(this.#frontMs, Number.POSITIVE_INFINITY) && !isOpen(this.#floorMs, this.#backMs)
  }

  /** A revision whose process died leaves cells without marks. */
  async #finishRevisions(nowMs: number): Promise<void> {
    const { ledger, books, log } = this.#deps
    for (const { revision, fromMs, toMs, atMs, summary } of books.revisions) {
      const known = summary as { done?: boolean } | null
      if (known?.done === true || atMs + REVISION_GRACE_MS > nowMs) continue
      const marked = await invalidateRepriced(ledger, books, { fromMs, toMs, nowMs })
      await ledger.updateRevisionSummary(revision, { ...known, done: true })
      log.warn({ revision, cells: marked }, 'Marked the cells of a revision that was left unfinished')
    }
  }

  async #invalidateSinceNewVersions(nowMs: number): Promise<void> {
    const { ledger, books } = this.#deps
    for (const { version, fromMs, atMs } of books.versions) {
      if (this.#seenVersions.has(version)) continue
      const isYoung = fromMs !== null && atMs > nowMs - NEW_VERSION_MS
      if (isYoung && fromMs < nowMs) await invalidateRepriced(ledger, books, { fromMs, toMs: nowMs, nowMs })
      this.#seenVersions.add(version)
      this.#restart(fromMs ?? Number.NEGATIVE_INFINITY)
    }
    for (const { fromMs } of books.revisions.slice(this.#seenRevisions)) this.#restart(fromMs)
    this.#seenRevisions = books.revisions.length
  }

  /** Goes backward again from where going forward is, to where a change of the books reaches. */
  #restart(fromMs: number): void {
    const isDone = this.#backMs <= this.#floorMs
    this.#floorMs = floorTo(CELL_MS, isDone ? fromMs : Math.min(this.#floorMs, fromMs))
    this.#backMs = this.#frontMs ?? Number.NaN
  }

  async #sweepCommitments(nowMs: number, mayGoBack: boolean): Promise<void> {
    const { ledger, books } = this.#deps
    const frontMs = committedEndMs(nowMs, this.#lagMs)
    if (this.#frontMs === null) {
      this.#frontMs = frontMs
      this.#backMs = frontMs
    } else if (frontMs > this.#frontMs) {
      await invalidateMissingCommitments(ledger, books, { fromMs: this.#frontMs, toMs: frontMs, nowMs })
      this.#frontMs = frontMs
    }
    this.#floorMs = Math.max(this.#floorMs, floorTo(CELL_MS, books.committedFromMs))
    let [committedHours, cells] = [0, 0]
    for (let hours = 0; mayGoBack && hours < MAX_HOURS_BACK && this.#backMs > this.#floorMs; hours++) {
      const fromMs = Math.max(this.#floorMs, floorTo(HOUR_MS, this.#backMs - 1))
      const hour = { fromMs, toMs: this.#backMs }
      if (commitmentsWithin(books, hour).length > 0) {
        cells += await invalidateMissingCommitments(ledger, books, { ...hour, nowMs: nowMs - SETTLED_MS })
        committedHours++
      }
      this.#backMs = fromMs
      if (committedHours >= MAX_COMMITTED_HOURS_BACK || cells >= MAX_CELLS_BACK) return
    }
  }
}

/**
 * Marks the cells of a range that record another version than the one that prices them now; outside frozen days.
 * Returns how many cells were marked.
 */
export async function invalidateRepriced(
  ledger: LedgerStore,
  books: PriceBookVersions,
  { fromMs, toMs, nowMs }: InvalidationRange,
): Promise<number> {
  const days = await ClosedDays.read(ledger)
  const writer = new MarkWriter(ledger, nowMs)
  for (const range of days.openRanges(fromMs, toMs)) {
    for await (const cell of ledger.readBuckets('minute', range.fromMs, range.toMs)) {
      if (cell.bookVersions[0] !== books.versionFor(cell.startMs)) await writer.add(cell.startMs, cell.host)
    }
  }
  return writer.end()
}

/**
 * Marks the committed cells of a range that do not exist; outside frozen days. Goes hour by hour and reads the store
 * only for hours with commitments. Returns how many cells were marked.
 */
export async function invalidateMissingCommitments(
  ledger: LedgerStore,
  books: PriceBookVersions,
  { fromMs, toMs, nowMs }: InvalidationRange,
): Promise<number> {
  const writer = new MarkWriter(ledger, nowMs)
  for await (const { startMs, host } of missingCommitments(ledger, books, { fromMs, toMs })) {
    await writer.add(startMs, host)
  }
  return writer.end()
}

/** The committed cells of a range that do not exist, by time; outside frozen days. */
export async function* missingCommitments(
  ledger: LedgerStore,
  books: PriceBookVersions,
  { fromMs, toMs }: { fromMs: number; toMs: number },
): AsyncGenerator<{ startMs: number; host: string | null }, void, undefined> {
  const days = await ClosedDays.read(ledger)
  const firstMs = Math.max(fromMs, floorTo(CELL_MS, books.committedFromMs))
  for (let hourMs = floorTo(HOUR_MS, firstMs); hourMs < toMs; hourMs += HOUR_MS) {
    if (days.isFrozen(hourMs)) continue
    const hour = { fromMs: Math.max(firstMs, hourMs), toMs: Math.min(toMs, hourMs + HOUR_MS) }
    const committed = commitmentsWithin(books, hour)
    if (committed.length === 0) continue
    const hosts = [...new Set(committed.flatMap((minute) => minute.hosts))]
    const present = new Set<string>()
    for await (const cell of ledger.readBuckets('minute', hour.fromMs, hour.toMs, hosts)) {
      present.add(`${cell.startMs} ${cell.host}`)
    }
    for (const minute of committed) {
      for (const host of minute.hosts) {
        if (!present.has(`${minute.startMs} ${host}`)) yield { startMs: minute.startMs, host }
      }
    }
  }
}

/** Whether any minute of a range is committed. */
function isAnyCommitted(books: PriceBookVersions, fromMs: number, toMs: number): boolean {
  for (let hourMs = fromMs; hourMs < toMs; hourMs = floorTo(HOUR_MS, hourMs) + HOUR_MS) {
    const hour = { fromMs: hourMs, toMs: Math.min(toMs, floorTo(HOUR_MS, hourMs) + HOUR_MS) }
    if (commitmentsWithin(books, hour).length > 0) return true
  }
  return false
}

/** The hosts with committed GPUs in each minute of a range of an hour at most, without reading the store. */
function commitmentsWithin(
  books: PriceBookVersions,
  { fromMs, toMs }: { fromMs: number; toMs: number },
): DirtyMinute[] {
  const committed: DirtyMinute[] = []
  if (toMs <= books.committedFromMs) return committed
  // Most hours have no commitment at all, which one look-up shows instead of sixty.
  const isAnyByVersion = new Map<number, boolean>()
  for (let startMs = fromMs; startMs < toMs; startMs += CELL_MS) {
    const version = books.versionFor(startMs)
    const book = books.bookByVersion(version)
    if (!isAnyByVersion.has(version)) isAnyByVersion.set(version, book.committedHosts(fromMs, toMs).length > 0)
    const hosts = isAnyByVersion.get(version) ? book.committedHosts(startMs, startMs + CELL_MS) : []
    if (hosts.length > 0) committed.push({ startMs, hosts })
  }
  return committed
}

/** Collects cells in order of time and marks them in writes of bounded size. */
class MarkWriter {
  readonly #ledger: LedgerStore
  readonly #nowMs: number
  #minutes: DirtyMinute[] = []
  #count = 0

  constructor(ledger: LedgerStore, nowMs: number) {
    this.#ledger = ledger
    this.#nowMs = nowMs
  }

  async add(startMs: number, host: string | null): Promise<void> {
    this.#count++
    const last = this.#minutes.at(-1)
    if (last?.startMs === startMs) {
      last.hosts.push(host)
      return
    }
    if (this.#minutes.length >= MINUTES_PER_WRITE) await this.#write()
    this.#minutes.push({ startMs, hosts: [host] })
  }

  /** Writes the rest; returns how many cells were marked. */
  async end(): Promise<number> {
    await this.#write()
    return this.#count
  }

  async #write(): Promise<void> {
    if (this.#minutes.length > 0) await this.#ledger.insertMarks('minute', this.#minutes, this.#nowMs)
    this.#minutes = []
  }
}
