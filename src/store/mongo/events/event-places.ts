// Where stored events lie: time and host by id, for marks of events that were delivered again. A collection of ours is
// clustered on `_id`; there mongod 6 scans all of it for a list of ids, while $lookup goes straight to each: 45 µs an
// id, whatever the size. In one that is not clustered, `$in` takes a fifth of that, and servers before 5.3 know only
// this.

import type { Document } from 'mongodb'
import type { EventKind } from '../../../domain/events/event.ts'
import type { EventPlace } from '../../event-store.ts'
import { COLLECTION_OF_KIND } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'

/** Ids of one command: with the longest ids and hosts, command and reply stay below 4 MB. */
const MAX_IDS = 1000
const FIELDS = { _id: 0, ts: 1, host: 1 }

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
    const command = isClustered
      ? lookup(name, chunk)
      : { find: name, filter: { _id: { $in: chunk } }, projection: FIELDS }
    const size = isClustered ? { cursor: { batchSize: MAX_IDS } } : { batchSize: MAX_IDS, singleBatch: true }
    const reply = await connection.command({ ...command, ...size, maxTimeMS: connection.queryTimeMs })
    for (const { ts, host } of reply['cursor'].firstBatch as { ts: Date; host: string | null }[]) {
      places.push({ tsMs: ts.getTime(), host })
    }
  }
  return places
}

/** The ids take the place of the collection's first document; $documents would need a right on the whole database. */
function lookup(from: string, ids: readonly string[]): Document {
  const idsAlone = { $project: { _id: 0, id: { $literal: ids } } }
  const found = { from, localField: 'id', foreignField: '_id', pipeline: [{ $project: FIELDS }], as: 'found' }
  return {
    aggregate: from,
    pipeline: [
      ...[{ $limit: 1 }, idsAlone, { $unwind: '$id' }],
      ...[{ $lookup: found }, { $unwind: '$found' }, { $replaceWith: '$found' }],
    ],
  }
}
