// What a bucket of the ledger should be, and how the stored one differs. Cells are computed from single documents with
// the version of the price book that the stored cell records; hours and days are sums of the stored cells and hours. A
// bucket that differed while a keeper worked is compared again, on its own, before it is reported.

import { type BucketLevel, CELL_MS, HOUR_MS, LEVELS, type RollupLevel } from '../../domain/ledger/buckets.ts'
import { AMOUNT_FIELDS, rowTotalsOf } from '../../domain/ledger/rows.ts'
import type { CellRow, RowTotals } from '../../domain/ledger/types.ts'
import type { LedgerBucket, LedgerStore } from '../../store/ledger-store.ts'
import { type CellInputs, documentInputs } from '../ledger/cell-inputs.ts'
import { RollupBuilder } from '../ledger/rollup-keeper.ts'
import type { MinuteTokenAggregator } from '../ledger/token-aggregator.ts'
import type { PriceBookVersions } from '../prices/price-book-versions.ts'

interface BucketKey {
  level: BucketLevel
  startMs: number
  host: string | null
}

/** What differs between the expected and the stored bucket. */
interface Mismatch {
  what: 'missing' | 'rows' | 'book version' | 'capped' | 'sum' | 'sums'
  expected: string
  found: string
}

/** One bucket that differs from what the raw documents give. */
export interface Difference {
  level: BucketLevel
  /** Start of the bucket, ISO 8601. */
  start: string
  host: string | null
  /**
   * `missing`, `rows`, `book version`, `capped`, `sum` (an hour or day), `sums` (by model or tenant), `token totals`,
   * `grouping` (the store's columns are not what its documents are).
   */
  what: string
  expected: string
  found: string
}

/** The fields of a bucket that are compared. */
type ExpectedBucket = Pick<LedgerBucket, 'rows' | 'bookVersions' | 'capped'>

/**
 * The cell of the minute that `inputs` are at, and the names whose events it has. A cell that exists is computed with
 * the version that it records.
 */
export function expectedCell(
  books: PriceBookVersions,
  inputs: CellInputs<MinuteTokenAggregator>,
  { startMs, host, stored }: { startMs: number; host: string | null; stored: LedgerBucket | undefined },
): ExpectedBucket & { names: readonly (string | null)[] } {
  const recorded = stored?.bookVersions[0]
  const isKnown = recorded !== undefined && books.versions.some(({ version }) => version === recorded)
  const book = isKnown ? books.bookByVersion(recorded) : books.bookFor(startMs)
  const { rows, overflow } = inputs.cell(host, book)
  // The version that should have been recorded, whatever it was computed with.
  const names = book.hosts.namesOf(host)
  return { rows, capped: overflow, bookVersions: [books.versionFor(startMs)], names }
}

/** How a stored bucket differs, null when it does not. A bucket without rows need not exist. */
export function mismatchOf(
  level: BucketLevel,
  expected: ExpectedBucket,
  stored: LedgerBucket | undefined,
): Mismatch | null {
  if (stored === undefined) {
    if (expected.rows.length === 0) return null
    return { what: 'missing', expected: `${expected.rows.length} rows`, found: 'no span' }
  }
  if (!isSameList(stored.bookVersions, expected.bookVersions)) {
    return { what: 'book version', expected: String(expected.bookVersions), found: String(stored.bookVersions) }
  }
  const rows = differingRows(expected.rows, stored.rows)
  if (rows !== null) return { what: level === 'minute' ? 'rows' : 'sum', ...rows }
  const totals = differingTotals(rowTotalsOf(expected.rows), stored.totals)
  if (totals !== null) return { what: 'sums', ...totals }
  if (stored.capped !== expected.capped) {
    return { what: 'capped', expected: String(expected.capped), found: String(stored.capped) }
  }
  return null
}

interface RecheckOptions {
  ledger: LedgerStore
  nowMs: number
  /** Marks what differs, so that the keeper recomputes it. */
  repair?: boolean
  signal?: AbortSignal
}

/** A keeper has marked all commitments of a new version or revision by then, milliseconds. */
const SWEEP_MS = HOUR_MS / 2

/** Buckets that wait to be compared again. */
const MAX_WAITING = 200
/** Differences that are kept with their texts. */
const MAX_NAMED = 20

/**
 * Buckets that differed, compared again some time later and on their own. While a keeper works, events and buckets that
 * were read at different moments do not fit together; so a bucket is only reported when it differs though nothing is
 * marked in it, before and after it was read again, and its rev did not change. Bounded: MAX_WAITING buckets wait, and
 * MAX_NAMED differences are kept with their texts; all are counted.
 */
export class MismatchRecheck {
  readonly differences: Difference[] = []
  differenceCount = 0
  pending = 0
  repaired = 0
  readonly #options: RecheckOptions
  readonly #books: PriceBookVersions
  #waiting: BucketKey[] = []

  constructor(options: RecheckOptions, books: PriceBookVersions) {
    this.#options = options
    this.#books = books
  }

  async add(key: BucketKey): Promise<void> {
    this.#waiting.push(key)
    if (this.#waiting.length >= MAX_WAITING) await this.settle()
  }

  /** Compares all waiting buckets again. */
  async settle(): Promise<void> {
    const waiting = this.#waiting
    this.#waiting = []
    await this.#books.refresh()
    for (const key of waiting) {
      this.#options.signal?.throwIfAborted()
      await this.#settleOne(key)
    }
  }

  async #settleOne(key: BucketKey): Promise<void> {
    const { ledger, repair } = this.#options
    const { level, startMs, host } = key
    if (await this.#isMarked(key)) {
      this.pending++
      return
    }
    const { mismatch, rev } = await compareAlone(ledger, this.#books, key)
    if (mismatch === null) return
    const revNow = (await ledger.readRevs(level, startMs, [host])).get(host) ?? 0
    if (revNow !== rev || (await this.#isMarked(key))) {
      this.pending++
      return
    }
    if (mismatch.what === 'missing' && this.#isBeingSwept(key)) {
      this.pending++
      if (repair === true) await this.#mark(key)
      return
    }
    this.differenceCount++
    if (this.differences.length < MAX_NAMED) {
      this.differences.push({ level, start: new Date(startMs).toISOString(), host, ...mismatch })
    }
    if (repair === true) await this.#mark(key)
  }

  async #mark({ level, startMs, host }: BucketKey): Promise<void> {
    const { ledger, nowMs } = this.#options
    await ledger.insertMarks(level, [{ startMs, hosts: [host] }], nowMs)
    this.repaired++
  }

  /** A keeper goes back over the commitments of a new version or revision, a day at a time. */
  #isBeingSwept({ level, startMs, host }: BucketKey): boolean {
    if (level !== 'minute' || host === null) return false
    const book = this.#books.bookFor(startMs)
    const isCommitted = book.committedHosts(startMs, startMs + CELL_MS).includes(host)
    return isCommitted && this.#books.pricedSinceMs(startMs) > this.#options.nowMs - SWEEP_MS
  }

  /** Whether a keeper is going to compute the bucket, or one of those that it is the sum of. */
  async #isMarked({ level, startMs, host }: BucketKey): Promise<boolean> {
    const { ledger } = this.#options
    // A mark of a joined name is one of the cell that has its events.
    const joined = this.#books.versions.length === 0 ? null : this.#books.bookFor(startMs).hosts
    const isNamed = async (markLevel: BucketLevel) =>
      (await ledger.readMarks(markLevel, startMs)).some((mark) =>
        mark.hosts.some((name) => name === host || joined?.nameOf(name) === host),
      )
    if (await isNamed(level)) return true
    if (level === 'minute') return false
    if (level === 'hour' && (await isNamed('minute'))) return true
    // Marks of other hosts count too here: to read each minute of a day is too much for a doubtful case.
    const fromMs = level === 'day' ? startMs : startMs + CELL_MS
    return (await ledger.pendingMarks(fromMs, startMs + LEVELS[level].lengthMs)) > 0
  }
}

/** Compares one bucket on its own, from documents and buckets that are read now. */
async function compareAlone(
  ledger: LedgerStore,
  books: PriceBookVersions,
  { level, startMs, host }: BucketKey,
): Promise<{ mismatch: Mismatch | null; rev: number }> {
  let stored: LedgerBucket | undefined
  for await (const bucket of ledger.readBuckets(level, startMs, startMs + 1, [host])) stored = bucket
  const expected =
    level === 'minute'
      ? await cellAlone(ledger, books, { startMs, host, stored })
      : await rollupAlone(ledger, level, { startMs, host })
  return { mismatch: mismatchOf(level, expected, stored), rev: stored?.rev ?? 0 }
}

async function cellAlone(
  ledger: LedgerStore,
  books: PriceBookVersions,
  cell: { startMs: number; host: string | null; stored: LedgerBucket | undefined },
): Promise<ExpectedBucket> {
  const inputs = documentInputs(ledger, { fromMs: cell.startMs, toMs: cell.startMs + CELL_MS })
  try {
    await inputs.moveTo(cell.startMs)
    return expectedCell(books, inputs, cell)
  } finally {
    await inputs.close()
  }
}

async function rollupAlone(
  ledger: LedgerStore,
  level: RollupLevel,
  { startMs, host }: { startMs: number; host: string | null },
): Promise<ExpectedBucket> {
  const { sumOf, lengthMs } = LEVELS[level]
  const builder = new RollupBuilder()
  for await (const component of ledger.readBuckets(sumOf, startMs, startMs + lengthMs, [host])) builder.add(component)
  return builder.build()
}

/** The first pair of rows that differ, as text; null when all are equal. */
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

/** Totals by model or by tenant that differ. A bucket without them is only slower to query. */
function differingTotals(
  expected: RowTotals | null,
  found: RowTotals | null,
): { expected: string; found: string } | null {
  if (found === null) return null
  return differingRows(expected?.model ?? [], found.model) ?? differingRows(expected?.tenant ?? [], found.tenant)
}

function isSameList(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((number, i) => number === b[i])
}

const KEY_FIELDS = ['gpu_index', 'gpu_uuid', 'model', 'tenant', 'price_kind'] as const
const ROW_FIELDS = [...KEY_FIELDS, 'gpu_name', ...AMOUNT_FIELDS, 'energy_mj', 'basis', 'method'] as const

/** A row as text: its key, and of the rest what differs. */
function rowText(row: CellRow | undefined, differing: readonly (keyof CellRow)[] = []): string {
  if (row === undefined) return 'no such row'
  const fields = new Set<keyof CellRow>([...KEY_FIELDS, ...differing])
  return [...fields].map((field) => `${field}=${row[field] ?? 'null'}`).join(' ')
}
