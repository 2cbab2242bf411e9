// A slot's minute with tokens: who used it is known, so all of its cost is theirs. The minute's time without samples is
// assumed present and busy; busy and idle are rounded once each and split over (model, tenant) by weighted tokens and
// over the price kinds by what each kind's time cost. Counts and milliseconds are split the same way, so that every sum
// over rows is the slot's own figure. Rules: docs/cost-model.md.

import { divideRounded, MS_PER_HOUR } from '../prices/money.ts'
import type { TokenWeights } from '../prices/price-book.ts'
import type { PriceKind } from '../prices/price-rule.ts'
import { apportion } from './apportion.ts'
import { type SlotCoverage, UTILIZATION_SCALE } from './coverage.ts'
import { compareText, emptyRow } from './rows.ts'
import type { SlotUsage } from './token-totals.ts'
import type { Basis, CellRow, Method } from './types.ts'

/** Amounts are kept as price × ms × utilisation until they are rounded: 10⁻⁹ USD/h × ms × 1/10,000. */
export const AMOUNT_DIVISOR = MS_PER_HOUR * BigInt(UTILIZATION_SCALE)

/** Time and cost of one price kind in one slot and minute, costs not yet divided. */
interface KindTotals {
  kind: PriceKind
  measuredMs: bigint
  presenceMs: bigint
  assumedMs: bigint
  busy: bigint
  idle: bigint
  assumed: bigint
  energyMj: bigint | null
}

/** The rows of a slot's minute with tokens: one for each (model, tenant) and price kind. */
export function minuteWithTokens(
  coverage: SlotCoverage,
  usages: readonly SlotUsage[],
  weights: TokenWeights,
): CellRow[] {
  const kinds = totalsByKind(coverage)
  const { shares, method } = sharesOf(usages, weights)
  const rows: CellRow[] = []
  for (const usage of usages) {
    for (const { kind } of kinds) {
      const { gpuIndex, uuid, name } = coverage
      const { model, tenant } = usage
      const key = { gpu_index: gpuIndex, gpu_uuid: uuid, gpu_name: name, model, tenant, price_kind: kind }
      const row = emptyRow(key)
      row.method = method
      rows.push(row)
    }
  }
  splitTime(rows, kinds, shares)
  splitCounts(rows, kinds, usages)
  splitMoney(rows, kinds, shares)
  if (method === 'weighted-tokens') splitByTokenClass(rows, usages, weights)
  return rows
}

function totalsByKind(coverage: SlotCoverage): KindTotals[] {
  const byKind = new Map<PriceKind, KindTotals>()
  const of = (kind: PriceKind) => {
    let totals = byKind.get(kind)
    if (totals === undefined) {
      totals = { kind, measuredMs: 0n, presenceMs: 0n, assumedMs: 0n, busy: 0n, idle: 0n, assumed: 0n, energyMj: null }
      byKind.set(kind, totals)
    }
    return totals
  }
  for (const { kind, ms, nanoUsdPerHour, utilization, energyMj } of coverage.covered) {
    const totals = of(kind)
    const used = utilization ?? UTILIZATION_SCALE
    if (utilization === null) totals.presenceMs += BigInt(ms)
    else totals.measuredMs += BigInt(ms)
    totals.busy += nanoUsdPerHour * BigInt(ms * used)
    totals.idle += nanoUsdPerHour * BigInt(ms * (UTILIZATION_SCALE - used))
    if (energyMj !== null) totals.energyMj = (totals.energyMj ?? 0n) + energyMj
  }
  for (const { kind, ms, nanoUsdPerHour } of coverage.assumedIntervals()) {
    const totals = of(kind)
    const cost = nanoUsdPerHour * BigInt(ms * UTILIZATION_SCALE)
    totals.assumedMs += BigInt(ms)
    totals.busy += cost
    totals.assumed += cost
  }
  return [...byKind.values()].sort((a, b) => compareText(a.kind, b.kind))
}

/** Each usage's share of the slot: weighted tokens, else requests, else events. */
function sharesOf(usages: readonly SlotUsage[], weights: TokenWeights): { shares: bigint[]; method: Method } {
  const byTokens = usages.map((usage) => classWeights(usage, weights).reduce((sum, weight) => sum + weight))
  if (byTokens.some((share) => share > 0n)) return { shares: byTokens, method: 'weighted-tokens' }
  const byRequests = usages.map((usage) => usage.touchedRequests)
  if (byRequests.some((share) => share > 0n)) return { shares: byRequests, method: 'requests' }
  return { shares: usages.map((usage) => usage.touchedEvents), method: 'events' }
}

/** Weighted tokens of a usage: uncached input, cached input, output. */
function classWeights(usage: SlotUsage, weights: TokenWeights): [bigint, bigint, bigint] {
  return [
    usage.uncachedPromptTokens * weights.input,
    usage.cachedPromptTokens * weights.cached,
    usage.completionTokens * weights.output,
  ]
}

/** Rows are ordered by usage, then by kind; milliseconds and energy of a kind are split over its rows. */
function splitTime(rows: CellRow[], kinds: readonly KindTotals[], shares: readonly bigint[]): void {
  for (const [k, kind] of kinds.entries()) {
    const measured = apportion(kind.measuredMs, shares)
    const presence = apportion(kind.presenceMs, shares)
    const assumed = apportion(kind.assumedMs, shares)
    const energy = kind.energyMj === null ? null : apportion(kind.energyMj, shares)
    const basis = basisOf(kind)
    for (const u of shares.keys()) {
      const row = rows[u * kinds.length + k]!
      row.covered_ms = measured[u]! + presence[u]!
      row.presence_ms = presence[u]!
      row.assumed_ms = assumed[u]!
      row.energy_mj = energy === null ? null : energy[u]!
      row.basis = basis
    }
  }
}

/** Splits tokens and requests of a usage over the kinds by time, and a row's tokens by its kind's basis. */
function splitCounts(rows: CellRow[], kinds: readonly KindTotals[], usages: readonly SlotUsage[]): void {
  const only = kinds[0]!
  if (kinds.length === 1 && only.presenceMs === 0n && only.assumedMs === 0n) {
    // The usual minute: nothing to split.
    for (const [u, usage] of usages.entries()) {
      const row = rows[u]!
      row.requests = usage.requests
      row.prompt_tokens = usage.uncachedPromptTokens + usage.cachedPromptTokens
      row.cached_prompt_tokens = usage.cachedPromptTokens
      row.completion_tokens = usage.completionTokens
      row.measured_tokens = row.prompt_tokens + row.completion_tokens
    }
    return
  }
  const times = kinds.map((kind) => kind.measuredMs + kind.presenceMs + kind.assumedMs)
  for (const [u, usage] of usages.entries()) {
    const requests = apportion(usage.requests, times)
    const uncached = apportion(usage.uncachedPromptTokens, times)
    const cached = apportion(usage.cachedPromptTokens, times)
    const completion = apportion(usage.completionTokens, times)
    for (const [k, kind] of kinds.entries()) {
      const row = rows[u * kinds.length + k]!
      row.requests = requests[k]!
      row.prompt_tokens = uncached[k]! + cached[k]!
      row.cached_prompt_tokens = cached[k]!
      row.completion_tokens = completion[k]!
      const tokens = row.prompt_tokens + row.completion_tokens
      row.measured_tokens = apportion(tokens, [kind.measuredMs, kind.presenceMs, kind.assumedMs])[0]!
    }
  }
}

function splitMoney(rows: CellRow[], kinds: readonly KindTotals[], shares: readonly bigint[]): void {
  const rounded = (of: (kind: KindTotals) => bigint) =>
    divideRounded(
      kinds.reduce((total, kind) => total + of(kind), 0n),
      AMOUNT_DIVISOR,
    )
  // With one kind the shares alone are in the same proportion, and small.
  const split = (total: bigint, of: (kind: KindTotals) => bigint) =>
    apportion(total, kinds.length === 1 ? shares : shares.flatMap((share) => kinds.map((kind) => share * of(kind))))
  // The whole and the busy part are rounded; idle is what is left, so that the three close.
  const total = rounded((kind) => kind.busy + kind.idle)
  const busy = rounded((kind) => kind.busy)
  const assumed = rounded((kind) => kind.assumed)
  const busyParts = split(busy, (kind) => kind.busy)
  const idleParts = split(total - busy, (kind) => kind.idle)
  const assumedParts = split(assumed, (kind) => kind.assumed)
  for (const [i, row] of rows.entries()) {
    row.busy_nano_usd = busyParts[i]!
    row.loaded_idle_nano_usd = idleParts[i]!
    row.assumed_nano_usd = assumedParts[i]!
  }
}

function splitByTokenClass(rows: CellRow[], usages: readonly SlotUsage[], weights: TokenWeights): void {
  const kinds = rows.length / usages.length
  for (const [i, row] of rows.entries()) {
    const parts = classWeights(usages[Math.floor(i / kinds)]!, weights)
    const cost = row.busy_nano_usd + row.loaded_idle_nano_usd
    if (cost === 0n) continue
    const [input, cached, output] = apportion(cost, parts) as [bigint, bigint, bigint]
    row.input_nano_usd = input
    row.cached_nano_usd = cached
    row.output_nano_usd = output
  }
}

/** What the time of a kind rests on; `mixed` where that is more than one. */
function basisOf(kind: KindTotals): Basis {
  const found: Basis[] = []
  if (kind.measuredMs > 0n) found.push('measured')
  if (kind.presenceMs > 0n) found.push('presence')
  if (kind.assumedMs > 0n) found.push('assumed')
  return found.length > 1 ? 'mixed' : (found[0] ?? 'none')
}
