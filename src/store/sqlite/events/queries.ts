// The queries of events. SQLite is synchronous, so every statement here is bounded: a listing whose filter matches
// little passes the time range in steps and yields to the event loop between them, and a stream reads pages. The newest
// samples are found through table `slots`, at the cost of the number of slots, not of samples.

import { setImmediate as afterImmediate } from 'node:timers/promises'
import type { EventKind, GpuDocument } from '../../../domain/events/event.ts'
import type { Parameter } from '../../../sqlite/sqlite-file.ts'
import type { EventQuery, LatestSampleQuery, Page, StoreCounts } from '../../event-store.ts'
import type { StoreDatabase } from '../store-database.ts'
import { type Cursor, decodeCursor, encodeCursor } from './cursor.ts'
import { type EventRow, readCounter, slotHost, TABLE_OF, toDocument } from './rows.ts'

const MIN_MS = -8.64e15
const MAX_MS = 8.64e15
const PAGE_EVENTS = 500
/** Rows of an index that one step passes, about 10 ms where none matches. */
const STEP_EVENTS = 4000

/** A page of events in order of (ts, _id). */
export async function listEvents(
  file: StoreDatabase,
  kind: EventKind,
  query: EventQuery,
): Promise<Page<Record<string, unknown>>> {
  const { index, equals, filters } = planOf(kind, query)
  const from = `${TABLE_OF[kind]} INDEXED BY ${index} WHERE ${equals.sql} ts >= ? AND ts < ?`
  const toMs = query.toMs ?? MAX_MS
  const fromMs = query.fromMs ?? MIN_MS
  let after: Cursor = { ms: fromMs, id: '' }
  if (query.cursor !== undefined) {
    const cursor = decodeCursor(query.cursor)
    if (cursor.ms >= fromMs) after = cursor
  }
  const items: Record<string, unknown>[] = []
  while (after.ms < toMs) {
    const stepEndMs = file.use('Listing events failed', () => {
      const sql = `SELECT ts FROM ${from} ORDER BY ts LIMIT 1 OFFSET ${STEP_EVENTS}`
      const end = file.get<{ ts: number }>(sql, ...equals.values, after.ms, toMs)?.ts ?? toMs
      // A step ends between two times, since equal times are ordered by id.
      const stepEnd = Math.max(end, after.ms + 1)
      const rows = file.all<EventRow>(
        `SELECT _id, ts, body FROM ${from} AND (ts > ? OR _id > ?) ${filters.sql} ORDER BY ts, _id LIMIT ?`,
        ...equals.values,
        after.ms,
        Math.min(stepEnd, toMs),
        after.ms,
        after.id,
        ...filters.values,
        query.limit + 1 - items.length,
      )
      for (const row of rows) items.push(toDocument(row))
      return stepEnd
    })
    if (items.length > query.limit) {
      const last = items[query.limit - 1] as { ts: Date; _id: string }
      return { items: items.slice(0, query.limit), cursor: encodeCursor({ ms: last.ts.getTime(), id: last._id }) }
    }
    after = { ms: stepEndMs, id: '' }
    await afterImmediate()
  }
  return { items, cursor: null }
}

/**
 * Events of a range by (ts, _id), in pages. They are of the kind's type, which the port's overloads name: so `never`.
 */
export async function* readEvents(
  file: StoreDatabase,
  kind: EventKind,
  fromMs: number,
  toMs: number,
): AsyncGenerator<never[], void, undefined> {
  const sql = `SELECT _id, ts, body FROM ${TABLE_OF[kind]} INDEXED BY ${TABLE_OF[kind]}_ts
    WHERE ts >= ? AND ts < ? AND (ts > ? OR _id > ?) ORDER BY ts, _id LIMIT ${PAGE_EVENTS}`
  for (let after: Cursor = { ms: fromMs, id: '' }; ; ) {
    const rows = file.use('Reading events failed', () => file.all<EventRow>(sql, after.ms, toMs, after.ms, after.id))
    yield rows.map((row) => toDocument<never>(row))
    if (rows.length < PAGE_EVENTS) return
    const last = rows.at(-1)!
    after = { ms: last.ts, id: last._id }
    await afterImmediate()
  }
}

const NEWEST_OF_SLOTS = `SELECT _id, gpu_metrics.ts AS ts, body
  FROM slots CROSS JOIN gpu_metrics ON _id = sample_id WHERE true`

/** The newest sample by (ts, _id) that the query considers. */
export async function latestSample(file: StoreDatabase, query: LatestSampleQuery): Promise<GpuDocument | null> {
  const { atOrAfterMs = MIN_MS, atOrBeforeMs = MAX_MS } = query
  const newest = file.use('Reading the latest sample failed', () => newestOfSlots(file, query))
  if (newest === null || newest.ts.getTime() < atOrAfterMs) return null
  if (newest.ts.getTime() <= atOrBeforeMs) return newest
  return await latestInRange(file, query, { firstMs: atOrAfterMs, lastMs: atOrBeforeMs })
}

function newestOfSlots(file: StoreDatabase, { host, gpuIndex }: LatestSampleQuery): GpuDocument | null {
  const filters: Condition = { sql: NEWEST_OF_SLOTS, values: [] }
  if (host !== undefined) add(filters, 'AND slots.host = ?', slotHost(host))
  if (gpuIndex !== undefined) add(filters, 'AND slots.gpu_index = ?', gpuIndex)
  const row = file.get<EventRow>(`${filters.sql} ORDER BY slots.ts DESC, sample_id DESC LIMIT 1`, ...filters.values)
  return row === undefined ? null : toDocument<GpuDocument>(row)
}

/** Searches backwards from `lastMs`, in steps. */
async function latestInRange(
  file: StoreDatabase,
  { host, gpuIndex }: LatestSampleQuery,
  { firstMs, lastMs }: { firstMs: number; lastMs: number },
): Promise<GpuDocument | null> {
  const filters: Condition = { sql: '', values: [] }
  if (host !== undefined) add(filters, 'AND host IS ?', host)
  if (gpuIndex !== undefined) add(filters, 'AND gpu_index = ?', gpuIndex)
  const from = 'gpu_metrics INDEXED BY gpu_metrics_ts WHERE ts >= ? AND ts <= ?'
  const stepStart = `SELECT ts FROM ${from} ORDER BY ts DESC LIMIT 1 OFFSET ${STEP_EVENTS}`
  const newest = `SELECT _id, ts, body FROM ${from} ${filters.sql} ORDER BY ts DESC, _id DESC LIMIT 1`
  for (let toMs = lastMs; toMs >= firstMs; ) {
    const found = file.use('Reading the latest sample failed', () => {
      // All samples of a step's first instant belong to the step, so the next one ends before it.
      const fromMs = file.get<{ ts: number }>(stepStart, firstMs, toMs)?.ts ?? firstMs
      const row = file.get<EventRow>(newest, fromMs, toMs, ...filters.values)
      toMs = fromMs - 1
      return row
    })
    if (found !== undefined) return toDocument<GpuDocument>(found)
    await afterImmediate()
  }
  return null
}

/** The newest sample of each slot that has one at or after an instant. */
export async function latestSamplePerSlot(file: StoreDatabase, sinceMs: number, limit: number): Promise<GpuDocument[]> {
  const sql = `${NEWEST_OF_SLOTS} AND slots.ts >= ? LIMIT ?`
  const rows = file.use('Reading the latest samples failed', () => file.all<EventRow>(sql, sinceMs, limit))
  return rows.map((row) => toDocument<GpuDocument>(row))
}

export async function newestMs(file: StoreDatabase, kind: EventKind): Promise<number | null> {
  const sql = `SELECT max(ts) AS newest FROM ${TABLE_OF[kind]}`
  return file.use('Reading the newest time failed', () => file.get<{ newest: number | null }>(sql)!.newest)
}

export async function count(file: StoreDatabase): Promise<StoreCounts> {
  return file.use('Counting failed', () => ({
    gpuMetrics: readCounter(file, 'gpu'),
    tokenUsage: readCounter(file, 'token'),
    deadLetters: file.get<{ count: number }>('SELECT count(*) AS count FROM dead_letters')!.count,
    // Only pertoken writes into its file.
    foreign: 0,
  }))
}

interface Condition {
  sql: string
  values: Parameter[]
}

/** The index that a listing follows, the columns that it is entered with, and what remains to filter. */
function planOf(kind: EventKind, query: EventQuery): { index: string; equals: Condition; filters: Condition } {
  const { host, gpuIndex, model, tenant } = query
  const equals: Condition = { sql: '', values: [] }
  const filters: Condition = { sql: '', values: [] }
  let index = `${TABLE_OF[kind]}_ts`
  if (kind === 'gpu') {
    // No sample has a model or tenant of its own.
    if (model !== undefined || tenant !== undefined) add(filters, 'AND false')
  } else {
    if (model !== undefined) {
      index = 'token_usage_model'
      add(equals, 'model = ? AND', model)
    }
    if (tenant !== undefined) add(filters, 'AND tenant = ?', tenant)
  }
  if (host !== undefined) add(filters, 'AND host IS ?', host)
  if (gpuIndex !== undefined) add(filters, 'AND gpu_index = ?', gpuIndex)
  return { index, equals, filters }
}

function add(condition: Condition, sql: string, ...values: Parameter[]): void {
  condition.sql = `${condition.sql} ${sql}`
  condition.values.push(...values)
}
