// Marks in `pt_marks`: one document a bucket start, only inserted and deleted by id. Which starts are dirty is read
// from the index {level, start_ms, at_ms} alone: the newest starts by hopping from one to the next, then the marks of
// those. Grouping all marks of a level instead took 0.3 s for each 200,000, and a backlog of days has millions.

import { ObjectId } from 'mongodb'
import type { BucketLevel } from '../../../domain/ledger/buckets.ts'
import type { DirtyBucket, Mark, StaleBucket } from '../../ledger-store.ts'
import { MARKS } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { deleteByIds, insertDocuments } from '../events/writes.ts'

const LEVELS: readonly BucketLevel[] = ['minute', 'hour', 'day']

interface MarkDocument {
  _id: ObjectId
  level: BucketLevel
  start_ms: number
  hosts: (string | null)[]
  at_ms: number
}

/** Inserts one mark for each start. */
export async function insertMarks(
  connection: MongoConnection,
  level: BucketLevel,
  buckets: readonly StaleBucket[],
  atMs: number,
): Promise<void> {
  const marks = buckets.map(({ startMs, hosts }) => ({
    _id: new ObjectId(),
    level,
    start_ms: startMs,
    hosts,
    at_ms: atMs,
  }))
  await insertDocuments(connection, MARKS, marks)
}

export async function dirtyBuckets(
  connection: MongoConnection,
  level: BucketLevel,
  limit: number,
): Promise<DirtyBucket[]> {
  const options = { maxTimeMS: connection.queryTimeMs }
  const starts = await marksOf(connection)
    .aggregate<{ _id: number }>(
      [
        { $match: { level } },
        // In this order of stages the server reads one key of the index for each start (DISTINCT_SCAN).
        { $sort: { level: -1, start_ms: -1 } },
        { $group: { _id: '$start_ms' } },
        { $sort: { _id: -1 } },
        { $limit: Math.max(1, limit) },
      ],
      options,
    )
    .toArray()
  const oldest = starts.at(-1)
  if (oldest === undefined) return []
  return await marksOf(connection)
    .aggregate<DirtyBucket>(
      [
        { $match: { level, start_ms: { $gte: oldest._id } } },
        {
          $group: {
            _id: '$start_ms',
            marks: { $sum: 1 },
            firstAtMs: { $min: '$at_ms' },
            lastAtMs: { $max: '$at_ms' },
          },
        },
        { $sort: { _id: -1 } },
        // A newer start may have been marked in between.
        { $limit: Math.max(1, limit) },
        { $project: { _id: 0, startMs: '$_id', marks: 1, firstAtMs: 1, lastAtMs: 1 } },
      ],
      options,
    )
    .toArray()
}

export async function readMarks(connection: MongoConnection, level: BucketLevel, startMs: number): Promise<Mark[]> {
  const options = { maxTimeMS: connection.queryTimeMs, projection: { hosts: 1 }, batchSize: 10_000 }
  const marks = await marksOf(connection).find({ level, start_ms: startMs }, options).toArray()
  return marks.map(({ _id, hosts }) => ({ id: _id.toHexString(), hosts }))
}

export async function deleteMarks(connection: MongoConnection, ids: readonly string[]): Promise<void> {
  const marks = ids.map((id) => ObjectId.createFromHexString(id))
  await deleteByIds(connection, MARKS, marks)
}

export async function countMarks(connection: MongoConnection, fromMs: number, toMs: number): Promise<number> {
  const filter = { level: { $in: LEVELS }, start_ms: { $gte: fromMs, $lt: toMs } }
  return await marksOf(connection).countDocuments(filter, { maxTimeMS: connection.queryTimeMs })
}

function marksOf(connection: MongoConnection) {
  return connection.db.collection<MarkDocument>(MARKS)
}
