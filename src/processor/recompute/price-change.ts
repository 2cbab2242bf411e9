// What repricing a range of the past to a version of the price book changes, by model and tenant: before and after are
// computed from the same raw events in one pass, so that only the prices can make a difference. Nothing is written. The
// one answer to that question: `reprice` reports it before it pins a range, and `prices set` for the last day, before
// anyone reprices. Frozen days are skipped and named.

import { CELL_MS, DAY_MS } from '../../domain/ledger/buckets.ts'
import { compareText, totalNanoUsd } from '../../domain/ledger/rows.ts'
import { type CellRow, OTHER_NAME } from '../../domain/ledger/types.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'
import { ClosedDays } from '../closed-days.ts'
import { PriceBookVersions } from '../prices/price-book-versions.ts'
import { minutesOf, recomputedRanges } from './minutes-of.ts'

/** Called now and then while a range is worked through; times are epoch milliseconds of event time. */
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
  /** By model and tenant, sorted; beyond MAX_NAMED those with the least money are summed up as `other`. */
  by: (MoneyChange & { model: string | null; tenant: string | null })[]
  /** How many (model, tenant) are in `other`. */
  others: number
  /** Frozen days in the range, as 2026-01-31: they are skipped. */
  skipped_days: string[]
}

export interface PriceChangeOptions {
  ledger: LedgerStore
  /** Whole minutes, epoch milliseconds, `toMs` exclusive. */
  fromMs: number
  toMs: number
  /** The version that the range is priced with afterwards. */
  bookVersion: number
  /** The clock's time, up to which unreported commitments count. */
  nowMs?: number
  onProgress?: OnRangeProgress | undefined
}

/** The summary is kept in the revision, which every keeper reads often: it must not grow with the number of tenants. */
const MAX_NAMED = 200

/** How far back `prices set` looks, milliseconds. */
export const WHAT_IF_MS = DAY_MS

/** What pinning a range to a version changes. Rejects with a RangeError for an unknown version, or a StoreError. */
export async function priceChange(options: PriceChangeOptions): Promise<PriceChange> {
  const { ledger, fromMs, toMs, bookVersion, nowMs = Date.now(), onProgress } = options
  const books = new PriceBookVersions(ledger)
  await books.refresh()
  const after = books.bookByVersion(bookVersion)
  const days = await ClosedDays.read(ledger)
  const changes = new Changes()
  let cells = 0
  for (const range of await recomputedRanges(ledger, days, { fromMs, toMs, nowMs })) {
    const minutes = minutesOf(ledger, { ...range, nowMs }, (minuteMs) => [books.bookFor(minuteMs), after])
    for await (const { startMs, hosts, inputs } of minutes) {
      const before = books.bookFor(startMs)
      for (const host of hosts) {
        cells++
        changes.add('before', inputs.cell(host, before).rows)
        changes.add('after', inputs.cell(host, after).rows)
      }
      onProgress?.({ doneToMs: startMs + CELL_MS, fromMs, toMs, cells })
    }
  }
  const range = { from: new Date(fromMs).toISOString(), to: new Date(toMs).toISOString(), cells }
  return { ...range, ...changes.total(), ...changes.byModelAndTenant(), skipped_days: days.frozenWithin(fromMs, toMs) }
}

interface Money {
  before: bigint
  after: bigint
  beforeUncovered: bigint
  afterUncovered: bigint
}

interface NamedMoney extends Money {
  model: string | null
  tenant: string | null
}

class Changes {
  readonly #all: NamedMoney[] = []
  readonly #byModel = new Map<string | null, Map<string | null, NamedMoney>>()

  add(side: 'before' | 'after', rows: readonly CellRow[]): void {
    for (const row of rows) {
      const money = this.#moneyOf(row)
      money[side] += totalNanoUsd(row)
      money[`${side}Uncovered`] += row.uncovered_nano_usd
    }
  }

  total(): MoneyChange {
    return asText(sumOf(this.#all))
  }

  byModelAndTenant(): Pick<PriceChange, 'by' | 'others'> {
    const weight = (money: Money) => money.before + money.after + money.beforeUncovered + money.afterUncovered
    const ranked = this.#all.toSorted((a, b) => (weight(a) > weight(b) ? -1 : 1))
    const by = ranked
      .slice(0, MAX_NAMED)
      .map((money) => ({ model: money.model, tenant: money.tenant, ...asText(money) }))
      .sort((a, b) => compareText(a.model, b.model) || compareText(a.tenant, b.tenant))
    const rest = ranked.slice(MAX_NAMED)
    if (rest.length > 0) by.push({ model: OTHER_NAME, tenant: OTHER_NAME, ...asText(sumOf(rest)) })
    return { by, others: rest.length }
  }

  #moneyOf({ model, tenant }: CellRow): NamedMoney {
    const ofModel = this.#byModel.get(model) ?? new Map<string | null, NamedMoney>()
    const known = ofModel.get(tenant)
    if (known !== undefined) return known
    const money = { model, tenant, before: 0n, after: 0n, beforeUncovered: 0n, afterUncovered: 0n }
    this.#all.push(money)
    this.#byModel.set(model, ofModel.set(tenant, money))
    return money
  }
}

function sumOf(all: Iterable<Money>): Money {
  const total: Money = { before: 0n, after: 0n, beforeUncovered: 0n, afterUncovered: 0n }
  for (const money of all) {
    for (const field of Object.keys(total) as (keyof Money)[]) total[field] += money[field]
  }
  return total
}

function asText(money: Money): MoneyChange {
  return {
    before_nano_usd: String(money.before),
    after_nano_usd: String(money.after),
    before_uncovered_nano_usd: String(money.beforeUncovered),
    after_uncovered_nano_usd: String(money.afterUncovered),
  }
}
