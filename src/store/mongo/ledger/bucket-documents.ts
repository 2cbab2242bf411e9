// The documents that the ledger reads by the million, made straight from their bytes: spans with their rows, samples, and
// token usage. A document that is not as ours are goes through the driver's own decoder instead.

import type { BucketLevel } from '../../../domain/ledger/buckets.ts'
import { type CellRowJson, rowFromJson } from '../../../domain/ledger/row-json.ts'
import { AMOUNT_FIELDS, emptyRow } from '../../../domain/ledger/rows.ts'
import type { CellRow, LedgerSample, LedgerToken } from '../../../domain/ledger/types.ts'
import type { LedgerBucket } from '../../ledger-store.ts'
import { BsonReader, type FieldKind, type ReadDocument, UnsupportedBson } from '../reading/bson-reader.ts'
import { documentOf } from '../reading/find-page.ts'

export type HostSample = LedgerSample & { host: string | null }

/** A span as it is in `cost_ledger`. */
export interface StoredBucket<R = CellRowJson> {
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
}

/** The span of the document that begins at `start`. */
export function bucketOf(bytes: Buffer, start = 0): LedgerBucket {
  const read = readBy(SPAN, bytes, start)
  if (read !== null) return toSpan(read, (row) => row)
  // Longs as BigInt: the driver would make numbers of them, and lose what is beyond 2⁵³.
  return toSpan(documentOf(bytes, start, { useBigInt64: true }) as StoredBucket, rowFromJson)
}

/** The sample of a document, with the ledger's fields and perhaps others. */
export function sampleOf(bytes: Buffer, start = 0): HostSample {
  return readBy(SAMPLE, bytes, start) ?? (documentOf(bytes, start) as HostSample)
}

/** The token usage of a document, with the ledger's fields and perhaps others. */
export function tokenOf(bytes: Buffer, start = 0): LedgerToken {
  return readBy(TOKEN, bytes, start) ?? (documentOf(bytes, start) as LedgerToken)
}

/** What a reader reads; null where the document is unusual. */
function readBy<T extends object>(reader: BsonReader<T>, bytes: Buffer, start: number): T | null {
  try {
    return reader.read(bytes, start)
  } catch (error) {
    if (error instanceof UnsupportedBson) return null
    throw error
  }
}

function toSpan<R>(stored: StoredBucket<R>, toRow: (row: R) => CellRow): LedgerBucket {
  const { model_sums: model, tenant_sums: tenant } = stored
  const hasSums = model !== undefined && tenant !== undefined
  return {
    level: stored.level,
    startMs: stored.start.getTime(),
    host: stored.host,
    rev: Number(stored.rev),
    bookVersions: stored.book_versions.map(Number),
    rows: stored.rows.map(toRow),
    sums: hasSums ? { model: model.map(toRow), tenant: tenant.map(toRow) } : null,
    capped: Number(stored.capped),
    computedMs: stored.computed_at.getTime(),
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

const SPAN = new BsonReader<StoredBucket<CellRow>>(
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
  () => ({}) as StoredBucket<CellRow>,
)

const SAMPLE = new BsonReader<HostSample>(
  {
    _id: 'text',
    ts: 'date',
    host: 'text',
    gpu_index: 'number',
    uuid: 'text',
    name: 'text',
    utilization: 'number',
    mem_used_mb: 'number',
    mem_total_mb: 'number',
    power_w: 'number',
    energy_j: 'number',
    price_per_hour_usd: 'number',
    model_loaded: 'text',
  } satisfies Record<keyof HostSample, FieldKind>,
  () => ({}) as HostSample,
)

const TOKEN = new BsonReader<LedgerToken>(
  {
    _id: 'text',
    ts: 'date',
    host: 'text',
    gpu_index: 'number',
    gpus: 'numbers',
    model: 'text',
    tenant: 'text',
    prompt_tokens: 'number',
    completion_tokens: 'number',
    cached_prompt_tokens: 'number',
    requests: 'number',
  } satisfies Record<keyof LedgerToken, FieldKind>,
  () => ({}) as LedgerToken,
)
