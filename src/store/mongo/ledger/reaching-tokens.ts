// Token events that are counted in minutes before their own: those that overlap a range, found by the index on
// {pt_reach, ts}, which has no others. An event of reach n whose first minute begins before the range's end has its ts
// within n minutes after it, so each reach is a range of the index of its own. There are seven reaches at most (they
// double, events/reach.ts), and the server looks at twice as many events as overlap at most; where there are none, it
// looks at one key.

import type { Document } from 'mongodb'
import { intervalMs } from '../../../domain/events/event-interval.ts'
import { CELL_MS } from '../../../domain/ledger/buckets.ts'
import type { LedgerToken } from '../../../domain/ledger/types.ts'
import { COLLECTION_OF_KIND } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { REACH } from '../events/reach.ts'
import { OWN_IDS, pagesInOrder } from '../reading/ordered-scan.ts'
import { readAhead } from '../reading/read-ahead.ts'
import { tokenOf } from './cell-events.ts'

const PAGE_DOCUMENTS = 2_000

/** Events whose interval reaches into earlier minutes and overlaps the range, in pages; only of `hosts` when given. */
export async function* readReachingTokens(
  connection: MongoConnection,
  fromMs: number,
  toMs: number,
  hosts?: readonly (string | null)[],
): AsyncGenerator<LedgerToken[], void, undefined> {
  if (fromMs >= toMs) return
  const { db } = connection
  const endMs = Math.ceil(toMs / CELL_MS) * CELL_MS
  for (let reach = await nextReach(connection, 0); reach !== null; reach = await nextReach(connection, reach)) {
    const filter = { ...OWN_IDS, ...(hosts === undefined ? {} : { host: { $in: [...hosts] } }), [REACH]: reach }
    const range = { fromMs: fromMs + 1, toMs: endMs + reach * CELL_MS, pageDocuments: PAGE_DOCUMENTS }
    const events = { db, collection: COLLECTION_OF_KIND.token, filter, read: tokenOf }
    for await (const page of readAhead(pagesInOrder({ ...events, ...range })) as AsyncGenerator<never[]>) {
      yield page.filter((event: LedgerToken) => event.ts.getTime() - intervalMs(event) < endMs)
    }
  }
}

/** The smallest reach above one that any event has; null when there is none. */
async function nextReach(connection: MongoConnection, reach: number): Promise<number | null> {
  const options = { maxTimeMS: connection.queryTimeMs, projection: { _id: 0, [REACH]: 1 } }
  const above = connection.db.collection<Document>(COLLECTION_OF_KIND.token).find({ [REACH]: { $gt: reach } }, options)
  const next = await above
    .sort({ [REACH]: 1 })
    .limit(1)
    .next()
  return next === null ? null : Number(next[REACH])
}
