// The documents of `cost_ledger`, both ways: a bucket to its document, and a document's bytes back to the bucket,
// without the driver's objects in between (reading/bson-reader.ts), since reports and `verify` read them by the
// million. A document of an unexpected form goes through the driver's own decoder. Field names are published.

import type { ObjectId } from 'mongodb'
import type { BucketLevel } from '../../../domain/ledger/buckets.ts'
import { type CellRowJson, rowFromJson, rowToJson } from '../../../domain/ledger/row-json.ts'
import { AMOUNT_FIELDS, emptyRow } from '../../../domain/ledger/rows.ts'
import type { CellRow } from '../../../domain/ledger/types.ts'
import { bucketId } from '../../bucket-id.ts'
import type { LedgerBucket } from '../../ledger-store.ts'
import { BsonReader, type FieldKind, type ReadDocument } from '../reading/bson-reader.ts'
import { documentOf } from '../reading/find-page.ts'

export interface BucketDocument<R = CellRowJson> {
  /** Level, start and host (bucket-id.ts). */
  _id: string
  level: BucketLevel
  start: Date
  host: string | null
  rev: number
  rows: R[]
  /** Both or none. */
  model_sums?: R[]
  tenant_sums?: R[]
  book_versions: number[]
  capped: number
  computed_at: Date
  /** Of the write that made the document (bucket-writes.ts). */
  write_id: ObjectId
}

const INTEGER_FIELDS = [...AMOUNT_FIELDS, 'energy_mj'] as const

/** The document that replaces a bucket. */
export function toDocument(bucket: LedgerBucket, writeId: ObjectId): BucketDocument {
  return {
    _id: bucketId(bucket.level, bucket.startMs, bucket.host),
    level: bucket.level,
    start: new Date(bucket.startMs),
    host: bucket.host,
    rev: bucket.rev + 1,
    rows: bucket.rows.map(toRowDocument),
    ...(bucket.totals === null
      ? {}
      : { model_sums: bucket.totals.model.map(toRowDocument), tenant_sums: bucket.totals.tenant.map(toRowDocument) }),
    book_versions: bucket.bookVersions,
    capped: bucket.capped,
    computed_at: new Date(bucket.computedMs),
    write_id: writeId,
  }
}

/** As in JSON, but integers are BSON longs, so that a field has one type; text only beyond 2⁶³. */
function toRowDocument(row: CellRow): CellRowJson {
  const document = rowToJson(row) as Record<string, unknown>
  for (const field of INTEGER_FIELDS) {
    const value = row[field]
    if (document[field] !== undefined && value !== null && BigInt.asIntN(64, value) === value) document[field] = value
  }
  return document as CellRowJson
}

/** The bucket of the document that begins at `start`. */
export function bucketOf(bytes: Buffer, start = 0): LedgerBucket {
  const read = BUCKET.tryRead(bytes, start)
  if (read !== null) return toBucket(read, (row) => row)
  // Longs as BigInt: the driver would make numbers of them, and lose what is beyond 2⁵³.
  return toBucket(documentOf(bytes, start, { useBigInt64: true }) as BucketDocument, rowFromJson)
}

function toBucket<R>(document: BucketDocument<R>, toRow: (row: R) => CellRow): LedgerBucket {
  const { model_sums: model, tenant_sums: tenant } = document
  const hasTotals = model !== undefined && tenant !== undefined
  return {
    level: document.level,
    startMs: document.start.getTime(),
    host: document.host,
    rev: Number(document.rev),
    bookVersions: document.book_versions.map(Number),
    rows: document.rows.map(toRow),
    totals: hasTotals ? { model: model.map(toRow), tenant: tenant.map(toRow) } : null,
    capped: Number(document.capped),
    computedMs: document.computed_at.getTime(),
  }
}

const NO_KEY = {
  gpu_index: 0,
  gpu_uuid: null,
  gpu_name: null,
  model: null,
  tenant: null,
  price_kind: 'default',
} as const

const ROW = new BsonReader<CellRow>(
  {
    gpu_index: 'number',
    gpu_uuid: 'text',
    gpu_name: 'text',
    model: 'text',
    tenant: 'text',
    price_kind: 'text',
    ...Object.fromEntries(AMOUNT_FIELDS.map((field) => [field, 'integer' as const])),
    energy_mj: 'integer',
    basis: 'text',
    method: 'text',
  } satisfies Partial<Record<keyof CellRow, FieldKind>>,
  () => emptyRow(NO_KEY),
)

const rowOf: ReadDocument<CellRow> = (bytes, start) => ROW.read(bytes, start)

const BUCKET = new BsonReader<BucketDocument<CellRow>>(
  {
    level: 'text',
    start: 'date',
    host: 'text',
    rev: 'number',
    rows: rowOf,
    model_sums: rowOf,
    tenant_sums: rowOf,
    book_versions: 'numbers',
    capped: 'number',
    computed_at: 'date',
  },
  () => ({}) as BucketDocument<CellRow>,
)
