// The read side of the live window: tokens per second and price of each slot and model over the window that ends at a
// wall-clock instant. The event time of an idle slot advances with the wall clock, so that its window empties.

import type { GpuDocument } from '../events/event.ts'
import type { Slot } from './panes.ts'

/** Price of a slot at an instant, USD per hour; `sample` is its newest sample, if any. */
export type PriceOfSlot = (
  slot: { host: string | null; gpuIndex: number },
  sample: GpuDocument | null,
  atMs: number,
) => number

/** The live figures of one slot or model, over the window that ends now. */
export interface LiveSlot {
  host: string | null
  gpu_index: number
  gpu_uuid: string | null
  name: string | null
  utilization: number | null
  price_per_hour_usd: number
  tokens_per_second: number
  cost_per_token: number | null
  last_sample: string | null
}

export interface LiveModel {
  model: string
  tokens_per_second: number
  prompt_tokens_per_second: number
  completion_tokens_per_second: number
  /** USD per token; null without tokens. */
  cost_per_token: number | null
  usd_per_million_tokens: number | null
}

/**
 * Live figures of all slots and models. `windowSeconds` is the length of the window, `nowMs` its end by the wall clock.
 */
export function liveFigures(
  allSlots: Iterable<Slot>,
  { windowSeconds, priceOf }: { windowSeconds: number; priceOf: PriceOfSlot },
  nowMs: number,
): { models: LiveModel[]; slots: LiveSlot[] } {
  const models = new Map<string, { prompt: number; completion: number; usd: number }>()
  const slots: LiveSlot[] = []
  for (const slot of allSlots) {
    const last = slot.newestSecond + Math.max(0, Math.floor((nowMs - slot.newestSeenMs) / 1000))
    const tokens = slot.newestSecond < 0 ? 0 : slot.total.sum(last, windowSeconds)
    const hourlyUsd = priceOf(slot, slot.sample, nowMs)
    const windowUsd = (hourlyUsd * windowSeconds) / 3600
    slots.push(describe(slot, hourlyUsd, tokens / windowSeconds, tokens === 0 ? null : windowUsd / tokens))
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
  return { models: [...models].map(([model, sum]) => liveModel(model, sum, windowSeconds)), slots }
}

function describe(slot: Slot, hourlyUsd: number, tokensPerSecond: number, costPerToken: number | null): LiveSlot {
  const sample = slot.sample
  return {
    host: slot.host,
    gpu_index: slot.gpuIndex,
    gpu_uuid: sample?.uuid ?? null,
    name: sample?.name ?? null,
    utilization: sample?.utilization ?? null,
    price_per_hour_usd: hourlyUsd,
    tokens_per_second: tokensPerSecond,
    cost_per_token: costPerToken,
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
  }
}
