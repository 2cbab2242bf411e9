// Spans of the ledger in the embedded store: one row each, the rows of the span as JSON. `_id` is the same text as in
// MongoDB (span-id.ts) and the only key; level, start and host beside it are for people and for filtering. SQLite answers
// synchronously, so ranges are read in pages, and other work has its turn between two of them.

import { setImmediate as afterImmediate } from 'node:timers/promises'
import { type CellRowJson, rowFromJson, rowToJson } from '../../domain/ledger-json.ts'
import type { Span, SpanLevel } from '../ledger-store.ts'
import { spanId, spanIdPages, spanIdRange } from '../span-id.ts'
import type { StoreFile } from './store-file.ts'

const PAGE_SPANS = 200

interface SpanRow {
  _id: string
  level: SpanLevel
  start_ms: number
  host: string | null
  rev: number
  book_versions: string
  capped: number
  computed_ms: number
  rows: string
}

interface SpanRange {
  fromMs: number
  toMs: number
  hosts?: readonly (string | null)[] | undefined
}

/** Spans of a range by (start, host). */
export async function* readSpans(file: StoreFile, level: SpanLevel, range: SpanRange): AsyncGenerator<Span> {
  const { hosts } = range
  const idPages = hosts === undefined ? null : spanIdPages(level, { ...range, hosts }, PAGE_SPANS)
  const pages = idPages === null ? pagesOfRange(file, level, range) : pagesOfIds(file, idPages)
  const wanted = hosts === undefined || idPages !== null ? null : new Set(hosts)
  let isFirst = true
  for (const page of pages) {
    if (!isFirst) await afterImmediate()
    isFirst = false
    for (const row of page) if (wanted === null || wanted.has(row.host)) yield toSpan(row)
  }
}

function* pagesOfRange(file: StoreFile, level: SpanLevel, { fromMs, toMs }: SpanRange): Generator<SpanRow[]> {
  const { from, to } = spanIdRange(level, fromMs, toMs)
  const select = (comparison: string) =>
    `SELECT * FROM cost_ledger WHERE _id ${comparison} ? AND _id < ? ORDER BY _id LIMIT ${PAGE_SPANS}`
  let sql = select('>=')
  for (let after = from; ; ) {
    const page = file.use('Reading the ledger failed', () => file.all<SpanRow>(sql, after, to))
    yield page
    if (page.length < PAGE_SPANS) return
    after = page.at(-1)!._id
    sql = select('>')
  }
}

function* pagesOfIds(file: StoreFile, idPages: Iterable<string[]>): Generator<SpanRow[]> {
  const sql = 'SELECT * FROM cost_ledger WHERE _id IN (SELECT value FROM json_each(?)) ORDER BY _id'
  for (const ids of idPages) {
    yield file.use('Reading the ledger failed', () => file.all<SpanRow>(sql, JSON.stringify(ids)))
  }
}

export async function readRevs(
  file: StoreFile,
  { level, startMs, hosts }: { level: SpanLevel; startMs: number; hosts: readonly (string | null)[] },
): Promise<Map<string | null, number>> {
  const revs = new Map<string | null, number>()
  file.use('Reading revisions of the ledger failed', () => {
    for (const host of hosts) {
      const row = file.get<{ rev: number }>('SELECT rev FROM cost_ledger WHERE _id = ?', spanId(level, startMs, host))
      if (row !== undefined) revs.set(host, row.rev)
    }
  })
  return revs
}

/** Replaces those whose stored rev is theirs, in one transaction. */
export async function replaceSpans(file: StoreFile, spans: readonly Span[]): Promise<boolean[]> {
  if (spans.length === 0) return []
  // Text is made before the lock is taken: other processes wait for it.
  const texts = spans.map(
    (span) => [JSON.stringify(span.rows.map(rowToJson)), JSON.stringify(span.bookVersions)] as const,
  )
  return file.transaction('Writing the ledger failed', () =>
    spans.map((span, i) => {
      const [rows, bookVersions] = texts[i]!
      const id = spanId(span.level, span.startMs, span.host)
      const values = [bookVersions, span.capped, span.computedMs, rows] as const
      if (span.rev === 0) return file.run(INSERT, id, span.level, span.startMs, span.host, ...values) === 1
      return file.run(UPDATE, ...values, id, span.rev) === 1
    }),
  )
}

const INSERT = `INSERT INTO cost_ledger (_id, level, start_ms, host, rev, book_versions, capped, computed_ms, rows)
  VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?) ON CONFLICT (_id) DO NOTHING`
const UPDATE = `UPDATE cost_ledger SET rev = rev + 1, book_versions = ?, capped = ?, computed_ms = ?, rows = ?
  WHERE _id = ? AND rev = ?`

function toSpan(row: SpanRow): Span {
  return {
    level: row.level,
    startMs: row.start_ms,
    host: row.host,
    rev: row.rev,
    bookVersions: JSON.parse(row.book_versions),
    rows: (JSON.parse(row.rows) as CellRowJson[]).map(rowFromJson),
    capped: row.capped,
    computedMs: row.computed_ms,
  }
}
