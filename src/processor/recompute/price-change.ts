// What a range of the past costs under one price book and under another, by model and tenant: both computed from the same
// raw events in one reading, so that the difference is the prices' and nothing else's. Nothing is written. `reprice` shows
// it before it pins a range; `prices set` shows what a book would have changed. Frozen days are skipped and named.

import { CELL_MS } from '../../domain/ledger/buckets.ts'
import { compareText, totalNanoUsd } from '../../domain/ledger/rows.ts'
import { type CellRow, OTHER_NAME } from '../../domain/ledger/types.ts'
import { defaultsOf, PriceBook } from '../../domain/prices/price-book.ts'
import { checkPriceBook } from '../../domain/prices/price-book-check.ts'
import type { PriceBookDocument } from '../../domain/prices/price-book-schema.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'
import { ClosedDays } from '../closed-days.ts'
import { eventCellInputs } from '../ledger/raw-minutes.ts'
import { InvalidPriceBook } from '../prices/book-versions.ts'
import { PriceBookVersions } from '../prices/price-book-versions.ts'

/** Told now and then while a range is worked through; times are epoch milliseconds of event time. */
export type OnRangeProgress = (progress: { doneToMs: number; fromMs: number; toMs: number; cells: number }) => void

/** Money before and after; decimal text of 10⁻⁹ USD. `uncovered` stands beside the totals, not in them. */
export interface MoneyChange {
  before_nano_usd: string
  after_nano_usd: string
  before_uncovered_nano_usd: string
  after_uncovered_nano_usd: string
}

export interface PriceChange extends MoneyChange {
  /** ISO 8601. */
  from: string
  to: string
  cells: number
  /** By model and tenant, sorted; above MAX_NAMED those with the least money are summed up as `other`. */
  by: (MoneyChange & { model: string | null; tenant: string | null })[]
  /** How many (model, tenant) are in `other`. */
  others: number
  /** Frozen days in the range, as 2026-01-31: they are skipped. */
  skipped_days: string[]
}

interface ChangeRange {
  ledger: LedgerStore
  /** Whole minutes, epoch milliseconds, `toMs` exclusive. */
  fromMs: number
  toMs: number
  onProgress?: OnRangeProgress | undefined
}

/** The summary is kept in the revision, and every keeper reads it often: it must not grow with the number of tenants. */
const MAX_NAMED = 200

/** How far back `prices set` looks, milliseconds. */
export const WHAT_IF_MS = 86_400_000

/**
 * What would differ in a range had it been priced with `book` (as people write it) all along; a book that says no default
 * has the one in force. Throws InvalidPriceBook, or a StoreError.
 */
export async function whatIf(options: ChangeRange & { book: unknown }): Promise<PriceChange> {
  const checked = checkPriceBook(options.book)
  if (checked.book === null) throw new InvalidPriceBook(checked.problems)
  const books = new PriceBookVersions(options.ledger)
  await books.refresh()
  const newest = books.versions.at(-1)
  const { default_usd_per_hour: usdPerHour, defaults, ...rest } = checked.book
  const carried = newest === undefined || usdPerHour !== undefined || defaults !== undefined
  const data = carried ? checked.book : { ...rest, defaults: defaultsOf(newest.book as PriceBookDocument) }
  const after = new PriceBook(data, (newest?.version ?? 0) + 1)
  return priceChange({ ...options, before: (minuteMs) => books.bookFor(minuteMs), after: () => after })
}

/** The change between two ways to price the minutes of a range. */
export async function priceChange(
  options: ChangeRange & { before: (minuteMs: number) => PriceBook; after: (minuteMs: number) => PriceBook },
): Promise<PriceChange> {
  const { ledger, fromMs, toMs, before, after, onProgress } = options
  const days = await ClosedDays.read(ledger)
  const changes = new Changes()
  let cells = 0
  for (const part of await partsWithEvents(ledger, days, { fromMs, toMs })) {
    for await (const { startMs, minute } of eventCellInputs(ledger, part)) {
      const books = { before: before(startMs), after: after(startMs) }
      for (const host of hostsOf(minute.hosts, startMs, [books.before, books.after])) {
        cells++
        changes.add('before', minute.cell(host, books.before).rows)
        changes.add('after', minute.cell(host, books.after).rows)
      }
      onProgress?.({ doneToMs: startMs + CELL_MS, fromMs, toMs, cells })
    }
  }
  const range = { from: new Date(fromMs).toISOString(), to: new Date(toMs).toISOString(), cells }
  return { ...range, ...changes.total(), ...changes.byModelAndTenant(), skipped_days: days.frozenWithin(fromMs, toMs) }
}

/** The parts of a range outside frozen days that raw events reach; nothing is to be computed elsewhere. */
export async function partsWithEvents(
  ledger: LedgerStore,
  days: ClosedDays,
  { fromMs, toMs }: { fromMs: number; toMs: number },
): Promise<{ fromMs: number; toMs: number }[]> {
  const raw = await ledger.rawRange()
  if (raw === null) return []
  // A sample reaches two minutes into the past and the future.
  const first = Math.floor(raw.fromMs / CELL_MS) * CELL_MS - 2 * CELL_MS
  const last = Math.ceil(raw.toMs / CELL_MS) * CELL_MS + 2 * CELL_MS
  return days.openRanges(Math.max(fromMs, first), Math.min(toMs, last))
}

/** Hosts with events and hosts that any of the books claims, sorted. */
export function hostsOf(
  withEvents: ReadonlySet<string | null>,
  startMs: number,
  books: readonly PriceBook[],
): (string | null)[] {
  const claimed = books.flatMap((book) => book.claimedHosts(startMs, startMs + CELL_MS))
  return [...new Set([...withEvents, ...claimed])].sort(compareText)
}

interface Sums {
  before: bigint
  after: bigint
  beforeUncovered: bigint
  afterUncovered: bigint
}

interface NamedSums extends Sums {
  model: string | null
  tenant: string | null
}

class Changes {
  readonly #sums: NamedSums[] = []
  readonly #byModel = new Map<string | null, Map<string | null, NamedSums>>()

  add(side: 'before' | 'after', rows: readonly CellRow[]): void {
    for (const row of rows) {
      const sums = this.#sumsOf(row)
      sums[side] += totalNanoUsd(row)
      sums[`${side}Uncovered`] += row.uncovered_nano_usd
    }
  }

  total(): MoneyChange {
    return asText(sumOf(this.#sums))
  }

  byModelAndTenant(): Pick<PriceChange, 'by' | 'others'> {
    const weight = (sums: Sums) => sums.before + sums.after + sums.beforeUncovered + sums.afterUncovered
    const ranked = this.#sums.toSorted((a, b) => (weight(a) > weight(b) ? -1 : 1))
    const by = ranked
      .slice(0, MAX_NAMED)
      .map((sums) => ({ model: sums.model, tenant: sums.tenant, ...asText(sums) }))
      .sort((a, b) => compareText(a.model, b.model) || compareText(a.tenant, b.tenant))
    const rest = ranked.slice(MAX_NAMED)
    if (rest.length > 0) by.push({ model: OTHER_NAME, tenant: OTHER_NAME, ...asText(sumOf(rest)) })
    return { by, others: rest.length }
  }

  #sumsOf({ model, tenant }: CellRow): NamedSums {
    const ofModel = this.#byModel.get(model) ?? new Map<string | null, NamedSums>()
    const known = ofModel.get(tenant)
    if (known !== undefined) return known
    const sums = { model, tenant, before: 0n, after: 0n, beforeUncovered: 0n, afterUncovered: 0n }
    this.#sums.push(sums)
    this.#byModel.set(model, ofModel.set(tenant, sums))
    return sums
  }
}

function sumOf(all: Iterable<Sums>): Sums {
  const total: Sums = { before: 0n, after: 0n, beforeUncovered: 0n, afterUncovered: 0n }
  for (const sums of all) {
    for (const field of Object.keys(total) as (keyof Sums)[]) total[field] += sums[field]
  }
  return total
}

function asText(sums: Sums): MoneyChange {
  return {
    before_nano_usd: String(sums.before),
    after_nano_usd: String(sums.after),
    before_uncovered_nano_usd: String(sums.beforeUncovered),
    after_uncovered_nano_usd: String(sums.afterUncovered),
  }
}
