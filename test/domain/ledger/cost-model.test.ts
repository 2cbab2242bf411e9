// Every example of docs/cost-model.md is run as it stands there: its events go through the ledger, and the rows that
// come out must be exactly those that the page lists, money to the last 10⁻⁹ USD. A reader can trust the page, and
// whoever changes a rule has to change the page.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { parse } from 'yaml'
import { spreadNullIdle, totalNanoUsd } from '../../../src/domain/ledger/rows.ts'
import type { CellRow } from '../../../src/domain/ledger/types.ts'
import { nanoUsd } from '../../../src/domain/prices/money.ts'
import { PriceBook } from '../../../src/domain/prices/price-book.ts'
import { checkPriceBook, problemText } from '../../../src/domain/prices/price-book-check.ts'
import { ledgerRows, type Sample, type Usage } from '../../oracle/ledger-harness.ts'
import { sumRows } from '../../report/rows.ts'

interface Example {
  example: string
  book?: object
  minutes?: number
  idle?: 'own' | 'spread'
  samples?: ({ at: number } & Partial<Sample>)[]
  tokens?: ({ at: number } & Partial<Usage>)[]
  rows: Record<string, unknown>[]
  figures?: Record<string, number | null>
}

const T0 = Date.UTC(2026, 0, 15, 12, 0)
const page = readFileSync(new URL('../../../docs/cost-model.md', import.meta.url), 'utf8')
const blocks = [...page.matchAll(/^```yaml\n(.*?)^```$/gms)].map((found) => parse(found[1]!) as Example)

/** Money that must be 0 where the page does not list it. */
const MONEY = ['busy', 'loaded_idle', 'unallocated', 'uncovered', 'assumed'] as const
const SECONDS = ['covered', 'assumed', 'uncovered'] as const
const ALWAYS: Record<string, unknown> = { gpu_index: 0, model: null, tenant: null }
for (const name of MONEY) ALWAYS[`${name}_usd`] = 0
for (const name of SECONDS) ALWAYS[`${name}_s`] = 0

test('the page has its examples', () => assert.ok(blocks.length >= 15))

for (const block of blocks) {
  test(`example: ${block.example}`, () => {
    const found = run(block)
    assert.deepEqual(
      found.map((row, i) => pick(row, { ...ALWAYS, ...block.rows[i] })),
      block.rows.map((row) => expected({ ...ALWAYS, ...row })),
    )
    for (const [name, figure] of Object.entries(block.figures ?? {})) {
      const value = figureOf(name, found)
      if (figure === null || value === null) assert.equal(value, figure)
      else assert.ok(Math.abs(value - figure) < 1e-6, `${name} is ${value}`)
    }
  })
}

function run(block: Example): CellRow[] {
  const { book, problems } = checkPriceBook({ currency: 'USD', rules: [], ...block.book })
  assert.deepEqual(problems.map(problemText), [])
  const place = <T extends { at: number }>({ at, ...fields }: T, i: number) => {
    const where = 'gpus' in fields ? {} : { gpu_index: 0 }
    return { _id: `pt1e:${i}`, host: 'h', ...where, ...fields, ts: new Date(T0 + at * 1000) }
  }
  const samples = (block.samples ?? []).map(place) as unknown as Sample[]
  const usages = (block.tokens ?? []).map(place) as unknown as Usage[]
  const range = { fromMs: T0, toMs: T0 + (block.minutes ?? 1) * 60_000 }
  const cells = ledgerRows({ samples, usages }, range, new PriceBook(book!, 1))
  const rows = sumRows(cells.map(({ start: _, host: __, ...row }) => row))
  return block.idle === 'spread' ? spreadNullIdle(rows) : rows
}

/** The fields of a row that the page lists, in its units. */
function pick(row: CellRow, listed: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.keys(listed).map((name) => {
      if (name.endsWith('_usd')) return [name, row[`${name.slice(0, -4)}_nano_usd` as 'busy_nano_usd']]
      const value = name.endsWith('_s') ? row[`${name.slice(0, -2)}_ms` as 'covered_ms'] : row[name as keyof CellRow]
      return [name, value]
    }),
  )
}

/** The figures of the page, in the ledger's units. */
function expected(listed: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(listed).map(([name, value]) => {
      if (typeof value !== 'number' || name === 'gpu_index') return [name, value]
      if (name.endsWith('_usd')) return [name, nanoUsd(value)]
      return [name, BigInt(name.endsWith('_s') ? value * 1000 : value)]
    }),
  )
}

function figureOf(name: string, rows: readonly CellRow[]): number | null {
  const sum = (of: (row: CellRow) => bigint) => Number(rows.reduce((total, row) => total + of(row), 0n))
  if (name === 'usd_per_million_input_tokens' || name === 'usd_per_million_output_tokens') {
    // By hand: the share of the parts, of all the money.
    const input = sum((row) => row.input_nano_usd + row.cached_nano_usd)
    const output = sum((row) => row.output_nano_usd)
    const [part, of] = name.includes('input')
      ? [input, sum((row) => row.prompt_tokens)]
      : [output, sum((row) => row.completion_tokens)]
    return ((sum(totalNanoUsd) * part) / (input + output) / 1e9 / of) * 1e6
  }
  const tokens = sum((row) => row.prompt_tokens + row.completion_tokens)
  const money = sum((row) => (name === 'usd_per_million_tokens_busy' ? row.busy_nano_usd : totalNanoUsd(row)))
  return tokens === 0 ? null : (money / 1e9 / tokens) * 1e6
}
