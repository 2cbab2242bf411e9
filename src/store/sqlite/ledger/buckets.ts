// Buckets of the ledger in the embedded store: one row each, the bucket's own rows as JSON. `_id` is the same text as
// in MongoDB (bucket-id.ts) and the only key; level, start and host beside it are for inspection and filtering. SQLite
// is synchronous, so ranges are read in pages, with a yield to the event loop between two of them.

import { setImmediate as afterImmediate } from 'node:timers/promises'
import type { BucketLevel } from '../../../domain/ledger/buckets.ts'
import { type CellRowJson, rowFromJson, rowToJson } from '../../../domain/ledger/row-json.ts'
import type { CellRow, RowTotals } from '../../../domain/ledger/types.ts'
import { bucketId, bucketIdPages, bucketIdRange } from '../../bucket-id.ts'
import type { LedgerBucket } from '../../ledger-store.ts'
import type { StoreDatabase } from '../store-database.ts'

const PAGE_BUCKETS = 200
/** Buckets that are decoded at a time: a large one has thousands of rows, of about a kilobyte each. */
const DECODED_BUCKETS = 8

interface BucketRow {
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

/** What is read of a bucket where its totals suffice. */
type TotalsRow = Pick<BucketRow, '_id' | 'start_ms' | 'host' | 'rows'>

const ALL = '*'
const TOTALS = {
  model: '_id, start_ms, host, coalesce(model_sums, rows) AS rows',
  tenant: '_id, start_ms, host, coalesce(tenant_sums, rows) AS rows',
} as const satisfies Record<keyof RowTotals, string>

interface BucketRange {
  fromMs: number
  toMs: number
  hosts: readonly (string | null)[] | undefined
}

/** Buckets of a range by (start, host), in pages. */
export async function* readBuckets(
  file: StoreDatabase,
  level: BucketLevel,
  fromMs: number,
  toMs: number,
  hosts?: readonly (string | null)[],
): AsyncGenerator<LedgerBucket[]> {
  for await (const slice of readPages<BucketRow>(file, level, { fromMs, toMs, hosts }, ALL)) yield slice.map(toBucket)
}

/** The same with their totals in place of the rows where they have them. */
export async function* readTotals(
  file: StoreDatabase,
  by: keyof RowTotals,
  level: BucketLevel,
  fromMs: number,
  toMs: number,
  hosts?: readonly (string | null)[],
): AsyncGenerator<Pick<LedgerBucket, 'startMs' | 'host' | 'rows'>[]> {
  for await (const slice of readPages<TotalsRow>(file, level, { fromMs, toMs, hosts }, TOTALS[by])) {
    yield slice.map(({ start_ms, host, rows }) => ({ startMs: start_ms, host, rows: rowsOf(rows) }))
  }
}

async function* readPages<R extends TotalsRow>(
  file: StoreDatabase,
  level: BucketLevel,
  { fromMs, toMs, hosts }: BucketRange,
  columns: string,
): AsyncGenerator<R[]> {
  const idPages = hosts === undefined ? null : bucketIdPages(level, { fromMs, toMs, hosts }, PAGE_BUCKETS)
  const range = bucketIdRange(level, fromMs, toMs)
  const pages = idPages === null ? pagesOfRange<R>(file, range, columns) : pagesOfIds<R>(file, idPages, columns)
  const wanted = hosts === undefined || idPages !== null ? null : new Set(hosts)
  let isFirst = true
  for (const page of pages) {
    if (!isFirst) await afterImmediate()
    isFirst = false
    const found = wanted === null ? page : page.filter(({ host }) => wanted.has(host))
    for (let at = 0; at < found.length; at += DECODED_BUCKETS) yield found.slice(at, at + DECODED_BUCKETS)
  }
}

function* pagesOfRange<R extends TotalsRow>(
  file: StoreDatabase,
  { from, to }: { from: string; to: string },
  columns: string,
): Generator<R[]> {
  const select = (comparison: string) =>
    `SELECT ${columns} FROM cost_ledger WHERE _id ${comparison} ? AND _id < ? ORDER BY _id LIMIT ${PAGE_BUCKETS}`
  let sql = select('>=')
  for (let after = from; ; ) {
    const page = file.use('Reading the ledger failed', () => file.all<R>(sql, after, to))
    yield page
    if (page.length < PAGE_BUCKETS) return
    after = page.at(-1)!._id
    sql = select('>')
  }
}

function* pagesOfIds<R extends TotalsRow>(
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
  level: BucketLevel,
  startMs: number,
  hosts: readonly (string | null)[],
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
export async function replaceBuckets(file: StoreDatabase, buckets: readonly LedgerBucket[]): Promise<boolean[]> {
  if (buckets.length === 0) return []
  // JSON is made before the lock is taken: other processes wait for it.
  const texts = buckets.map(({ bookVersions, totals, rows }) => ({
    bookVersions: JSON.stringify(bookVersions),
    modelSums: totals === null ? null : textOf(totals.model),
    tenantSums: totals === null ? null : textOf(totals.tenant),
    rows: textOf(rows),
  }))
  return file.transaction('Writing the ledger failed', () =>
    buckets.map(({ level, startMs, host, rev, capped, computedMs }, i) => {
      const { bookVersions, modelSums, tenantSums, rows } = texts[i]!
      const id = bucketId(level, startMs, host)
      const values = [bookVersions, capped, computedMs, modelSums, tenantSums, rows] as const
      if (rev === 0) return file.run(INSERT, id, level, startMs, host, ...values) === 1
      return file.run(UPDATE, ...values, id, rev) === 1
    }),
  )
}

const INSERT = `INSERT INTO cost_ledger
  (_id, level, start_ms, host, rev, book_versions, capped, computed_ms, model_sums, tenant_sums, rows)
  VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?) ON CONFLICT (_id) DO NOTHING`
const UPDATE = `UPDATE cost_ledger SET
  rev = rev + 1, book_versions = ?, capped = ?, computed_ms = ?, model_sums = ?, tenant_sums = ?, rows = ?
  WHERE _id = ? AND rev = ?`

function toBucket(row: BucketRow): LedgerBucket {
  return {
    level: row.level,
    startMs: row.start_ms,
    host: row.host,
    rev: row.rev,
    bookVersions: JSON.parse(row.book_versions),
    rows: rowsOf(row.rows),
    totals: row.model_sums === null ? null : { model: rowsOf(row.model_sums), tenant: rowsOf(row.tenant_sums!) },
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
