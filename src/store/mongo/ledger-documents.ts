// The documents that the ledger reads by the million, made straight from their bytes: spans with their rows, samples, and
// token usage. A document that is not as ours are goes through the driver's own decoder instead.

import { BSON } from 'mongodb'
import { type CellRowJson, rowFromJson } from '../../domain/ledger-json.ts'
import { AMOUNT_FIELDS, noAmounts } from '../../domain/ledger-rows.ts'
import type { CellRow, LedgerSample, LedgerToken } from '../../domain/ledger-types.ts'
import type { Span, SpanLevel } from '../ledger-store.ts'
import { BsonReader, type FieldKind, Unusual } from './bson-reader.ts'

export type HostSample = LedgerSample & { host: string | null }

/** A span as it is in `cost_ledger`. */
export interface StoredSpan<R = CellRowJson> {
  level: SpanLevel
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

/** The span of a document. */
export function spanOf(bytes: Uint8Array): Span {
  const read = readBy(SPAN, bytes)
  if (read !== null) return toSpan(read, (row) => row)
  // Longs as BigInt: the driver would make numbers of them, and lose what is beyond 2⁵³.
  const stored = BSON.deserialize(bytes, { useBigInt64: true }) as StoredSpan
  return toSpan(stored, rowFromJson)
}

/** The sample of a document, with the ledger's fields and perhaps others. */
export function sampleOf(bytes: Uint8Array): HostSample {
  return readBy(SAMPLE, bytes) ?? (BSON.deserialize(bytes) as HostSample)
}

/** The token usage of a document, with the ledger's fields and perhaps others. */
export function tokenOf(bytes: Uint8Array): LedgerToken {
  return readBy(TOKEN, bytes) ?? (BSON.deserialize(bytes) as LedgerToken)
}

/** What a reader reads; null where the document is unusual. */
function readBy<T extends object>(reader: BsonReader<T>, bytes: Uint8Array): T | null {
  try {
    return reader.read(Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
  } catch (error) {
    if (error instanceof Unusual) return null
    throw error
  }
}

function toSpan<R>(stored: StoredSpan<R>, toRow: (row: R) => CellRow): Span {
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
  // All fields at once, so that rows have one shape.
  () => ({
    gpu_index: 0,
    gpu_uuid: null,
    gpu_name: null,
    model: null,
    tenant: null,
    price_kind: 'default',
    ...noAmounts(),
  }),
)

const SPAN = new BsonReader<StoredSpan<CellRow>>(
  {
    level: 'text',
    start: 'date',
    host: 'text',
    rev: 'number',
    rows: ROW,
    model_sums: ROW,
    tenant_sums: ROW,
    book_versions: 'numbers',
    capped: 'number',
    computed_at: 'date',
  },
  () => ({}) as StoredSpan<CellRow>,
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
