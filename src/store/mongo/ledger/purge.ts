// Deletes what retention purges, raw events and cells of a range, in steps of a bounded size; when it fails half-way,
// repeating it deletes the rest. Only documents that pertoken wrote.

import type { EventKind } from '../../../domain/events/event.ts'
import { bucketIdRange } from '../../bucket-id.ts'
import { COLLECTION_OF_KIND, COST_LEDGER } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { deleteByIds } from '../events/writes.ts'
import { OWN_IDS } from '../reading/ordered-scan.ts'

const STEP_DOCUMENTS = 5_000

export async function purge(
  connection: MongoConnection,
  fromMs: number,
  toMs: number,
): Promise<{ events: number; cells: number }> {
  const samples = await purgeEvents(connection, 'gpu', { fromMs, toMs })
  const tokens = await purgeEvents(connection, 'token', { fromMs, toMs })
  return { events: samples + tokens, cells: await purgeCells(connection, { fromMs, toMs }) }
}

async function purgeEvents(
  connection: MongoConnection,
  kind: EventKind,
  { fromMs, toMs }: { fromMs: number; toMs: number },
): Promise<number> {
  const events = connection.db.collection(COLLECTION_OF_KIND[kind])
  const options = { maxTimeMS: connection.queryTimeMs, projection: { _id: 1, ts: 1 } }
  let first = new Date(fromMs)
  for (let deleted = 0; ; ) {
    const filter = { ...OWN_IDS, ts: { $gte: first, $lt: new Date(toMs) } }
    const page = await events.find(filter, options).sort({ ts: 1 }).limit(STEP_DOCUMENTS).toArray()
    if (page.length === 0) return deleted
    const last = page.at(-1)!['ts'] as Date
    const ids = page.map(({ _id }) => _id)
    // The times lead to the index: by a list of ids alone, mongod 6 scans a clustered collection as a whole.
    deleted += await deleteByIds(connection, COLLECTION_OF_KIND[kind], ids, { ts: { $gte: first, $lte: last } })
    if (page.length < STEP_DOCUMENTS) return deleted
    first = last
  }
}

async function purgeCells(
  connection: MongoConnection,
  { fromMs, toMs }: { fromMs: number; toMs: number },
): Promise<number> {
  const { from, to } = bucketIdRange('minute', fromMs, toMs)
  const cells = connection.db.collection<{ _id: string }>(COST_LEDGER)
  const options = { maxTimeMS: connection.queryTimeMs, projection: { _id: 1 } }
  for (let deleted = 0; ; ) {
    const cursor = cells.find({ _id: { $gte: from, $lt: to } }, options)
    const page = await cursor.sort({ _id: 1 }).limit(STEP_DOCUMENTS).toArray()
    const ids = page.map(({ _id }) => _id)
    deleted += await deleteByIds(connection, COST_LEDGER, ids)
    if (page.length < STEP_DOCUMENTS) return deleted
  }
}
