// Rows of cost as a table for a terminal: only the groupings of the question, numbers right-aligned, the totals last.
// Names are untrusted input, so control characters (which could move the cursor or set a title) are shown as escapes.

import { TOO_FEW_TOKENS } from '../domain/live/few-tokens.ts'
import type { CostFigures } from './cost-figures.ts'
import type { CostQuery } from './cost-query.ts'

interface Column {
  title: string
  text(row: CostFigures): string
  isNumber: boolean
}

/** Who or what it was for, unknown: null in JSON. */
const NO_OWNER = '(none)'

const GROUPING_COLUMNS: Record<CostQuery['by'][number], Column> = {
  model: column('model', ({ model }) => model ?? NO_OWNER),
  tenant: column('tenant', ({ tenant }) => tenant ?? NO_OWNER),
  host: column('host', ({ host }) => host ?? NO_OWNER),
  gpu: column('gpu', ({ host, gpu_index }) => (gpu_index === null ? '-' : `${host ?? NO_OWNER}/${gpu_index}`)),
  price_kind: column('price', ({ price_kind }) => price_kind ?? '-'),
}

const FIGURE_COLUMNS: Column[] = [
  figure('requests', ({ requests }) => grouped(requests)),
  figure('input', ({ prompt_tokens }) => grouped(prompt_tokens)),
  figure('output', ({ completion_tokens }) => grouped(completion_tokens)),
  figure('busy $', ({ busy_usd }) => money(busy_usd)),
  figure('idle, model loaded $', ({ loaded_idle_usd }) => money(loaded_idle_usd)),
  figure('idle, nothing loaded $', ({ unallocated_usd }) => money(unallocated_usd)),
  figure('total $', ({ total_usd }) => money(total_usd)),
  figure('not monitored $', ({ uncovered_usd }) => money(uncovered_usd)),
  figure('$/1M', (row) => price(row, row.usd_per_million_tokens)),
  figure('$/1M busy', (row) => price(row, row.usd_per_million_tokens_busy)),
  figure('measured', ({ measured_token_share: share }) => (share === null ? '-' : `${Math.round(share * 100)} %`)),
]

/** The table's text, line end included. */
export function costTable(
  query: Pick<CostQuery, 'by' | 'step'>,
  rows: readonly CostFigures[],
  totals: CostFigures,
): string {
  const groupings = query.by.map((grouping) => GROUPING_COLUMNS[grouping])
  const times = query.step === 'all' ? [] : [column('start', ({ start }) => start.slice(0, 16).replace('T', ' '))]
  const columns = [...times, ...groupings, ...FIGURE_COLUMNS]
  const body = rows.map((row) => columns.map((column) => column.text(row)))
  const last = columns.map((column) => (column.isNumber ? column.text(totals) : ''))
  if (last[0] === '') last[0] = 'total'
  return textTable(
    columns.map(({ title }) => title),
    [...body, last],
    columns.map(({ isNumber }) => isNumber),
  )
}

/** Lines of columns two spaces apart; `right`: which columns are right-aligned. */
export function textTable(header: string[], rows: readonly string[][], right: readonly boolean[]): string {
  const lines = [header, ...rows].map((line) => line.map(visible))
  const widths = header.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)))
  const pad = (text: string, i: number) => (right[i] === true ? text.padStart(widths[i]!) : text.padEnd(widths[i]!))
  return lines.map((line) => `${line.map(pad).join('  ').trimEnd()}\n`).join('')
}

function column(title: string, text: (row: CostFigures) => string): Column {
  return { title, text, isNumber: false }
}

function figure(title: string, text: (row: CostFigures) => string): Column {
  return { title, text, isNumber: true }
}

function grouped(value: number): string {
  return value.toLocaleString('en-US')
}

/** Four decimals, more where they would all be zeros. */
function money(value: number | null): string {
  if (value === null) return '-'
  const digits = value !== 0 && Math.abs(value) < 0.001 ? 9 : 4
  return value.toLocaleString('en-US', { minimumFractionDigits: 4, maximumFractionDigits: digits })
}

/** A cost of a million tokens. */
function price({ too_few_tokens }: CostFigures, value: number | null): string {
  return too_few_tokens ? TOO_FEW_TOKENS : money(value)
}

/** Control characters, those of text direction too, as escapes. */
function visible(text: string): string {
  return text.replace(
    /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
