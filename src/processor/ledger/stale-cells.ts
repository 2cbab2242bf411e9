// Marks cells that are stale though no event says so: those that record another version of the price book than the one
// that prices them now (a range was repriced, or a book was set by a machine with a slow clock), and claimed ones that do
// not exist (a rule says that a GPU is paid for, and it is dark). Marking is all that happens here, so it may be repeated.

import { CELL_MS, floorTo, HOUR_MS } from '../../domain/ledger/buckets.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'
import { FrozenDays } from '../frozen-days.ts'
import type { PriceBookVersions } from '../prices/price-book-versions.ts'

/** A range of whole minutes of event time and the clock's time, epoch milliseconds. */
export interface MarkingRange {
  fromMs: number
  toMs: number
  nowMs: number
}

interface MinuteHosts {
  startMs: number
  hosts: (string | null)[]
}

/** Minutes that are marked with one write. */
const MINUTES_PER_WRITE = 500

/**
 * Marks the cells of a range that record another version than the books now say; outside frozen days. `onMinute` is told
 * the start of each minute that was seen. Answers how many cells were marked.
 */
export async function invalidateRepriced(
  ledger: LedgerStore,
  books: PriceBookVersions,
  { fromMs, toMs, nowMs, onMinute }: MarkingRange & { onMinute?: ((startMs: number) => void) | undefined },
): Promise<number> {
  const days = await FrozenDays.read(ledger)
  let marked = 0
  for (const part of days.openParts(fromMs, toMs)) {
    const writer = new MarkWriter(ledger, nowMs)
    for await (const cell of ledger.readBuckets('minute', part.fromMs, part.toMs)) {
      onMinute?.(cell.startMs)
      if (cell.bookVersions[0] !== books.versionFor(cell.startMs)) await writer.add(cell.startMs, cell.host)
    }
    marked += await writer.end()
  }
  return marked
}

/**
 * Marks the claimed cells of a range that do not exist; outside frozen days. Goes hour by hour and asks the store only
 * about hours with claims. Answers how many cells were marked.
 */
export async function invalidateMissingCommitments(
  ledger: LedgerStore,
  books: PriceBookVersions,
  range: MarkingRange,
): Promise<number> {
  const { fromMs, toMs, nowMs } = range
  const days = await FrozenDays.read(ledger)
  const writer = new MarkWriter(ledger, nowMs)
  for (let hourMs = floorTo(HOUR_MS, fromMs); hourMs < toMs; hourMs += HOUR_MS) {
    if (days.has(hourMs)) continue
    const hour = { fromMs: Math.max(fromMs, hourMs), toMs: Math.min(toMs, hourMs + HOUR_MS) }
    const claimed = commitmentsWithin(books, hour)
    if (claimed.length === 0) continue
    const hosts = [...new Set(claimed.flatMap((minute) => minute.hosts))]
    const present = new Set<string>()
    for await (const cell of ledger.readBuckets('minute', hour.fromMs, hour.toMs, hosts)) {
      present.add(`${cell.startMs} ${cell.host}`)
    }
    for (const minute of claimed) {
      for (const host of minute.hosts) {
        if (!present.has(`${minute.startMs} ${host}`)) await writer.add(minute.startMs, host)
      }
    }
  }
  return writer.end()
}

/** The hosts that books claim in each minute of a range of an hour at most, without asking the store. */
export function commitmentsWithin(
  books: PriceBookVersions,
  { fromMs, toMs }: { fromMs: number; toMs: number },
): MinuteHosts[] {
  const claimed: MinuteHosts[] = []
  if (!books.hasClaims) return claimed
  // Most hours have no claim at all, which is one question and not sixty.
  const claiming = new Map<number, boolean>()
  for (let startMs = fromMs; startMs < toMs; startMs += CELL_MS) {
    const version = books.versionFor(startMs)
    const book = books.bookByVersion(version)
    if (!claiming.has(version)) claiming.set(version, book.claimedHosts(fromMs, toMs).length > 0)
    const hosts = claiming.get(version) ? book.claimedHosts(startMs, startMs + CELL_MS) : []
    if (hosts.length > 0) claimed.push({ startMs, hosts })
  }
  return claimed
}

/** Collects cells in order of time and marks them in writes of bounded size. */
class MarkWriter {
  readonly #ledger: LedgerStore
  readonly #nowMs: number
  #minutes: MinuteHosts[] = []
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

  async end(): Promise<number> {
    await this.#write()
    return this.#count
  }

  async #write(): Promise<void> {
    if (this.#minutes.length > 0) await this.#ledger.insertMarks('minute', this.#minutes, this.#nowMs)
    this.#minutes = []
  }
}
