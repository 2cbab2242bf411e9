// Token events that are counted in minutes before their own: those that overlap a range, found by the index on
// {pt_reach, ts}, which has no others. Reaches are taken in classes that double, so that the server looks at twice as
// many keys as there are such events at most, with seven ranges of the index in one query.

import type { Document } from 'mongodb'
import { intervalMs } from '../../../domain/events/event-interval.ts'
import { CELL_MS } from '../../../domain/ledger/buckets.ts'
import type { LedgerToken } from '../../../domain/ledger/types.ts'
import { COLLECTION_OF_KIND, REACH_INDEX } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { REACH } from '../events/reach.ts'
import { OWN_IDS } from '../reading/ordered-scan.ts'

/** Documents that the driver decodes without a break, some milliseconds. */
const PAGE_DOCUMENTS = 1_000
/** 1; 2 and 3; 4 to 7; … to 60. */
const CLASSES = [1, 2, 4, 8, 16, 32]

/** Events whose interval reaches into earlier minutes and overlaps the range, in pages; only of `hosts` when given. */
export async function* readReachingTokens(
  connection: MongoConnection,
  fromMs: number,
  toMs: number,
  hosts?: readonly (string | null)[],
): AsyncGenerator<LedgerToken[], void, undefined> {
  if (fromMs >= toMs) return
  const endMs = Math.ceil(toMs / CELL_MS) * CELL_MS
  // An event of reach n whose first minute begins before the range's end has its ts within n minutes after it.
  const classes = CLASSES.map((first): Document => {
    const behindMs = endMs + (2 * first - 1) * CELL_MS
    return { [REACH]: { $gte: first, $lt: 2 * first }, ts: { $gt: new Date(fromMs), $lt: new Date(behindMs) } }
  })
  const filter = { ...OWN_IDS, ...(hosts === undefined ? {} : { host: { $in: [...hosts] } }), $or: classes }
  const options = { hint: REACH_INDEX.key, maxTimeMS: connection.queryTimeMs, batchSize: PAGE_DOCUMENTS }
  const cursor = connection.db.collection(COLLECTION_OF_KIND.token).find(filter, options)
  try {
    while (await cursor.hasNext()) {
      const events = cursor.readBufferedDocuments() as unknown as LedgerToken[]
      yield events.filter((event) => event.ts.getTime() - intervalMs(event) < endMs)
    }
  } finally {
    await cursor.close()
  }
}
