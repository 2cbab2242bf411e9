// CSV as defined by RFC 4180: CRLF, quotes where a cell needs them, a header. Null is an empty cell. In a file for
// people, text cells that a spreadsheet would evaluate as a formula (= + - @, a tab, a line end first) get an
// apostrophe in front, because model and tenant names are untrusted input; numbers are never changed. A file for
// programs has every text as it is: an altered id or name would match nothing.

import { FIGURE_NAMES, figuresOf } from './cost-figures.ts'
import type { CostRow } from './cost-grouping.ts'

export type CsvCell = string | number | boolean | null

/** A line of cells with their texts as they are, with its line end. */
export function csvLine(cells: readonly CsvCell[]): string {
  return `${cells.map(cellText).join(',')}\r\n`
}

/** A line of cells for a spreadsheet: none of its texts is evaluated. */
export function spreadsheetLine(cells: readonly CsvCell[]): string {
  return csvLine(cells.map((cell) => (typeof cell === 'string' && /^[=+\-@\t\r\n]/.test(cell) ? `'${cell}` : cell)))
}

/** Lines are yielded in pieces of about this many characters. */
export const PIECE_CHARS = 65_536

/** Rows of cost as a file for people, in pieces. */
export function costCsv(rows: AsyncIterable<CostRow>): AsyncGenerator<string, void, undefined> {
  return csvFile(rows, FIGURE_NAMES, (row) => {
    const figures = figuresOf(row)
    return spreadsheetLine(FIGURE_NAMES.map((name) => figures[name]))
  })
}

/** A header and the lines of rows, in pieces; the header comes even where there are no rows. */
export async function* csvFile(
  rows: AsyncIterable<CostRow>,
  columns: readonly string[],
  linesOf: (row: CostRow) => string,
): AsyncGenerator<string, void, undefined> {
  let piece = csvLine(columns)
  for await (const row of rows) {
    piece += linesOf(row)
    if (piece.length < PIECE_CHARS) continue
    yield piece
    piece = ''
  }
  if (piece !== '') yield piece
}

function cellText(cell: CsvCell): string {
  if (cell === null) return ''
  if (typeof cell === 'number') return plainNumber(cell)
  if (typeof cell === 'boolean') return String(cell)
  return /[",\r\n]/.test(cell) || cell.trim() !== cell ? `"${cell.replaceAll('"', '""')}"` : cell
}

/** A number without exponent: not every reader of CSV parses 1e-9. */
export function plainNumber(value: number): string {
  const text = String(value)
  if (!text.includes('e')) return text
  if (Math.abs(value) >= 1) return BigInt(Math.round(value)).toString()
  return value.toFixed(20).replace(/\.?0+$/, '')
}
