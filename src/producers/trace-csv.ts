// The rows of a CSV trace as events, by their columns: which column is what follows from its name, in the spelling of
// any of the public traces (Azure's of 2023 and 2024, its multimodal one, BurstGPT, Vidur) or of our own fields; case,
// spaces, signs and quotes do not matter, nor the order. Cells are separated by comma, semicolon or tab, and may be
// quoted (RFC 4180), but a line break inside a cell is not read. Columns that are not known are named once.

import { type ParsedLine, quote, unreadText, wrongLine } from './parsed-line.ts'
import type { TraceClock } from './trace-time.ts'

export const HEADER = 'TIMESTAMP,ContextTokens,GeneratedTokens'
const ROW_EXAMPLE = '2023-11-16 18:17:03.9799600,4808,10'
const DELIMITERS = [',', ';', '\t']
const REQUIRED = ['ts', 'prompt_tokens', 'completion_tokens'] as const

/** Names of columns, in lower case and letters and digits only, by the field that they are. */
const FIELDS: Readonly<Record<string, readonly string[]>> = {
  ts: ['timestamp', 'ts', 'time', 'arrivedat'],
  prompt_tokens: ['contexttokens', 'requesttokens', 'prompttokens', 'inputtokens', 'inputlength', 'numprefilltokens'],
  completion_tokens: [
    'generatedtokens',
    'responsetokens',
    'completiontokens',
    'outputtokens',
    'outputlength',
    'numdecodetokens',
  ],
  model: ['model'],
  host: ['host'],
  tenant: ['tenant'],
  gpu_index: ['gpuindex'],
  latency_ms: ['latencyms'],
  event_id: ['eventid'],
}
const NUMBERS: ReadonlySet<string> = new Set(['gpu_index', 'latency_ms'])

interface Column {
  /** As the header writes it. */
  name: string
  /** Null: not known, its cells are not read. */
  field: string | null
}

/** Reads the rows below one header. */
export class CsvReader {
  readonly #columns: readonly Column[]
  readonly #delimiter: string
  readonly #clock: TraceClock

  private constructor(columns: readonly Column[], delimiter: string, clock: TraceClock) {
    this.#columns = columns
    this.#delimiter = delimiter
    this.#clock = clock
  }

  /** The reader of a header's rows, or what is wrong with the header. */
  static of(header: string, clock: TraceClock): CsvReader | string {
    if (/^\s*\[/.test(header)) {
      return "Is a JSON array: expected one JSON object a line; convert it, as by jq -c '.[]'"
    }
    const tables = DELIMITERS.map((delimiter) => ({ delimiter, columns: columnsOf(header, delimiter) }))
    // The separator that most known columns result from.
    const { delimiter, columns } = tables.toSorted((a, b) => knownIn(b.columns) - knownIn(a.columns))[0]!
    const missing = REQUIRED.filter((field) => !columns.some((column) => column.field === field))
    if (missing.length > 0) {
      return `Header is ${quote(header)}: expected "${HEADER}" or other columns that are ${REQUIRED.join(', ')} (missing: ${missing.join(', ')}), or JSON lines`
    }
    for (const field of Object.keys(FIELDS)) {
      const names = columns.filter((column) => column.field === field).map(({ name }) => quote(name))
      if (names.length > 1) {
        return `Header is ${quote(header)}: expected one column that is ${field}, found ${names.join(' and ')}; rename one`
      }
    }
    return new CsvReader(columns, delimiter, clock)
  }

  /** Columns that are not read; null when all are. */
  get note(): string | null {
    const names = this.#columns.filter(({ field }) => field === null).map(({ name }) => name)
    return names.length === 0 ? null : unreadText(names)
  }

  read(text: string): ParsedLine {
    const cells = splitCells(text, this.#delimiter)
    if (cells === null) return wrongLine('Row has a quote that is not closed: expected "…" around the whole cell')
    if (cells.length !== this.#columns.length) {
      const isPublished = this.#columns.length === REQUIRED.length
      const example = isPublished ? `like ${ROW_EXAMPLE}` : 'as the header has'
      const found = `${cells.length} column${cells.length === 1 ? '' : 's'}`
      return wrongLine(`Row has ${found}: expected ${this.#columns.length} ${example}`)
    }
    const event: Record<string, unknown> = {}
    const issues: string[] = []
    for (const [i, { name, field }] of this.#columns.entries()) {
      const cell = cells[i]!.trim()
      if (field === 'ts') {
        const ms = this.#clock.read(name, cell, 's')
        if (typeof ms === 'number') event['ts'] = isoOf(ms) ?? cell
        else if (ms.isFatal) return ms
        else issues.push(ms.error)
      } else if (field === 'prompt_tokens' || field === 'completion_tokens') {
        // Spreadsheets and data frames write a count with missing neighbours as a decimal.
        if (/^\d{1,10}(\.0+)?$/.test(cell)) event[field] = Number(cell)
        else issues.push(`${name} is ${quote(cell)}: expected an integer from 0 to 1000000000`)
      } else if (field !== null && cell !== '') {
        const number = NUMBERS.has(field) ? Number(cell) : Number.NaN
        event[field] = Number.isNaN(number) ? cell : number
      }
    }
    return issues.length > 0 ? wrongLine(issues.join('; ')) : { event }
  }
}

function columnsOf(header: string, delimiter: string): Column[] {
  return (splitCells(header, delimiter) ?? []).map((cell) => {
    const name = cell.trim()
    const plain = name.toLowerCase().replaceAll(/[^a-z\d]/g, '')
    const field = Object.keys(FIELDS).find((key) => FIELDS[key]!.includes(plain)) ?? null
    return { name, field }
  })
}

function knownIn(columns: readonly Column[]): number {
  return columns.filter(({ field }) => field !== null).length
}

/** The cells of a row; null when a quote is not closed or not followed by the delimiter. */
function splitCells(text: string, delimiter: string): string[] | null {
  if (!text.includes('"')) return text.split(delimiter)
  const cells: string[] = []
  for (let at = 0; ; ) {
    const start = at + /^[^\S\t]*/.exec(text.slice(at))![0].length
    let end: number
    if (text[start] === '"') {
      let cell = ''
      let from = start + 1
      for (end = text.indexOf('"', from); end !== -1 && text[end + 1] === '"'; end = text.indexOf('"', from)) {
        cell += text.slice(from, end + 1)
        from = end + 2
      }
      if (end === -1) return null
      cells.push(cell + text.slice(from, end))
      const rest = text.slice(end + 1).search(/[^ ]/)
      if (rest === -1) return cells
      end += 1 + rest
      if (text[end] !== delimiter) return null
    } else {
      end = text.indexOf(delimiter, at)
      cells.push(end === -1 ? text.slice(at) : text.slice(at, end))
      if (end === -1) return cells
    }
    at = end + 1
  }
}

/** Null for an instant that no date has. */
function isoOf(ms: number): string | null {
  return Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : null
}
