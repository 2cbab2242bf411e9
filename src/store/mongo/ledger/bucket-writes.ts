// Buckets of the ledger in `cost_ledger`, replaced by rev. Whoever replaces buckets must learn which it replaced, also
// of many in one command: an insert names its duplicates, but an update reports only how many it matched. So every
// write carries a fresh `write_id`, and only where the number falls short are the documents read back to see whose they
// are. One that was ours and was replaced again before that counts as not replaced, which is safe: the caller computes
// it once more.

import { ObjectId } from 'mongodb'
import type { BucketLevel } from '../../../domain/ledger/buckets.ts'
import { bucketId } from '../../bucket-id.ts'
import type { LedgerBucket } from '../../ledger-store.ts'
import { COST_LEDGER } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { chunksOf } from '../events/command-size.ts'
import { bulkError, faultsOf, isDuplicateId } from '../events/writes.ts'
import { type BucketDocument, toDocument } from './bucket-documents.ts'

export async function readRevs(
  connection: MongoConnection,
  level: BucketLevel,
  startMs: number,
  hosts: readonly (string | null)[],
): Promise<Map<string | null, number>> {
  const ids = hosts.map((host) => bucketId(level, startMs, host))
  const options = { projection: { host: 1, rev: 1 }, maxTimeMS: connection.queryTimeMs, batchSize: 10_000 }
  const stored = await bucketsOf(connection)
    .find({ _id: { $in: ids } }, options)
    .toArray()
  return new Map(stored.map(({ host, rev }) => [host, rev]))
}

/** Replaces those whose stored rev is theirs. */
export async function replaceBuckets(
  connection: MongoConnection,
  buckets: readonly LedgerBucket[],
): Promise<boolean[]> {
  const writeId = new ObjectId()
  const replaced = new Set<string>()
  const fresh = buckets.filter(({ rev }) => rev === 0).map((bucket) => toDocument(bucket, writeId))
  for (const chunk of chunksOf(fresh)) await insertNew(connection, chunk, replaced)
  const updates = buckets
    .filter(({ rev }) => rev !== 0)
    .map((bucket) => {
      const u = toDocument(bucket, writeId)
      return { q: { _id: u._id, rev: bucket.rev }, u }
    })
  for (const chunk of chunksOf(updates)) await replaceExisting(connection, chunk, { writeId, replaced })
  return buckets.map(({ level, startMs, host }) => replaced.has(bucketId(level, startMs, host)))
}

async function insertNew(
  connection: MongoConnection,
  documents: readonly BucketDocument[],
  replaced: Set<string>,
): Promise<void> {
  const { writeConcern } = connection
  const reply = await connection.command({ insert: COST_LEDGER, documents, ordered: false, writeConcern })
  const faults = faultsOf(reply)
  const failed = faults.filter((fault) => !isDuplicateId(fault))
  if (failed.length > 0) throw bulkError(COST_LEDGER, failed, documents.length)
  const taken = new Set(faults.map((fault) => fault.index))
  for (const [i, { _id }] of documents.entries()) if (!taken.has(i)) replaced.add(_id)
}

async function replaceExisting(
  connection: MongoConnection,
  updates: readonly { q: { _id: string }; u: BucketDocument }[],
  { writeId, replaced }: { writeId: ObjectId; replaced: Set<string> },
): Promise<void> {
  const { writeConcern } = connection
  const reply = await connection.command({ update: COST_LEDGER, updates, ordered: false, writeConcern })
  const faults = faultsOf(reply)
  if (faults.length > 0) throw bulkError(COST_LEDGER, faults, updates.length)
  const ids = updates.map(({ q }) => q._id)
  if (Number(reply['n']) === updates.length) {
    for (const id of ids) replaced.add(id)
    return
  }
  const options = { projection: { _id: 1 }, maxTimeMS: connection.queryTimeMs, batchSize: 10_000 }
  const ours = await bucketsOf(connection)
    .find({ _id: { $in: ids }, write_id: writeId }, options)
    .toArray()
  for (const { _id } of ours) replaced.add(_id)
}

function bucketsOf(connection: MongoConnection) {
  return connection.db.collection<BucketDocument>(COST_LEDGER)
}
