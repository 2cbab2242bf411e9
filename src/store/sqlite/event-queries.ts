// Reading events. SQLite answers synchronously, so every statement here is bounded: a listing whose filter matches little
// goes through the time range in steps and lets the event loop have its turn between them, and a stream reads pages.
// The newest sample per slot comes from hopping over the slot index, whose price is the number of slots, not of samples.

import { setImmediate as afterImmediate } from 'node:timers/promises'
import type { EventKind, GpuDocument } from '../../domain/documents.ts'
import type { EventQuery, Page } from '../event-store.ts'
import { decodeCursor, encodeCursor, type Place } from './cursor.ts'
import { type EventRow, TABLE_OF, toDocument } from './event-rows.ts'
import type { Parameter, StoreFile } from './store-file.ts'

const MIN_MS = -8.64e15
const MAX_MS = 8.64e15
const PAGE_EVENTS = 500
/** Rows of an index that a listing passes in one step, about 10 ms where none matches. */
const STEP_EVENTS = 4000
const SLOTS_PER_STEP = 200

/** A page of events in order of (ts, _id). */
export async function listEvents(
  file: StoreFile,
  kind: EventKind,
  query: EventQuery,
): Promise<Page<Record<string, unknown>>> {
  const { index, equals, filters } = planOf(kind, query)
  const from = `${TABLE_OF[kind]} INDEXED BY ${index} WHERE ${equals.sql} ts >= ? AND ts < ?`
  const toMs = query.toMs ?? MAX_MS
  const fromMs = query.fromMs ?? MIN_MS
  let after: Place = { ms: fromMs, id: '' }
  if (query.cursor !== undefined) {
    const place = decodeCursor(query.cursor)
    if (place.ms >= fromMs) after = place
  }
  const items: Record<string, unknown>[] = []
  while (after.ms < toMs) {
    const stepEndMs = file.use('Listing events failed', () => {
      const sql = `SELECT ts FROM ${from} ORDER BY ts LIMIT 1 OFFSET ${STEP_EVENTS}`
      const end = file.get<{ ts: number }>(sql, ...equals.values, after.ms, toMs)?.ts ?? toMs
      // A step ends between two times, since places inside equal times are ordered by id.
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

/** Events of a range in order of (ts, _id). */
export async function* readEvents<T extends { ts: Date; _id: string }>(
  file: StoreFile,
  kind: EventKind,
  { fromMs, toMs }: { fromMs: number; toMs: number },
): AsyncGenerator<T, void, undefined> {
  const sql = `SELECT _id, ts, body FROM ${TABLE_OF[kind]} INDEXED BY ${TABLE_OF[kind]}_ts
    WHERE ts >= ? AND ts < ? AND (ts > ? OR _id > ?) ORDER BY ts, _id LIMIT ${PAGE_EVENTS}`
  for (let after: Place = { ms: fromMs, id: '' }; ; ) {
    const rows = file.use('Reading events failed', () => file.all<EventRow>(sql, after.ms, toMs, after.ms, after.id))
    const page = rows.map((row) => toDocument<T>(row))
    yield* page
    if (rows.length < PAGE_EVENTS) return
    const last = page.at(-1)!
    after = { ms: last.ts.getTime(), id: last._id }
    await afterImmediate()
  }
}

/** The newest sample by (ts, _id) of what the filter names. */
export async function latestSample(
  file: StoreFile,
  filter: { host?: string | null; gpuIndex?: number },
): Promise<GpuDocument | null> {
  if (filter.host === undefined && filter.gpuIndex === undefined) {
    const sql = 'SELECT _id, ts, body FROM gpu_metrics ORDER BY ts DESC, _id DESC LIMIT 1'
    const row = file.use('Reading the latest sample failed', () => file.get<EventRow>(sql))
    return row === undefined ? null : toDocument<GpuDocument>(row)
  }
  let latest: EventRow | undefined
  for await (const row of newestOfSlots(file, filter)) {
    if (latest === undefined || row.ts > latest.ts || (row.ts === latest.ts && isAfter(row._id, latest._id)))
      latest = row
  }
  return latest === undefined ? null : toDocument<GpuDocument>(latest)
}

/** The newest sample of each slot that has one since an instant. */
export async function latestSamplePerSlot(file: StoreFile, sinceMs: number, limit: number): Promise<GpuDocument[]> {
  const samples: GpuDocument[] = []
  if (limit < 1) return samples
  for await (const row of newestOfSlots(file, {})) {
    if (row.ts < sinceMs) continue
    samples.push(toDocument<GpuDocument>(row))
    if (samples.length >= limit) break
  }
  return samples
}

async function* newestOfSlots(
  file: StoreFile,
  { host: onlyHost, gpuIndex: onlyIndex }: { host?: string | null; gpuIndex?: number },
): AsyncGenerator<EventRow, void, undefined> {
  const use = <T>(action: () => T) => file.use('Reading the latest samples failed', action)
  let seen = 0
  for (let host = onlyHost === undefined ? use(() => firstHost(file)) : onlyHost; host !== undefined; ) {
    const indexes = onlyIndex === undefined ? use(() => gpuIndexesOf(file, host!)) : [onlyIndex]
    for (const index of indexes) {
      const row = use(() => newestOfSlot(file, host!, index))
      if (row !== undefined) yield row
      if (++seen % SLOTS_PER_STEP === 0) await afterImmediate()
    }
    if (onlyHost !== undefined) return
    host = use(() => hostAfter(file, host!))
  }
}

function newestOfSlot(file: StoreFile, host: string | null, gpuIndex: number): EventRow | undefined {
  const sql = `SELECT _id, ts, body FROM gpu_metrics INDEXED BY gpu_metrics_slot
    WHERE host IS ? AND gpu_index = ? ORDER BY ts DESC, _id DESC LIMIT 1`
  return file.get<EventRow>(sql, host, gpuIndex)
}

/** Null is a host, and the first. */
function firstHost(file: StoreFile): string | null | undefined {
  const hasNull = file.get('SELECT 1 FROM gpu_metrics WHERE host IS NULL LIMIT 1') !== undefined
  return hasNull ? null : hostAfter(file, null)
}

function hostAfter(file: StoreFile, host: string | null): string | undefined {
  return (
    file.get<{ next: string | null }>('SELECT min(host) AS next FROM gpu_metrics WHERE host > ?', host ?? '')?.next ??
    undefined
  )
}

function gpuIndexesOf(file: StoreFile, host: string | null): number[] {
  const sql = 'SELECT min(gpu_index) AS next FROM gpu_metrics WHERE host IS ? AND gpu_index > ?'
  const indexes: number[] = []
  for (let index: number | null = -1; ; indexes.push(index)) {
    index = file.get<{ next: number | null }>(sql, host, index)!.next
    if (index === null) return indexes
  }
}

/** SQLite orders text by its UTF-8 bytes, JavaScript by UTF-16 units: they differ beyond the basic plane. */
function isAfter(a: string, b: string): boolean {
  return Buffer.compare(Buffer.from(a), Buffer.from(b)) > 0
}

interface Condition {
  sql: string
  values: Parameter[]
}

/** The index that a listing goes along, what it is entered with, and what is left to filter. */
function planOf(kind: EventKind, query: EventQuery): { index: string; equals: Condition; filters: Condition } {
  const { host, gpuIndex, model, tenant } = query
  const equals: Condition = { sql: '', values: [] }
  const filters: Condition = { sql: '', values: [] }
  let index = `${TABLE_OF[kind]}_ts`
  if (kind === 'gpu') {
    if (host !== undefined && gpuIndex !== undefined) {
      index = 'gpu_metrics_slot'
      add(equals, 'host IS ? AND gpu_index = ? AND', host, gpuIndex)
    } else if (host !== undefined) add(filters, 'AND host IS ?', host)
    else if (gpuIndex !== undefined) add(filters, 'AND gpu_index = ?', gpuIndex)
    // No sample has a model or tenant of its own.
    if (model !== undefined || tenant !== undefined) add(filters, 'AND false')
    return { index, equals, filters }
  }
  if (model !== undefined) {
    index = 'token_usage_model'
    add(equals, 'model = ? AND', model)
  }
  if (host !== undefined) add(filters, 'AND host IS ?', host)
  if (gpuIndex !== undefined) add(filters, 'AND gpu_index = ?', gpuIndex)
  if (tenant !== undefined) add(filters, 'AND tenant = ?', tenant)
  return { index, equals, filters }
}

function add(condition: Condition, sql: string, ...values: Parameter[]): void {
  condition.sql = `${condition.sql} ${sql}`
  condition.values.push(...values)
}
