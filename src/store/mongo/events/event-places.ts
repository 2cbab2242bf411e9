// Where stored events lie: time and host by id, for marks of events that were delivered again. A collection of ours is
// clustered on `_id`; there mongod 6 scans all of it for a list of ids, while $lookup goes straight to each: 45 µs an
// id, whatever the size. In one that is not clustered, `$in` takes a fifth of that, and servers before 5.3 know only
// this.

import type { Document } from 'mongodb'
import type { EventKind } from '../../../domain/events/event.ts'
import type { EventPlace } from '../../event-store.ts'
import { COLLECTION_OF_KIND, META } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'

/** Ids of one command: with the longest ids and hosts, command and reply stay below 4 MB. */
const MAX_IDS = 1000
const FIELDS = { _id: 0, host: 1, ts: 1, interval_s: 1 }

/**
 * Places of the documents with these ids, in any order; an id without document has none. Read from the primary without
 * a read concern: even one that was just elected has at once whatever a write that the majority confirmed has met.
 */
export async function placesOf(
  connection: MongoConnection,
  kind: EventKind,
  ids: readonly string[],
): Promise<EventPlace[]> {
  const places: EventPlace[] = []
  if (ids.length === 0) return places
  const name = COLLECTION_OF_KIND[kind]
  const [info] = await connection.db.listCollections({ name }).toArray()
  const isClustered = info !== undefined && 'options' in info && info.options?.['clusteredIndex'] !== undefined
  for (let start = 0; start < ids.length; start += MAX_IDS) {
    const chunk = ids.slice(start, start + MAX_IDS)
    const found = isClustered ? await firstBatch(connection, lookup(name, chunk)) : []
    // None: all were deleted, or there is no document to look up from. Who asks must not take one for the other.
    places.push(...(found.length > 0 ? found : await firstBatch(connection, listed(name, chunk))))
  }
  return places
}

async function firstBatch(connection: MongoConnection, command: Document): Promise<EventPlace[]> {
  const reply = await connection.command({ ...command, maxTimeMS: connection.queryTimeMs })
  return reply['cursor'].firstBatch
}

function listed(find: string, ids: readonly string[]): Document {
  return { find, filter: { _id: { $in: ids } }, projection: FIELDS, batchSize: MAX_IDS, singleBatch: true }
}

/** The ids are put beside a document that there is: `$documents`, without one, takes rights on the whole database. */
function lookup(from: string, ids: readonly string[]): Document {
  const found = { from, localField: 'id', foreignField: '_id', pipeline: [{ $project: FIELDS }], as: 'found' }
  const given = [{ $limit: 1 }, { $project: { _id: 0, id: { $literal: ids } } }, { $unwind: '$id' }]
  const pipeline = [...given, { $lookup: found }, { $unwind: '$found' }, { $replaceWith: '$found' }]
  return { aggregate: META, pipeline, cursor: { batchSize: MAX_IDS } }
}
