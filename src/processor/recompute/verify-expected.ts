// What a span of the ledger should be, and how a stored one is held against it. Cells are computed from single documents
// with the version of the price book that the stored cell records; hours and days are sums of the stored cells and hours.
// One span can be asked by itself: what looked wrong while the keeper worked is asked again before it is called wrong.

import { type BucketLevel, CELL_MS, LEVELS, type RollupLevel } from '../../domain/ledger/buckets.ts'
import { computeCell } from '../../domain/ledger/cell.ts'
import { AMOUNT_FIELDS, rowTotalsOf } from '../../domain/ledger/rows.ts'
import type { CellRow, LedgerSample, RowTotals, TokenTotals } from '../../domain/ledger/types.ts'
import type { LedgerBucket, LedgerStore } from '../../store/ledger-store.ts'
import { EventCellInputs } from '../ledger/raw-minutes.ts'
import { RollupBuilder } from '../ledger/rollup-keeper.ts'
import type { PriceBookVersions } from '../prices/price-book-versions.ts'

/** Which span is meant. */
export interface BucketKey {
  level: BucketLevel
  startMs: number
  host: string | null
}

/** What differs between what was expected and what is stored. */
export interface Mismatch {
  what: 'missing' | 'rows' | 'book version' | 'capped' | 'sum' | 'sums'
  expected: string
  found: string
}

/** What a span is compared by. */
export type Expected = Pick<LedgerBucket, 'rows' | 'bookVersions' | 'capped'>

/** The cell as single documents say it. A cell that exists is computed with the version that it records. */
export function expectedCell(
  books: PriceBookVersions,
  place: { startMs: number; host: string | null; stored: LedgerBucket | undefined },
  events: { samples: readonly LedgerSample[]; tokenTotals: readonly TokenTotals[] },
): Expected {
  const { startMs, host, stored } = place
  const recorded = stored?.bookVersions[0]
  const isKnown = recorded !== undefined && books.versions.some(({ version }) => version === recorded)
  const book = isKnown ? books.bookByVersion(recorded) : books.bookFor(startMs)
  const { rows, capped } = computeCell({ startMs, host, ...events, book })
  // The version that should have been recorded, whatever it was computed with.
  return { rows, capped, bookVersions: [books.versionFor(startMs)] }
}

/** How a stored span differs, null when it does not. A span without rows may as well not exist. */
export function mismatchOf(level: BucketLevel, expected: Expected, stored: LedgerBucket | undefined): Mismatch | null {
  if (stored === undefined) {
    if (expected.rows.length === 0) return null
    return { what: 'missing', expected: `${expected.rows.length} rows`, found: 'no span' }
  }
  if (!isSameList(stored.bookVersions, expected.bookVersions)) {
    return { what: 'book version', expected: String(expected.bookVersions), found: String(stored.bookVersions) }
  }
  const rows = differingRows(expected.rows, stored.rows)
  if (rows !== null) return { what: level === 'minute' ? 'rows' : 'sum', ...rows }
  const sums = differingSums(rowTotalsOf(expected.rows), stored.totals)
  if (sums !== null) return { what: 'sums', ...sums }
  if (stored.capped !== expected.capped) {
    return { what: 'capped', expected: String(expected.capped), found: String(stored.capped) }
  }
  return null
}

/** Compares one span by itself, from documents and spans that are read now. */
export async function compareAlone(
  { ledger, books }: { ledger: LedgerStore; books: PriceBookVersions },
  place: BucketKey,
): Promise<{ mismatch: Mismatch | null; rev: number }> {
  const { level, startMs, host } = place
  let stored: LedgerBucket | undefined
  for await (const span of ledger.readBuckets(level, startMs, startMs + 1, [host])) stored = span
  const expected =
    level === 'minute'
      ? await cellAlone({ ledger, books }, { startMs, host, stored })
      : await sumAlone(ledger, { level, startMs, host })
  return { mismatch: mismatchOf(level, expected, stored), rev: stored?.rev ?? 0 }
}

async function cellAlone(
  { ledger, books }: { ledger: LedgerStore; books: PriceBookVersions },
  place: { startMs: number; host: string | null; stored: LedgerBucket | undefined },
): Promise<Expected> {
  const { startMs, host } = place
  const raw = new EventCellInputs(ledger, { fromMs: startMs, toMs: startMs + CELL_MS })
  try {
    await raw.moveTo(startMs)
    return expectedCell(books, place, raw.events(host))
  } finally {
    await raw.close()
  }
}

async function sumAlone(
  ledger: LedgerStore,
  { level, startMs, host }: { level: RollupLevel; startMs: number; host: string | null },
): Promise<Expected> {
  const { sumOf, lengthMs } = LEVELS[level]
  const sum = new RollupBuilder()
  for await (const part of ledger.readBuckets(sumOf, startMs, startMs + lengthMs, [host])) sum.add(part)
  return sum.span()
}

/** The first pair of rows that differ, as text; null when all are the same. */
function differingRows(
  expected: readonly CellRow[],
  found: readonly CellRow[],
): { expected: string; found: string } | null {
  for (let i = 0; i < Math.max(expected.length, found.length); i++) {
    const a = expected[i]
    const b = found[i]
    if (a === undefined || b === undefined) return { expected: rowText(a), found: rowText(b) }
    if (ROW_FIELDS.every((field) => a[field] === b[field])) continue
    const fields = ROW_FIELDS.filter((field) => a[field] !== b[field])
    return { expected: rowText(a, fields), found: rowText(b, fields) }
  }
  return null
}

/** Sums by model and by tenant that differ. A span without sums is only slower to ask. */
function differingSums(
  expected: RowTotals | null,
  found: RowTotals | null,
): { expected: string; found: string } | null {
  if (found === null) return null
  return differingRows(expected?.model ?? [], found.model) ?? differingRows(expected?.tenant ?? [], found.tenant)
}

function isSameList(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((one, i) => one === b[i])
}

const KEY_FIELDS = ['gpu_index', 'gpu_uuid', 'model', 'tenant', 'price_kind'] as const
const ROW_FIELDS = [...KEY_FIELDS, 'gpu_name', ...AMOUNT_FIELDS, 'energy_mj', 'basis', 'method'] as const

/** A row for people: its key, and of the rest what differs. */
function rowText(row: CellRow | undefined, differing: readonly (keyof CellRow)[] = []): string {
  if (row === undefined) return 'no such row'
  const fields = new Set<keyof CellRow>([...KEY_FIELDS, ...differing])
  return [...fields].map((field) => `${field}=${row[field] ?? 'null'}`).join(' ')
}
