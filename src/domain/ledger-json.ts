// Rows of the ledger as JSON, for both stores and the API of one pertoken to another: integers as numbers where a double
// holds them exactly and as decimal text beyond ±(2⁵³ − 1); what is 0, null or `none` is left out, which makes the
// usual document half as long. Reading back gives exactly the row that was written.

import { AMOUNT_FIELDS, noAmounts } from './ledger-rows.ts'
import type { Basis, CellRow, Method, PriceKind } from './ledger-types.ts'

/** A BigInt in JSON. */
export type JsonInteger = number | string

/** A row as it is stored. */
export type CellRowJson = { gpu_index: number; price_kind: PriceKind } & {
  [K in Exclude<keyof CellRow, 'gpu_index' | 'price_kind'>]?: CellRow[K] extends bigint | null
    ? JsonInteger
    : Exclude<CellRow[K], null>
}

/** The stored form of a row. */
export function rowToJson(row: CellRow): CellRowJson {
  const json: Record<string, unknown> = { gpu_index: row.gpu_index }
  if (row.gpu_uuid !== null) json['gpu_uuid'] = row.gpu_uuid
  if (row.gpu_name !== null) json['gpu_name'] = row.gpu_name
  if (row.model !== null) json['model'] = row.model
  if (row.tenant !== null) json['tenant'] = row.tenant
  json['price_kind'] = row.price_kind
  for (const field of AMOUNT_FIELDS) if (row[field] !== 0n) json[field] = toJsonInteger(row[field])
  if (row.energy_mj !== null) json['energy_mj'] = toJsonInteger(row.energy_mj)
  if (row.basis !== 'none') json['basis'] = row.basis
  if (row.method !== 'none') json['method'] = row.method
  return json as CellRowJson
}

/** The row of a stored form. Throws a SyntaxError where an integer is none. */
export function rowFromJson(json: CellRowJson): CellRow {
  const row: CellRow = {
    gpu_index: json.gpu_index,
    gpu_uuid: json.gpu_uuid ?? null,
    gpu_name: json.gpu_name ?? null,
    model: json.model ?? null,
    tenant: json.tenant ?? null,
    price_kind: json.price_kind,
    ...noAmounts(),
  }
  for (const field of AMOUNT_FIELDS) {
    const value = json[field]
    if (value !== undefined) row[field] = BigInt(value)
  }
  if (json.energy_mj !== undefined) row.energy_mj = BigInt(json.energy_mj)
  row.basis = (json.basis as Basis | undefined) ?? 'none'
  row.method = (json.method as Method | undefined) ?? 'none'
  return row
}

function toJsonInteger(value: bigint): JsonInteger {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value.toString()
}
