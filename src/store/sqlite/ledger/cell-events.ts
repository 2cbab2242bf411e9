// Raw events as the ledger reads them one by one, and the range of time that there are events for. Events come as whole
// documents, since a body is parsed as a whole anyway.

import { setImmediate as afterImmediate } from 'node:timers/promises'
import type { GpuDocument, TokenDocument } from '../../../domain/events/event.ts'
import { CELL_MS } from '../../../domain/ledger/buckets.ts'
import { readEvents } from '../events/queries.ts'
import { type EventRow, TABLE_OF, toDocument } from '../events/rows.ts'
import type { StoreDatabase } from '../store-database.ts'

/** Samples of a range by (ts, _id), in pages. */
export function readLedgerSamples(file: StoreDatabase, fromMs: number, toMs: number): AsyncGenerator<GpuDocument[]> {
  return readEvents(file, 'gpu', fromMs, toMs)
}

/** Token usage of a range by (ts, _id), in pages. */
export function readLedgerTokens(file: StoreDatabase, fromMs: number, toMs: number): AsyncGenerator<TokenDocument[]> {
  return readEvents(file, 'token', fromMs, toMs)
}

/** Pages of a few milliseconds. */
const PAGE_EVENTS = 500

/**
 * Events whose interval reaches into earlier minutes and overlaps the range, in pages. An event of reach n whose first
 * minute begins before the range's end has its ts within n minutes after it: each reach is a seek of its own, so events
 * that do not overlap are not looked at.
 */
export async function* readReachingTokens(
  file: StoreDatabase,
  fromMs: number,
  toMs: number,
): AsyncGenerator<TokenDocument[], void, undefined> {
  const nextReach =
    'SELECT min(reach) AS next FROM token_usage INDEXED BY token_usage_reach WHERE reach > 0 AND reach > ?'
  const page = `SELECT rowid, _id, ts, body FROM token_usage INDEXED BY token_usage_reach
    WHERE reach > 0 AND reach = ? AND (ts, rowid) > (?, ?) AND ts < ? ORDER BY ts, rowid LIMIT ${PAGE_EVENTS}`
  const endMs = Math.ceil(toMs / CELL_MS) * CELL_MS
  const what = 'Reading events failed'
  for (let reach = 0; ; ) {
    const { next } = file.use(what, () => file.get<{ next: number | null }>(nextReach, reach)!)
    if (next === null) return
    reach = next
    for (let after = { ts: fromMs, rowid: Number.MAX_SAFE_INTEGER }; ; ) {
      const behindMs = endMs + reach * CELL_MS
      const rows = file.use(what, () =>
        file.all<EventRow & { rowid: number }>(page, reach, after.ts, after.rowid, behindMs),
      )
      yield rows.map((row) => toDocument<TokenDocument>(row))
      if (rows.length < PAGE_EVENTS) break
      after = rows.at(-1)!
      await afterImmediate()
    }
  }
}

/** The range of event time of both kinds. */
export async function rawRange(file: StoreDatabase): Promise<{ fromMs: number; toMs: number } | null> {
  const times = file.use('Reading the range of events failed', () =>
    Object.values(TABLE_OF).flatMap((table) => {
      // Each alone: min and max in one statement would be a scan.
      const first = file.get<{ ts: number | null }>(`SELECT min(ts) AS ts FROM ${table}`)!.ts
      const last = file.get<{ ts: number | null }>(`SELECT max(ts) AS ts FROM ${table}`)!.ts
      return first === null || last === null ? [] : [first, last]
    }),
  )
  return times.length === 0 ? null : { fromMs: Math.min(...times), toMs: Math.max(...times) + 1 }
}
