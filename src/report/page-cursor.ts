// Where a page of rows ended: the start and key of its last row, so that the next page goes on right after it whatever
// has been added meanwhile. A cursor comes back from outside; anything that is not one reads as null.

import { type CostKey, type CostRow, compareKeys } from './cost-grouping.ts'

export type RowPlace = Pick<CostRow, 'startMs' | 'key'>

/** The cursor after a row. */
export function cursorAfter({ startMs, key }: RowPlace): string {
  const { model, tenant, host, gpu_index, gpu_uuid, price_kind } = key
  const fields = [startMs, model, tenant, host, gpu_index, gpu_uuid, price_kind]
  return Buffer.from(JSON.stringify(fields)).toString('base64url')
}

/** The place that a cursor names, null when it is no cursor. */
export function placeOf(cursor: string): RowPlace | null {
  let fields: unknown
  try {
    fields = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'))
  } catch {
    return null
  }
  if (!Array.isArray(fields) || fields.length !== 7) return null
  const [startMs, model, tenant, host, gpu_index, gpu_uuid, price_kind] = fields as unknown[]
  const areTexts = [model, tenant, host, gpu_uuid, price_kind].every(
    (each) => each === null || typeof each === 'string',
  )
  if (!areTexts || !Number.isSafeInteger(startMs) || !(gpu_index === null || Number.isSafeInteger(gpu_index)))
    return null
  return { startMs: startMs as number, key: { model, tenant, host, gpu_index, gpu_uuid, price_kind } as CostKey }
}

/** Whether a row comes after a place in the order of an answer. */
export function isAfter(row: RowPlace, place: RowPlace): boolean {
  return row.startMs > place.startMs || (row.startMs === place.startMs && compareKeys(row.key, place.key) > 0)
}
