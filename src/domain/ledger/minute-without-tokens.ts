// A slot's minute without tokens: nobody says who used it, so the samples are asked. Busy time stays busy (a long
// request, another program), of the model that the sample says is loaded, or of null. Idle time is that model's too; of
// null where at least 5 % of the memory is in use; else it is unallocated. Time that no sample covers but that a rule
// says is paid for is uncovered: beside the three, dark. Source: DESIGN.md, section 4, "No tokens".

import { divideRounded, MS_PER_HOUR } from '../prices/money.ts'
import type { PriceKind } from '../prices/price-rule.ts'
import { apportion } from './apportion.ts'
import { type CoveredInterval, type SlotCoverage, UTILIZATION_SCALE } from './coverage.ts'
import { AMOUNT_DIVISOR } from './minute-with-tokens.ts'
import { addAmounts, compareRows, emptyRow, noAmounts } from './rows.ts'
import type { CellRow } from './types.ts'

/** A row in the making: its costs not yet divided. */
interface OpenRow {
  row: CellRow
  busy: bigint
  loadedIdle: bigint
  unallocated: bigint
}

/** The rows of a slot's covered time without tokens: one for each loaded model (or null) and price kind. */
export function idleRows(coverage: SlotCoverage, covered: readonly CoveredInterval[]): CellRow[] {
  const open = new Map<string, OpenRow>()
  for (const span of covered) addSpan(openRow(open, coverage, span), span)
  const sorted = [...open.values()].sort((a, b) => compareRows(a.row, b.row))
  if (sorted.length > 0) round(sorted)
  return sorted.map(({ row }) => row)
}

/** `rows` and the slot's uncovered time, in the rows of nobody. */
export function uncoveredRows(coverage: SlotCoverage, rows: CellRow[]): CellRow[] {
  const spans = coverage.uncoveredSpans()
  if (spans.length === 0) return rows
  const kinds = [...new Set(spans.map((span) => span.kind))].sort()
  const costs = kinds.map((kind) =>
    spans.reduce((sum, span) => (span.kind === kind ? sum + span.nanoUsdPerHour * BigInt(span.ms) : sum), 0n),
  )
  const total = divideRounded(
    costs.reduce((sum, cost) => sum + cost),
    MS_PER_HOUR,
  )
  const parts = apportion(total, costs)
  const result = [...rows]
  for (const [i, kind] of kinds.entries()) {
    let row = result.find((candidate) => candidate.model === null && candidate.price_kind === kind)
    if (row === undefined) {
      row = rowOf(coverage, null, kind)
      result.push(row)
    }
    for (const span of spans) if (span.kind === kind) row.uncovered_ms += BigInt(span.ms)
    row.uncovered_nano_usd = parts[i]!
  }
  return result
}

function openRow(open: Map<string, OpenRow>, coverage: SlotCoverage, span: CoveredInterval): OpenRow {
  const key = JSON.stringify([span.modelLoaded, span.kind])
  let found = open.get(key)
  if (found === undefined) {
    found = { row: rowOf(coverage, span.modelLoaded, span.kind), busy: 0n, loadedIdle: 0n, unallocated: 0n }
    open.set(key, found)
  }
  return found
}

function rowOf({ gpuIndex, uuid, name }: SlotCoverage, model: string | null, kind: PriceKind): CellRow {
  return emptyRow({ gpu_index: gpuIndex, gpu_uuid: uuid, gpu_name: name, model, tenant: null, price_kind: kind })
}

function addSpan(open: OpenRow, span: CoveredInterval): void {
  const used = span.utilization ?? UTILIZATION_SCALE
  const idle = span.nanoUsdPerHour * BigInt(span.ms * (UTILIZATION_SCALE - used))
  const isHeld = span.modelLoaded !== null || span.memoryHeld
  open.busy += span.nanoUsdPerHour * BigInt(span.ms * used)
  if (isHeld) open.loadedIdle += idle
  else open.unallocated += idle
  addAmounts(open.row, {
    ...noAmounts(),
    covered_ms: BigInt(span.ms),
    presence_ms: span.utilization === null ? BigInt(span.ms) : 0n,
    energy_mj: span.energyMj,
    basis: span.utilization === null ? 'presence' : 'measured',
    method: span.modelLoaded !== null ? 'model-loaded' : isHeld ? 'memory' : 'none',
  })
}

/** Rounds the slot's whole and its busy part; idle is what is left, split over loaded idle and unallocated at once. */
function round(open: readonly OpenRow[]): void {
  const busyWeights = open.map(({ busy }) => busy)
  const idleWeights = open.flatMap(({ loadedIdle, unallocated }) => [loadedIdle, unallocated])
  const busySum = busyWeights.reduce((sum, weight) => sum + weight)
  const idleSum = idleWeights.reduce((sum, weight) => sum + weight)
  const busy = divideRounded(busySum, AMOUNT_DIVISOR)
  const busyParts = apportion(busy, busyWeights)
  const idleParts = apportion(divideRounded(busySum + idleSum, AMOUNT_DIVISOR) - busy, idleWeights)
  for (const [i, { row }] of open.entries()) {
    row.busy_nano_usd = busyParts[i]!
    row.loaded_idle_nano_usd = idleParts[2 * i]!
    row.unallocated_nano_usd = idleParts[2 * i + 1]!
  }
}
