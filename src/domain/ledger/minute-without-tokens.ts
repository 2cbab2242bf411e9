// A slot's minute without tokens: what used it can only be seen from the samples. Busy time stays busy (a long request,
// another program) and belongs to the model that the sample reports as loaded, or to null. Idle time is that model's
// too; null's where at least 5 % of the memory is in use; else it is unallocated. Time that no sample covers but a
// commitment pays for is uncovered: unreported, and beside the three. Rules: docs/cost-model.md.

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

/** The rows of a slot's minute without tokens: one for each loaded model (or null) and price kind. */
export function minuteWithoutTokens(coverage: SlotCoverage, covered: readonly CoveredInterval[]): CellRow[] {
  return withUncovered(coverage, coveredRows(coverage, covered))
}

function coveredRows(coverage: SlotCoverage, covered: readonly CoveredInterval[]): CellRow[] {
  const open = new Map<string, OpenRow>()
  for (const interval of covered) addInterval(openRow(open, coverage, interval), interval)
  const sorted = [...open.values()].sort((a, b) => compareRows(a.row, b.row))
  if (sorted.length > 0) round(sorted)
  return sorted.map(({ row }) => row)
}

/** Adds the slot's uncovered time to the rows without a model. */
function withUncovered(coverage: SlotCoverage, rows: CellRow[]): CellRow[] {
  const intervals = coverage.committedIntervals()
  if (intervals.length === 0) return rows
  const kinds = [...new Set(intervals.map((interval) => interval.kind))].sort()
  const costs = kinds.map((kind) =>
    intervals.reduce((sum, part) => (part.kind === kind ? sum + part.nanoUsdPerHour * BigInt(part.ms) : sum), 0n),
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
    for (const interval of intervals) if (interval.kind === kind) row.uncovered_ms += BigInt(interval.ms)
    row.uncovered_nano_usd = parts[i]!
  }
  return result
}

function openRow(open: Map<string, OpenRow>, coverage: SlotCoverage, { modelLoaded, kind }: CoveredInterval): OpenRow {
  const key = JSON.stringify([modelLoaded, kind])
  let found = open.get(key)
  if (found === undefined) {
    found = { row: rowOf(coverage, modelLoaded, kind), busy: 0n, loadedIdle: 0n, unallocated: 0n }
    open.set(key, found)
  }
  return found
}

function rowOf({ gpuIndex, uuid, name }: SlotCoverage, model: string | null, kind: PriceKind): CellRow {
  return emptyRow({ gpu_index: gpuIndex, gpu_uuid: uuid, gpu_name: name, model, tenant: null, price_kind: kind })
}

function addInterval(open: OpenRow, interval: CoveredInterval): void {
  const used = interval.utilization ?? UTILIZATION_SCALE
  const idle = interval.nanoUsdPerHour * BigInt(interval.ms * (UTILIZATION_SCALE - used))
  const isHeld = interval.modelLoaded !== null || interval.memoryHeld
  open.busy += interval.nanoUsdPerHour * BigInt(interval.ms * used)
  if (isHeld) open.loadedIdle += idle
  else open.unallocated += idle
  addAmounts(open.row, {
    ...noAmounts(),
    covered_ms: BigInt(interval.ms),
    presence_ms: interval.utilization === null ? BigInt(interval.ms) : 0n,
    energy_mj: interval.energyMj,
    basis: interval.utilization === null ? 'presence' : 'measured',
    method: interval.modelLoaded !== null ? 'model-loaded' : isHeld ? 'memory' : 'none',
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
