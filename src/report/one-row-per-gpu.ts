// Time that is not monitored has no sample, and so no uuid: a rule names its slot. Where a slot had one GPU only, that
// time is this GPU's, so that a GPU is one row. Where there were two, or none was ever seen, it stays the slot's.

import { addAmounts, totalNanoUsd } from '../domain/ledger/rows.ts'
import type { LedgerAmounts } from '../domain/ledger/types.ts'

interface GpuRow {
  key: { host: string | null; gpu_index: number | null; gpu_uuid: string | null }
  amounts: LedgerAmounts
}

/** The rows of a step by GPU, with unmonitored time joined to its GPU. */
export function oneRowPerGpu<Row extends GpuRow>(rows: readonly Row[]): Row[] {
  const seen = new Map<string, string | null>()
  for (const { key } of rows) {
    if (key.gpu_uuid === null) continue
    const slot = slotOf(key)
    const known = seen.get(slot)
    seen.set(slot, known === undefined || known === key.gpu_uuid ? key.gpu_uuid : null)
  }
  if (seen.size === 0) return [...rows]
  const joined = new Map<string, Row>()
  for (const row of rows) {
    const gpu_uuid = row.key.gpu_uuid ?? (totalNanoUsd(row.amounts) === 0n ? (seen.get(slotOf(row.key)) ?? null) : null)
    const key = { ...row.key, gpu_uuid }
    const id = JSON.stringify(Object.values(key))
    const known = joined.get(id)
    if (known === undefined) joined.set(id, { ...row, key })
    else addAmounts(known.amounts, row.amounts)
  }
  return [...joined.values()]
}

function slotOf({ host, gpu_index }: GpuRow['key']): string {
  return `${gpu_index} ${host}`
}
