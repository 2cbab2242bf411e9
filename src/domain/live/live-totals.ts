// The fleet's live figures: all the money of its GPUs, idle ones included, and all its tokens. The one headline,
// fully loaded: USD per hour ÷ (tokens per second × 3600). A GPU of which neither samples nor tokens come is not
// monitored: like the ledger's uncovered time it stands beside the total, not in it.

import { areTooFewLive } from './few-tokens.ts'

/** What of a slot goes into the totals. */
interface SlotFigures {
  utilization: number | null
  price_per_hour_usd: number
  tokens_per_second: number
  monitored: boolean
}

/** The fleet now; busy + idle = `usd_per_hour`. */
export interface LiveTotals {
  /** Price of all monitored GPUs, USD per hour. */
  usd_per_hour: number
  busy_usd_per_hour: number
  /** Both kinds of idle: with a model loaded, and with nothing loaded. */
  idle_usd_per_hour: number
  /** Price of the GPUs that are not monitored, beside the total. */
  uncovered_usd_per_hour: number
  /** Prompt and completion tokens. */
  tokens_per_second: number
  /** Fully loaded: `usd_per_hour` ÷ tokens per hour × 10⁶; null without tokens. */
  usd_per_million_tokens: number | null
  usd_per_million_tokens_busy: number | null
  /** Fewer than 100 tokens in the window. */
  too_few_tokens: boolean
}

/** Sums over slots. As in the ledger, a GPU whose utilisation is unknown counts as busy. */
export function liveTotals(slots: readonly SlotFigures[], windowSeconds: number): LiveTotals {
  let [busy, idle, uncovered, tokens] = [0, 0, 0, 0]
  for (const slot of slots) {
    const share = slot.utilization ?? 1
    if (slot.monitored) {
      busy += slot.price_per_hour_usd * share
      idle += slot.price_per_hour_usd * (1 - share)
    } else uncovered += slot.price_per_hour_usd
    tokens += slot.tokens_per_second
  }
  const perMillion = (usdPerHour: number) => (tokens === 0 ? null : (usdPerHour / (tokens * 3600)) * 1e6)
  return {
    usd_per_hour: busy + idle,
    busy_usd_per_hour: busy,
    idle_usd_per_hour: idle,
    uncovered_usd_per_hour: uncovered,
    tokens_per_second: tokens,
    usd_per_million_tokens: perMillion(busy + idle),
    usd_per_million_tokens_busy: perMillion(busy),
    too_few_tokens: areTooFewLive(Math.round(tokens * windowSeconds)),
  }
}
