// The read side of the live window: tokens per second and price of each slot and model, and of the fleet, over the
// window that ends at a wall-clock instant. The event time of an idle slot advances with the wall clock, so that its
// window empties.

import type { GpuDocument } from '../events/event.ts'
import { areTooFewLive } from './few-tokens.ts'
import { type LiveTotals, liveTotals } from './live-totals.ts'
import type { Slot } from './panes.ts'

/**
 * What a live price rests on: a rule; the rule of an owned GPU with what it draws now, or without where that is not
 * known; the sample's own price; the price book's default.
 */
export const PRICE_BASES = ['rule', 'rule_with_power', 'rule_without_power', 'sample', 'default'] as const

export interface LivePrice {
  usdPerHour: number
  basis: (typeof PRICE_BASES)[number]
}

/** Price of a slot at an instant; `sample` is its newest sample, if any. */
export type PriceOfSlot = (
  slot: { host: string | null; gpuIndex: number },
  sample: GpuDocument | null,
  atMs: number,
) => LivePrice

/** The live figures of one slot or model, over the window that ends now. */
export interface LiveSlot {
  host: string | null
  gpu_index: number
  gpu_uuid: string | null
  name: string | null
  utilization: number | null
  price_per_hour_usd: number
  price_basis: LivePrice['basis']
  tokens_per_second: number
  cost_per_token: number | null
  /** Fewer than 100 tokens in the window. */
  too_few_tokens: boolean
  last_sample: string | null
  /** False where neither a recent sample nor a token of the window shows the GPU. */
  monitored: boolean
}

export interface LiveModel {
  model: string
  tokens_per_second: number
  prompt_tokens_per_second: number
  completion_tokens_per_second: number
  /** USD per token; null without tokens. */
  cost_per_token: number | null
  usd_per_million_tokens: number | null
  too_few_tokens: boolean
}

/** The live view at an instant. */
export interface LiveFigures {
  totals: LiveTotals
  models: LiveModel[]
  slots: LiveSlot[]
}

/**
 * Live figures of all slots and models. `windowSeconds` is the length of the window, `nowMs` its end by the wall clock;
 * a slot is monitored as long as the ledger lets a sample stand for the time after it, `maxSampleGapMs`.
 */
export function liveFigures(
  allSlots: readonly Slot[],
  { windowSeconds, priceOf, maxSampleGapMs }: { windowSeconds: number; priceOf: PriceOfSlot; maxSampleGapMs: number },
  nowMs: number,
): LiveFigures {
  const models = new Map<string, { prompt: number; completion: number; usd: number }>()
  const slots: LiveSlot[] = []
  // By the event time of the fleet, so that a replay of the past has a fleet; a clock ahead makes no one else silent.
  const newestMs = allSlots.reduce((newest, slot) => Math.max(newest, sampleMs(slot)), Number.NEGATIVE_INFINITY)
  const silentBeforeMs = Math.min(nowMs, newestMs) - maxSampleGapMs
  for (const slot of allSlots) {
    const last = slot.newestSecond + Math.max(0, Math.floor((nowMs - slot.newestSeenMs) / 1000))
    const tokens = slot.newestSecond < 0 ? 0 : slot.total.sum(last, windowSeconds)
    const { usdPerHour, basis } = priceOf(slot, slot.sample, nowMs)
    const windowUsd = (usdPerHour * windowSeconds) / 3600
    slots.push({
      ...describe(slot),
      price_per_hour_usd: usdPerHour,
      price_basis: basis,
      tokens_per_second: tokens / windowSeconds,
      cost_per_token: tokens === 0 ? null : windowUsd / tokens,
      too_few_tokens: areTooFewLive(tokens),
      monitored: tokens > 0 || (slot.sample !== null && sampleMs(slot) >= silentBeforeMs),
    })
    if (tokens === 0) continue
    for (const [model, ring] of slot.models) {
      const all = ring.sum(last, windowSeconds)
      if (all === 0) continue
      const prompt = ring.sumPrompt(last, windowSeconds)
      const completion = all - prompt
      const sum = models.get(model) ?? { prompt: 0, completion: 0, usd: 0 }
      sum.prompt += prompt
      sum.completion += completion
      sum.usd += (windowUsd * (prompt + completion)) / tokens
      models.set(model, sum)
    }
  }
  return {
    totals: liveTotals(slots, windowSeconds),
    models: [...models].map(([model, sum]) => liveModel(model, sum, windowSeconds)),
    slots,
  }
}

function sampleMs({ sample }: Slot): number {
  return sample?.ts.getTime() ?? Number.NEGATIVE_INFINITY
}

/** What the newest sample of a slot shows. */
function describe({ host, gpuIndex, sample }: Slot) {
  return {
    host,
    gpu_index: gpuIndex,
    gpu_uuid: sample?.uuid ?? null,
    name: sample?.name ?? null,
    utilization: sample?.utilization ?? null,
    last_sample: sample === null ? null : sample.ts.toISOString(),
  }
}

function liveModel(
  model: string,
  sum: { prompt: number; completion: number; usd: number },
  seconds: number,
): LiveModel {
  const tokens = sum.prompt + sum.completion
  return {
    model,
    tokens_per_second: tokens / seconds,
    prompt_tokens_per_second: sum.prompt / seconds,
    completion_tokens_per_second: sum.completion / seconds,
    cost_per_token: sum.usd / tokens,
    usd_per_million_tokens: (sum.usd / tokens) * 1e6,
    too_few_tokens: areTooFewLive(tokens),
  }
}
