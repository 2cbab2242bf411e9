// What format 2 of a database adds to 1: the reach of token events that an older pertoken wrote, which counted them at
// their `ts` whatever they sum over. Where one is counted in other minutes now, these are marked, so that the keeper
// computes them. One pass over all token usage, once; it may be repeated, and made by two processes at once.

import { type Document, MongoServerError } from 'mongodb'
import { type DirtyMinute, TouchedCells } from '../../../domain/ledger/buckets.ts'
import type { LedgerToken } from '../../../domain/ledger/types.ts'
import { StoreError } from '../../event-store.ts'
import { COLLECTION_OF_KIND } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { OWN_IDS } from '../reading/ordered-scan.ts'
import { REACH, reachOf } from './reach.ts'
import { bulkError, faultsOf } from './writes.ts'

const PAGE_DOCUMENTS = 1_000
const UNAUTHORIZED = 13

/** `mark` inserts marks of minutes; it is called after the events of these are set. */
export async function setReach(
  connection: MongoConnection,
  mark: (minutes: readonly DirtyMinute[]) => Promise<void>,
): Promise<void> {
  const name = COLLECTION_OF_KIND.token
  const documents = await connection.db.collection(name).estimatedDocumentCount()
  if (documents === 0) return
  connection.log.info({ collection: name, documents }, 'Looking for events that sum over an interval')
  await connection.withoutLimit(async (db) => {
    const filter = { ...OWN_IDS, interval_s: { $gt: 0 } }
    const projection = { ts: 1, host: 1, interval_s: 1 }
    const cursor = db.collection(name).find(filter, { projection, batchSize: PAGE_DOCUMENTS })
    while (await cursor.hasNext()) {
      const cells = new TouchedCells()
      const updates: Document[] = []
      for (const event of cursor.readBufferedDocuments() as unknown as LedgerToken[]) {
        const reach = reachOf(event)
        if (reach === null) continue
        updates.push({ q: { _id: event._id }, u: { $set: { [REACH]: reach } } })
        cells.touchToken(event)
        cells.touch(event.host, event.ts.getTime())
      }
      if (updates.length === 0) continue
      await update(connection, name, updates)
      await mark(cells.dirtyMinutes())
    }
  })
}

async function update(connection: MongoConnection, collection: string, updates: readonly Document[]): Promise<void> {
  const { writeConcern } = connection
  try {
    const faults = faultsOf(await connection.command({ update: collection, updates, ordered: false, writeConcern }))
    if (faults.length > 0) throw bulkError(collection, faults, updates.length)
  } catch (error) {
    if (!(error instanceof MongoServerError && error.code === UNAUTHORIZED)) throw error
    // The role of deploy/ has no such right, since nothing else changes an event.
    const text =
      `Cannot prepare ${connection.description}: events of an earlier version that sum over time need a new field, and ` +
      `the user may not update ${collection}: grant it "update" there until pertoken has started`
    throw new StoreError(text, { retriable: true, hasRemedy: true, cause: error })
  }
}
