// Buckets of the ledger in `cost_ledger`, one document each, read by range of time and host: in pages of single `find`
// commands, the next of which is on its way while one is used.

import type { Document } from 'mongodb'
import type { BucketLevel } from '../../../domain/ledger/buckets.ts'
import type { RowTotals } from '../../../domain/ledger/types.ts'
import { bucketId, bucketIdPages, bucketIdRange } from '../../bucket-id.ts'
import type { LedgerBucket } from '../../ledger-store.ts'
import { COST_LEDGER } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { findPage } from '../reading/find-page.ts'
import { readAhead } from '../reading/read-ahead.ts'
import { bucketOf } from './bucket-documents.ts'

const PAGE_BUCKETS = 100

interface BucketRange {
  fromMs: number
  toMs: number
  hosts: readonly (string | null)[] | undefined
}

/** Buckets of a range by (start, host), in pages. */
export function readBuckets(
  connection: MongoConnection,
  level: BucketLevel,
  fromMs: number,
  toMs: number,
  hosts?: readonly (string | null)[],
): AsyncGenerator<LedgerBucket[]> {
  return readPages(connection, level, { fromMs, toMs, hosts }, {})
}

/** The same with their totals in place of the rows where they have them, and never with both. */
export function readTotals(
  connection: MongoConnection,
  by: keyof RowTotals,
  level: BucketLevel,
  fromMs: number,
  toMs: number,
  hosts?: readonly (string | null)[],
): AsyncGenerator<LedgerBucket[]> {
  const fields = { level: 1, start: 1, host: 1, rev: 1, book_versions: 1, capped: 1, computed_at: 1 }
  const rows = { $ifNull: [`$${by}_sums`, '$rows'] }
  return readPages(connection, level, { fromMs, toMs, hosts }, { projection: { ...fields, rows } })
}

async function* readPages(
  connection: MongoConnection,
  level: BucketLevel,
  { fromMs, toMs, hosts }: BucketRange,
  options: { projection?: Document },
): AsyncGenerator<LedgerBucket[]> {
  const find = (filter: Document) => readAhead(pagesOf(connection, filter, options))
  const idPages = hosts === undefined ? null : bucketIdPages(level, { fromMs, toMs, hosts }, PAGE_BUCKETS)
  if (idPages !== null) {
    for (const ids of idPages) yield* find({ _id: { $in: ids } })
    return
  }
  const { from, to } = bucketIdRange(level, fromMs, toMs)
  const ofHosts = hosts === undefined ? {} : { host: { $in: [...hosts] } }
  yield* find({ _id: { $gte: from, $lt: to }, ...ofHosts })
}

async function* pagesOf(
  connection: MongoConnection,
  filter: Document,
  options: { projection?: Document },
): AsyncGenerator<LedgerBucket[], void, undefined> {
  const query = { sort: { _id: 1 }, limit: PAGE_BUCKETS, read: bucketOf, ...options } as const
  for (let behind = {}; ; ) {
    const page = await findPage(connection.db, COST_LEDGER, { filter: { $and: [filter, behind] }, ...query })
    yield page.documents
    if (page.isLast) return
    const { level, startMs, host } = page.documents.at(-1)!
    behind = { _id: { $gt: bucketId(level, startMs, host) } }
  }
}
