// Token usage of a cell as the ledger needs it: per GPU, the tokens of each (model, tenant). An event on several GPUs
// spreads its counts over them as whole numbers, the remainder to the lowest index; because this happens per event, a
// group carries both Σ count and Σ floor(count / n) (types.ts). Names beyond the book's limits overflow into `other`;
// the ones with the most tokens of the cell are kept, ties by name: one careless tenant label must not fill a store.

import { gpuIndexesOf } from '../events/event.ts'
import { compareText } from './rows.ts'
import { type Count, type LedgerToken, OTHER_NAME, type TokenCounts, type TokenTotals } from './types.ts'

/** Usage of one (model, tenant) on one GPU in one minute. */
export interface SlotUsage {
  model: string
  tenant: string | null
  requests: bigint
  uncachedPromptTokens: bigint
  cachedPromptTokens: bigint
  completionTokens: bigint
  /** Requests and events that this GPU took part in, not spread over the GPUs: for shares where no token has weight. */
  touchedRequests: bigint
  touchedEvents: bigint
}

/** Names that are kept as they are; null means all. */
interface KeptNames {
  models: ReadonlySet<string> | null
  tenants: ReadonlySet<string> | null
  /** How many names went into `other`. */
  overflow: number
}

const COUNT_FIELDS = ['requests', 'uncached_prompt_tokens', 'cached_prompt_tokens', 'completion_tokens'] as const

/** The totals of a single event: a store's grouping of one. */
export function totalsOfEvent(event: LedgerToken): TokenTotals {
  const totals: TokenTotals = {
    gpus: gpuIndexesOf(event),
    model: event.model,
    tenant: event.tenant ?? null,
    events: 0,
    sum: { requests: 0, uncached_prompt_tokens: 0, cached_prompt_tokens: 0, completion_tokens: 0 },
    each: { requests: 0, uncached_prompt_tokens: 0, cached_prompt_tokens: 0, completion_tokens: 0 },
  }
  addEvent(totals, event)
  return totals
}

/** Adds an event to the totals of its group, in place. */
export function addEvent(totals: TokenTotals, event: LedgerToken): void {
  const { prompt_tokens: prompt, completion_tokens: completion } = event
  const requests = event.requests ?? 1
  const cached = event.cached_prompt_tokens ?? 0
  if (prompt + completion + requests > 0) totals.events = plus(totals.events, 1)
  addCount(totals, 'requests', requests)
  addCount(totals, 'uncached_prompt_tokens', prompt - cached)
  addCount(totals, 'cached_prompt_tokens', cached)
  addCount(totals, 'completion_tokens', completion)
}

function addCount({ gpus, sum, each }: TokenTotals, field: keyof TokenCounts, count: number): void {
  sum[field] = plus(sum[field], count)
  each[field] = plus(each[field], Math.floor(count / gpus.length))
}

/** A number while it is exact, BigInt beyond. */
function plus(sum: Count, count: number): Count {
  const total = typeof sum === 'number' ? sum + count : Number.NaN
  return Number.isSafeInteger(total) ? total : BigInt(sum) + BigInt(count)
}

/** Whether a group used anything: an event with no tokens and no requests counts as none. */
export function isUsage(totals: TokenTotals): boolean {
  return COUNT_FIELDS.some((field) => BigInt(totals.sum[field]) > 0n)
}

/** Which names of a cell are kept: those with the most tokens. `loadedModels` are models that samples report. */
export function keptNames(
  totals: readonly TokenTotals[],
  loadedModels: Iterable<string>,
  limits: { models: number; tenants: number },
): KeptNames {
  const models = new Map<string, bigint>()
  const tenants = new Map<string, bigint>()
  for (const model of loadedModels) models.set(model, 0n)
  for (const group of totals) {
    const { uncached_prompt_tokens, cached_prompt_tokens, completion_tokens } = group.sum
    const tokens = BigInt(uncached_prompt_tokens) + BigInt(cached_prompt_tokens) + BigInt(completion_tokens)
    models.set(group.model, (models.get(group.model) ?? 0n) + tokens)
    if (group.tenant !== null) tenants.set(group.tenant, (tenants.get(group.tenant) ?? 0n) + tokens)
  }
  const overflow = Math.max(0, models.size - limits.models) + Math.max(0, tenants.size - limits.tenants)
  return { models: largest(models, limits.models), tenants: largest(tenants, limits.tenants), overflow }
}

/** A name as it goes into the ledger. */
export function keptName<T extends string | null>(name: T, kept: ReadonlySet<string> | null): T | typeof OTHER_NAME {
  return name === null || kept === null || kept.has(name) ? name : OTHER_NAME
}

/** Usage per GPU, each GPU's sorted by model and tenant. Groups that used nothing are skipped. */
export function usageBySlot(totals: readonly TokenTotals[], kept: KeptNames): Map<number, SlotUsage[]> {
  const slots = new Map<number, Map<string, SlotUsage>>()
  for (const group of totals) {
    const model = keptName(group.model, kept.models)
    const tenant = keptName(group.tenant, kept.tenants)
    // The length separates the model from the tenant.
    const key = `${model.length} ${model}${tenant === null ? '' : ` ${tenant}`}`
    const lowest = Math.min(...group.gpus)
    for (const gpu of group.gpus) {
      const slot = slots.get(gpu) ?? new Map<string, SlotUsage>()
      const usage = slot.get(key) ?? noUsage(model, tenant)
      slots.set(gpu, slot.set(key, usage))
      addShare(usage, group, gpu === lowest)
    }
  }
  const sorted = new Map<number, SlotUsage[]>()
  for (const [gpu, usages] of slots) {
    sorted.set(
      gpu,
      [...usages.values()].sort((a, b) => compareText(a.model, b.model) || compareText(a.tenant, b.tenant)),
    )
  }
  return sorted
}

function noUsage(model: string, tenant: string | null): SlotUsage {
  return {
    model,
    tenant,
    requests: 0n,
    uncachedPromptTokens: 0n,
    cachedPromptTokens: 0n,
    completionTokens: 0n,
    touchedRequests: 0n,
    touchedEvents: 0n,
  }
}

function addShare(usage: SlotUsage, group: TokenTotals, isLowest: boolean): void {
  const others = BigInt(group.gpus.length - 1)
  const share = (field: keyof TokenCounts) => {
    const each = BigInt(group.each[field])
    return isLowest ? BigInt(group.sum[field]) - each * others : each
  }
  usage.requests += share('requests')
  usage.uncachedPromptTokens += share('uncached_prompt_tokens')
  usage.cachedPromptTokens += share('cached_prompt_tokens')
  usage.completionTokens += share('completion_tokens')
  usage.touchedRequests += BigInt(group.sum.requests)
  usage.touchedEvents += BigInt(group.events)
}

/** The `limit` names with the most tokens, ties by name; null when there are no more than that. */
function largest(tokens: Map<string, bigint>, limit: number): Set<string> | null {
  if (tokens.size <= limit) return null
  const ranked = [...tokens].sort((a, b) => (a[1] < b[1] ? 1 : a[1] > b[1] ? -1 : compareText(a[0], b[0])))
  return new Set(ranked.slice(0, limit).map(([name]) => name))
}
