// Raw events as the ledger reads them one by one, and the range of time that there are events for. Events come as whole
// documents, since a body is parsed as a whole anyway.

import type { GpuDocument, TokenDocument } from '../../../domain/events/event.ts'
import { readEvents } from '../events/queries.ts'
import { TABLE_OF } from '../events/rows.ts'
import type { StoreDatabase } from '../store-database.ts'

/** Samples of a range by (ts, _id), in pages. */
export function readLedgerSamples(file: StoreDatabase, fromMs: number, toMs: number): AsyncGenerator<GpuDocument[]> {
  return readEvents(file, 'gpu', fromMs, toMs)
}

/** Token usage of a range by (ts, _id), in pages. */
export function readLedgerTokens(file: StoreDatabase, fromMs: number, toMs: number): AsyncGenerator<TokenDocument[]> {
  return readEvents(file, 'token', fromMs, toMs)
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
