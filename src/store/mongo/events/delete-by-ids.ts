// Deleting documents by lists of ids, one command for so many, each durable on a majority before it counts. A document
// that is gone already is no fault: whoever repeats a deletion after a lost reply deletes the rest.

import type { Document } from 'mongodb'
import type { MongoConnection } from '../connection.ts'
import { bulkError, faultsOf } from './writes.ts'

/** What a slow server deletes well within the call's limit. */
const MAX_IDS = 10_000

/** Deletes the documents with these ids, of those that the filter takes; answers how many there were. */
export async function deleteByIds(
  connection: MongoConnection,
  collection: string,
  ids: readonly unknown[],
  filter: Document = {},
): Promise<number> {
  let deleted = 0
  for (let start = 0; start < ids.length; start += MAX_IDS) {
    const chunk = ids.slice(start, start + MAX_IDS)
    const deletes = [{ q: { ...filter, _id: { $in: chunk } }, limit: 0 }]
    const { writeConcern } = connection
    const answer = await connection.command({ delete: collection, deletes, writeConcern })
    const faults = faultsOf(answer)
    if (faults.length > 0) throw bulkError(collection, faults, chunk.length)
    deleted += Number(answer['n'])
  }
  return deleted
}
