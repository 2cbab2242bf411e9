// What format 2 of a database adds to 1: the reach of token events that an older pertoken wrote, which counted them at
// their `ts` whatever they sum over. Where one is counted in other minutes now, these are marked, so that the keeper
// computes them. One pass over all token usage, once; it may be repeated, and made by two processes at once.

import type { Document } from 'mongodb'
import { type DirtyMinute, reachMinutes, TouchedCells } from '../../../domain/ledger/buckets.ts'
import type { LedgerToken } from '../../../domain/ledger/types.ts'
import { COLLECTION_OF_KIND } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { OWN_IDS } from '../reading/ordered-scan.ts'
import { REACH } from './reach.ts'
import { bulkError, faultsOf } from './writes.ts'

const PAGE_DOCUMENTS = 1_000

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
        const reach = reachMinutes(event)
        if (reach === 0) continue
        updates.push({ q: { _id: event._id }, u: { $set: { [REACH]: reach } } })
        cells.touchToken(event)
        cells.touch(event.host, event.ts.getTime())
      }
      if (updates.length === 0) continue
      const reply = await connection.command({
        update: name,
        updates,
        ordered: false,
        writeConcern: connection.writeConcern,
      })
      const faults = faultsOf(reply)
      if (faults.length > 0) throw bulkError(name, faults, updates.length)
      await mark(cells.dirtyMinutes())
    }
  })
}
