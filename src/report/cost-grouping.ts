// Groups rows of the ledger into rows of an answer. Buckets come in order of time, and a step is the first part of a
// row's key, so a step is complete when the next one begins: its rows are handed out and forgotten, and memory is
// bounded by the rows of one step, whatever the range. Sums are BigInt; nothing is rounded here. The order of rows is
// total, so a cursor is the start and key of a page's last row, and the next page continues after it whatever was added
// meanwhile.

import { floorTo, HOUR_MS } from '../domain/ledger/buckets.ts'
import { addAmounts, compareText, isNothingToReport, noAmounts, spreadNullIdle } from '../domain/ledger/rows.ts'
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

/** A row of an answer before it is formatted. */
export interface CostRow {
  startMs: number
  endMs: number
  key: CostKey
  amounts: LedgerAmounts
}

/** What is read of a bucket of the ledger. */
export interface CostBucket {
  startMs: number
  host: string | null
  rows: readonly CellRow[]
}

/** The most rows of one step: a limit of memory, about a kilobyte each. */
const MAX_ROWS_PER_STEP = 200_000

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

/** The key of a row that is grouped by nothing. */
export const EMPTY_KEY: Readonly<CostKey> = {
  model: null,
  tenant: null,
  host: null,
  gpu_index: null,
  gpu_uuid: null,
  price_kind: null,
}

export class CostGrouping {
  /** Sums of all rows that were added, before any of them is cut into pages. */
  readonly totals: LedgerAmounts = noAmounts()
  readonly #query: CostQuery
  readonly #maxRows: number
  readonly #has: Readonly<Record<Grouping, boolean>>
  #startMs = Number.NaN
  #groups = new Map<string, CostRow>()
  /** Rows of one hour by host, for idle that is spread over slot-hours; an hour comes whole or in minutes. */
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

  /** Adds a bucket, not before the last one; returns the rows that are complete now. Throws TooManyRows. */
  add(bucket: CostBucket): CostRow[] {
    if (this.#query.idle === 'own') return this.#addRows(bucket.startMs, bucket.host, bucket.rows)
    const hourMs = floorTo(HOUR_MS, bucket.startMs)
    const complete = hourMs === this.#hourMs ? [] : this.#spreadHour()
    this.#hourMs = hourMs
    const rows = this.#hour.get(bucket.host)
    if (rows === undefined) this.#hour.set(bucket.host, [...bucket.rows])
    else rows.push(...bucket.rows)
    return complete
  }

  /** The remaining rows; nothing may be added afterwards. */
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
    const key = { ...EMPTY_KEY }
    if (has.model) key.model = row.model
    if (has.tenant) key.tenant = row.tenant
    // An index means nothing without its host.
    if (has.host || has.gpu) key.host = host
    if (has.gpu) [key.gpu_index, key.gpu_uuid] = [row.gpu_index, row.gpu_uuid]
    if (has.price_kind) key.price_kind = row.price_kind
    const startMs = this.#startMs
    const group = { startMs, endMs: stepEnd(this.#query, startMs), key, amounts: noAmounts() }
    this.#groups.set(id, group)
    return group
  }

  #closeStep(): CostRow[] {
    // A share of time and money that is rounded to nothing has no basis, and no line of an invoice.
    const rows = [...this.#groups.values()].filter(({ amounts }) => !isNothingToReport(amounts))
    rows.sort((a, b) => compareKeys(a.key, b.key))
    for (const row of rows) addAmounts(this.totals, row.amounts)
    this.#groups = new Map()
    return rows
  }
}

/** Order of the rows of a step: model, tenant, host, index, uuid, price kind; null before any text. */
function compareKeys(a: CostKey, b: CostKey): number {
  return (
    compareText(a.model, b.model) ||
    compareText(a.tenant, b.tenant) ||
    compareText(a.host, b.host) ||
    (a.gpu_index ?? -1) - (b.gpu_index ?? -1) ||
    compareText(a.gpu_uuid, b.gpu_uuid) ||
    compareText(a.price_kind, b.price_kind)
  )
}

/** Length-prefixed, so no two lists of texts make the same key. */
function part(text: string | null): string {
  return text === null ? '-' : `${text.length}:${text}`
}

/** Where a page ended: what a cursor encodes. */
export type PageEnd = Pick<CostRow, 'startMs' | 'key'>

/** The cursor of a page that ends with a row. */
export function cursorAfter({ startMs, key }: PageEnd): string {
  const { model, tenant, host, gpu_index, gpu_uuid, price_kind } = key
  const fields = [startMs, model, tenant, host, gpu_index, gpu_uuid, price_kind]
  return Buffer.from(JSON.stringify(fields)).toString('base64url')
}

/** What a cursor encodes; null for anything that is no cursor, as it comes from a client. */
export function parseCursor(cursor: string): PageEnd | null {
  let fields: unknown
  try {
    fields = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'))
  } catch {
    return null
  }
  if (!Array.isArray(fields) || fields.length !== 7) return null
  const [startMs, model, tenant, host, gpu_index, gpu_uuid, price_kind] = fields as unknown[]
  const areTexts = [model, tenant, host, gpu_uuid, price_kind].every(
    (field) => field === null || typeof field === 'string',
  )
  if (!areTexts || !Number.isSafeInteger(startMs) || !(gpu_index === null || Number.isSafeInteger(gpu_index)))
    return null
  return { startMs: startMs as number, key: { model, tenant, host, gpu_index, gpu_uuid, price_kind } as CostKey }
}

/** Whether a row comes after the end of a page. */
export function isAfter(row: PageEnd, end: PageEnd): boolean {
  return row.startMs > end.startMs || (row.startMs === end.startMs && compareKeys(row.key, end.key) > 0)
}
