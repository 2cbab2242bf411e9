// Adds the ledger's rows up into the rows of an answer. Spans come in order of time, and a step is the first part of a
// row's key, so that a step is complete when the next one begins: its rows are handed out and forgotten, and memory is
// bounded by the rows of one step, whatever the range. Sums are BigInt; nothing is rounded here.

import { floorTo, HOUR_MS } from '../domain/ledger/buckets.ts'
import { addAmounts, compareText, noAmounts, spreadNullIdle } from '../domain/ledger/rows.ts'
import type { CellRow, LedgerAmounts } from '../domain/ledger/types.ts'
import type { PriceKind } from '../domain/prices/price-rule.ts'
import { type CostQuery, type Grouping, stepEnd, stepStart } from './cost-query.ts'

/** What a row is about; null where unknown, or where the question does not group by it. */
export interface CostKey {
  model: string | null
  tenant: string | null
  host: string | null
  gpu_index: number | null
  gpu_uuid: string | null
  price_kind: PriceKind | null
}

/** A row of an answer before it is written in some format. */
export interface CostRow {
  startMs: number
  endMs: number
  key: CostKey
  amounts: LedgerAmounts
}

/** What is read of a span of the ledger. */
export interface CostBucket {
  startMs: number
  host: string | null
  rows: readonly CellRow[]
}

/** The most rows of one step: a limit of memory, about a kilobyte each. */
export const MAX_ROWS_PER_STEP = 200_000

/** A question whose step has more rows than fit in memory. */
export class TooManyRows extends Error {
  constructor(startMs: number, maxRows: number) {
    const at = new Date(startMs).toISOString()
    super(
      `Cannot group the step that begins at ${at}: more than ${maxRows} rows; group by less (tenant and gpu make most ` +
        'rows) or name a model, tenant or host',
    )
    this.name = 'TooManyRows'
  }
}

const NOBODY: CostKey = { model: null, tenant: null, host: null, gpu_index: null, gpu_uuid: null, price_kind: null }

export class CostGrouping {
  /** Sums of all rows that were added, before any of them is cut into pages. */
  readonly totals: LedgerAmounts = noAmounts()
  readonly #query: CostQuery
  readonly #maxRows: number
  readonly #has: Readonly<Record<Grouping, boolean>>
  #startMs = Number.NaN
  #groups = new Map<string, CostRow>()
  /** Rows of one hour by host, for idle that is spread over slot-hours; hours come whole or in minutes. */
  #hourMs = Number.NaN
  #hour = new Map<string | null, CellRow[]>()

  constructor(query: CostQuery, maxRows = MAX_ROWS_PER_STEP) {
    this.#query = query
    this.#maxRows = maxRows
    const has = (grouping: Grouping) => query.by.includes(grouping)
    this.#has = {
      model: has('model'),
      tenant: has('tenant'),
      host: has('host'),
      gpu: has('gpu'),
      price_kind: has('price_kind'),
    }
  }

  /** Adds a span, which must not be before the last one; answers the rows that are complete now. Throws TooManyRows. */
  add(span: CostBucket): CostRow[] {
    if (this.#query.idle === 'own') return this.#addRows(span.startMs, span.host, span.rows)
    const hourMs = floorTo(HOUR_MS, span.startMs)
    const complete = hourMs === this.#hourMs ? [] : this.#spreadHour()
    this.#hourMs = hourMs
    const rows = this.#hour.get(span.host)
    if (rows === undefined) this.#hour.set(span.host, [...span.rows])
    else rows.push(...span.rows)
    return complete
  }

  /** The rows that are left; nothing may be added after it. */
  finish(): CostRow[] {
    return [...this.#spreadHour(), ...this.#closeStep()]
  }

  #spreadHour(): CostRow[] {
    const complete: CostRow[] = []
    for (const [host, rows] of this.#hour) {
      // An hour at the edge of the range begins with the range.
      const startMs = Math.max(this.#hourMs, this.#query.fromMs)
      complete.push(...this.#addRows(startMs, host, spreadNullIdle(rows)))
    }
    this.#hour.clear()
    return complete
  }

  #addRows(atMs: number, host: string | null, rows: readonly CellRow[]): CostRow[] {
    const { model, tenant } = this.#query
    const startMs = stepStart(this.#query, atMs)
    const complete = startMs === this.#startMs ? [] : this.#closeStep()
    this.#startMs = startMs
    for (const row of rows) {
      if (model !== undefined && row.model !== model) continue
      if (tenant !== undefined && row.tenant !== tenant) continue
      addAmounts(this.#groupOf(row, host).amounts, row)
    }
    return complete
  }

  #groupOf(row: CellRow, host: string | null): CostRow {
    const has = this.#has
    let id = ''
    if (has.model) id += part(row.model)
    if (has.tenant) id += part(row.tenant)
    if (has.host || has.gpu) id += part(host)
    if (has.gpu) id += `${row.gpu_index}${part(row.gpu_uuid)}`
    if (has.price_kind) id += row.price_kind
    const known = this.#groups.get(id)
    if (known !== undefined) return known
    if (this.#groups.size >= this.#maxRows) throw new TooManyRows(this.#startMs, this.#maxRows)
    const key = { ...NOBODY }
    if (has.model) key.model = row.model
    if (has.tenant) key.tenant = row.tenant
    // An index says nothing without its host.
    if (has.host || has.gpu) key.host = host
    if (has.gpu) [key.gpu_index, key.gpu_uuid] = [row.gpu_index, row.gpu_uuid]
    if (has.price_kind) key.price_kind = row.price_kind
    const startMs = this.#startMs
    const group = { startMs, endMs: stepEnd(this.#query, startMs), key, amounts: noAmounts() }
    this.#groups.set(id, group)
    return group
  }

  #closeStep(): CostRow[] {
    const rows = [...this.#groups.values()].sort((a, b) => compareKeys(a.key, b.key))
    for (const row of rows) addAmounts(this.totals, row.amounts)
    this.#groups = new Map()
    return rows
  }
}

/** The rows of spans that come in order of time; the generator's result is their sum. For tests and small answers. */
export function groupSpans(query: CostQuery, spans: Iterable<CostBucket>): { rows: CostRow[]; totals: LedgerAmounts } {
  const grouping = new CostGrouping(query)
  const rows: CostRow[] = []
  for (const span of spans) rows.push(...grouping.add(span))
  rows.push(...grouping.finish())
  return { rows, totals: grouping.totals }
}

/** Order of the rows of a step: model, tenant, host, index, uuid, price kind; null before any text. */
export function compareKeys(a: CostKey, b: CostKey): number {
  return (
    compareText(a.model, b.model) ||
    compareText(a.tenant, b.tenant) ||
    compareText(a.host, b.host) ||
    (a.gpu_index ?? -1) - (b.gpu_index ?? -1) ||
    compareText(a.gpu_uuid, b.gpu_uuid) ||
    compareText(a.price_kind, b.price_kind)
  )
}

/** A text as a part of a key: with its length, so that no two lists of texts make the same key. */
function part(text: string | null): string {
  return text === null ? '-' : `${text.length}:${text}`
}
