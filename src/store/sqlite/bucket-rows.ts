// Spans of the ledger in the embedded store: one row each, the rows of the span as JSON. `_id` is the same text as in
// MongoDB (span-id.ts) and the only key; level, start and host beside it are for people and for filtering. SQLite answers
// synchronously, so ranges are read in pages, and other work has its turn between two of them.

import { setImmediate as afterImmediate } from 'node:timers/promises'
import type { BucketLevel } from '../../domain/ledger/buckets.ts'
import { type CellRowJson, rowFromJson, rowToJson } from '../../domain/ledger/row-json.ts'
import type { CellRow, RowTotals } from '../../domain/ledger/types.ts'
import { bucketId, bucketIdPages, bucketIdRange } from '../bucket-id.ts'
import type { LedgerBucket } from '../ledger-store.ts'
import type { StoreDatabase } from './store-database.ts'

const PAGE_SPANS = 200

interface SpanRow {
  _id: string
  level: BucketLevel
  start_ms: number
  host: string | null
  rev: number
  book_versions: string
  capped: number
  computed_ms: number
  model_sums: string | null
  tenant_sums: string | null
  rows: string
}

/** What is read of a span when its sums will do. */
type SumRow = Pick<SpanRow, '_id' | 'start_ms' | 'host' | 'rows'>

const ALL = '*'
const SUMS = {
  model: '_id, start_ms, host, coalesce(model_sums, rows) AS rows',
  tenant: '_id, start_ms, host, coalesce(tenant_sums, rows) AS rows',
} as const satisfies Record<keyof RowTotals, string>

interface SpanRange {
  fromMs: number
  toMs: number
  hosts?: readonly (string | null)[] | undefined
}

/** Spans of a range by (start, host). */
export async function* readBuckets(
  file: StoreDatabase,
  level: BucketLevel,
  range: SpanRange,
): AsyncGenerator<LedgerBucket> {
  for await (const row of readRows<SpanRow>(file, level, range, ALL)) yield toSpan(row)
}

/** The same with their sums in place of the rows where they have them. */
export async function* readRollups(
  file: StoreDatabase,
  level: BucketLevel,
  range: SpanRange & { by: keyof RowTotals },
): AsyncGenerator<Pick<LedgerBucket, 'startMs' | 'host' | 'rows'>> {
  for await (const row of readRows<SumRow>(file, level, range, SUMS[range.by])) {
    yield { startMs: row.start_ms, host: row.host, rows: rowsOf(row.rows) }
  }
}

async function* readRows<R extends SumRow>(
  file: StoreDatabase,
  level: BucketLevel,
  range: SpanRange,
  columns: string,
): AsyncGenerator<R> {
  const { hosts } = range
  const idPages = hosts === undefined ? null : bucketIdPages(level, { ...range, hosts }, PAGE_SPANS)
  const pages = idPages === null ? pagesOfRange<R>(file, level, range, columns) : pagesOfIds<R>(file, idPages, columns)
  const wanted = hosts === undefined || idPages !== null ? null : new Set(hosts)
  let isFirst = true
  for (const page of pages) {
    if (!isFirst) await afterImmediate()
    isFirst = false
    for (const row of page) if (wanted === null || wanted.has(row.host)) yield row
  }
}

function* pagesOfRange<R extends SumRow>(
  file: StoreDatabase,
  level: BucketLevel,
  { fromMs, toMs }: SpanRange,
  columns: string,
): Generator<R[]> {
  const { from, to } = bucketIdRange(level, fromMs, toMs)
  const select = (comparison: string) =>
    `SELECT ${columns} FROM cost_ledger WHERE _id ${comparison} ? AND _id < ? ORDER BY _id LIMIT ${PAGE_SPANS}`
  let sql = select('>=')
  for (let after = from; ; ) {
    const page = file.use('Reading the ledger failed', () => file.all<R>(sql, after, to))
    yield page
    if (page.length < PAGE_SPANS) return
    after = page.at(-1)!._id
    sql = select('>')
  }
}

function* pagesOfIds<R extends SumRow>(
  file: StoreDatabase,
  idPages: Iterable<string[]>,
  columns: string,
): Generator<R[]> {
  const sql = `SELECT ${columns} FROM cost_ledger WHERE _id IN (SELECT value FROM json_each(?)) ORDER BY _id`
  for (const ids of idPages) {
    yield file.use('Reading the ledger failed', () => file.all<R>(sql, JSON.stringify(ids)))
  }
}

export async function readRevs(
  file: StoreDatabase,
  { level, startMs, hosts }: { level: BucketLevel; startMs: number; hosts: readonly (string | null)[] },
): Promise<Map<string | null, number>> {
  const revs = new Map<string | null, number>()
  file.use('Reading revisions of the ledger failed', () => {
    for (const host of hosts) {
      const row = file.get<{ rev: number }>('SELECT rev FROM cost_ledger WHERE _id = ?', bucketId(level, startMs, host))
      if (row !== undefined) revs.set(host, row.rev)
    }
  })
  return revs
}

/** Replaces those whose stored rev is theirs, in one transaction. */
export async function replaceBuckets(file: StoreDatabase, spans: readonly LedgerBucket[]): Promise<boolean[]> {
  if (spans.length === 0) return []
  // Text is made before the lock is taken: other processes wait for it.
  const texts = spans.map(({ bookVersions, sums, rows }) => ({
    bookVersions: JSON.stringify(bookVersions),
    modelSums: sums === null ? null : textOf(sums.model),
    tenantSums: sums === null ? null : textOf(sums.tenant),
    rows: textOf(rows),
  }))
  return file.transaction('Writing the ledger failed', () =>
    spans.map((span, i) => {
      const { bookVersions, modelSums, tenantSums, rows } = texts[i]!
      const id = bucketId(span.level, span.startMs, span.host)
      const values = [bookVersions, span.capped, span.computedMs, modelSums, tenantSums, rows] as const
      if (span.rev === 0) return file.run(INSERT, id, span.level, span.startMs, span.host, ...values) === 1
      return file.run(UPDATE, ...values, id, span.rev) === 1
    }),
  )
}

const INSERT = `INSERT INTO cost_ledger
  (_id, level, start_ms, host, rev, book_versions, capped, computed_ms, model_sums, tenant_sums, rows)
  VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?) ON CONFLICT (_id) DO NOTHING`
const UPDATE = `UPDATE cost_ledger SET
  rev = rev + 1, book_versions = ?, capped = ?, computed_ms = ?, model_sums = ?, tenant_sums = ?, rows = ?
  WHERE _id = ? AND rev = ?`

function toSpan(row: SpanRow): LedgerBucket {
  return {
    level: row.level,
    startMs: row.start_ms,
    host: row.host,
    rev: row.rev,
    bookVersions: JSON.parse(row.book_versions),
    rows: rowsOf(row.rows),
    sums: row.model_sums === null ? null : { model: rowsOf(row.model_sums), tenant: rowsOf(row.tenant_sums!) },
    capped: row.capped,
    computedMs: row.computed_ms,
  }
}

function textOf(rows: readonly CellRow[]): string {
  return JSON.stringify(rows.map(rowToJson))
}

function rowsOf(text: string): CellRow[] {
  return (JSON.parse(text) as CellRowJson[]).map(rowFromJson)
}
