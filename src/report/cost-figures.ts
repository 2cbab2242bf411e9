// The figures of a row as they are published (CONTRACT.md fixes the names): parts as USD, seconds and counts, quotients
// made of them at the very last. A quotient of nothing is null and never 0, ∞ or NaN; `reason` then says why. Fully
// loaded and busy stand side by side, so that nobody takes the one for the other.

import { totalNanoUsd } from '../domain/ledger/rows.ts'
import type { Basis, LedgerAmounts, Method } from '../domain/ledger/types.ts'
import { usd } from '../domain/prices/money.ts'
import type { CostKey, CostRow } from './cost-grouping.ts'

/** A row of an answer, and its totals. */
export interface CostFigures extends CostKey {
  start: string
  end: string
  requests: number
  prompt_tokens: number
  cached_prompt_tokens: number
  completion_tokens: number
  covered_seconds: number
  assumed_seconds: number
  uncovered_seconds: number
  busy_usd: number
  loaded_idle_usd: number
  unallocated_usd: number
  /** Busy + loaded idle + unallocated. */
  total_usd: number
  /** The part of the total that no sample shows. */
  assumed_usd: number
  /** Paid for and dark; beside the total. */
  uncovered_usd: number
  /** Fully loaded: the total ÷ prompt and completion tokens. */
  usd_per_million_tokens: number | null
  usd_per_million_tokens_busy: number | null
  /** The input's part of busy and loaded idle, cached tokens included, ÷ prompt tokens. */
  usd_per_million_input_tokens: number | null
  usd_per_million_output_tokens: number | null
  basis: Basis
  method: Method
  /** The part of the tokens that fell on time with measured utilisation, 0 to 1. */
  measured_token_share: number | null
  /** Why the cost of a million tokens is null; null where it is not. */
  reason: string | null
}

/** Names of the figures in the order in which they are written. */
export const FIGURE_NAMES = [
  'start',
  'end',
  'model',
  'tenant',
  'host',
  'gpu_index',
  'gpu_uuid',
  'price_kind',
  'requests',
  'prompt_tokens',
  'cached_prompt_tokens',
  'completion_tokens',
  'covered_seconds',
  'assumed_seconds',
  'uncovered_seconds',
  'busy_usd',
  'loaded_idle_usd',
  'unallocated_usd',
  'total_usd',
  'assumed_usd',
  'uncovered_usd',
  'usd_per_million_tokens',
  'usd_per_million_tokens_busy',
  'usd_per_million_input_tokens',
  'usd_per_million_output_tokens',
  'basis',
  'method',
  'measured_token_share',
  'reason',
] as const satisfies readonly (keyof CostFigures)[]

/** The figures of a row. */
export function figuresOf({ startMs, endMs, key, amounts }: CostRow): CostFigures {
  const { model, tenant, host, gpu_index, gpu_uuid, price_kind } = key
  return {
    start: new Date(startMs).toISOString(),
    end: new Date(endMs).toISOString(),
    ...{ model, tenant, host, gpu_index, gpu_uuid, price_kind },
    requests: Number(amounts.requests),
    prompt_tokens: Number(amounts.prompt_tokens),
    cached_prompt_tokens: Number(amounts.cached_prompt_tokens),
    completion_tokens: Number(amounts.completion_tokens),
    covered_seconds: Number(amounts.covered_ms) / 1000,
    assumed_seconds: Number(amounts.assumed_ms) / 1000,
    uncovered_seconds: Number(amounts.uncovered_ms) / 1000,
    busy_usd: usd(amounts.busy_nano_usd),
    loaded_idle_usd: usd(amounts.loaded_idle_nano_usd),
    unallocated_usd: usd(amounts.unallocated_nano_usd),
    total_usd: usd(totalNanoUsd(amounts)),
    assumed_usd: usd(amounts.assumed_nano_usd),
    uncovered_usd: usd(amounts.uncovered_nano_usd),
    ...quotients(amounts),
  }
}

type Quotient = Extract<keyof CostFigures, `usd_per_${string}`>

function quotients(
  amounts: LedgerAmounts,
): Pick<CostFigures, Quotient | 'basis' | 'method' | 'measured_token_share' | 'reason'> {
  const { busy_nano_usd, loaded_idle_nano_usd, prompt_tokens, completion_tokens, basis, method } = amounts
  const tokens = prompt_tokens + completion_tokens
  const input = amounts.input_nano_usd + amounts.cached_nano_usd
  // Parts that are all 0 beside money say that it was not split by tokens, not that tokens are free.
  const isSplit = input + amounts.output_nano_usd > 0n || busy_nano_usd + loaded_idle_nano_usd === 0n
  return {
    usd_per_million_tokens: usdPerMillion(totalNanoUsd(amounts), tokens),
    usd_per_million_tokens_busy: usdPerMillion(busy_nano_usd, tokens),
    usd_per_million_input_tokens: isSplit ? usdPerMillion(input, prompt_tokens) : null,
    usd_per_million_output_tokens: isSplit ? usdPerMillion(amounts.output_nano_usd, completion_tokens) : null,
    basis,
    method,
    measured_token_share: tokens === 0n ? null : Number(amounts.measured_tokens) / Number(tokens),
    reason: reasonOf(amounts, tokens),
  }
}

/** USD per million of tokens, null without tokens. */
export function usdPerMillion(nanoUsd: bigint, tokens: bigint): number | null {
  return tokens === 0n ? null : Number(nanoUsd) / Number(tokens) / 1000
}

function reasonOf(amounts: LedgerAmounts, tokens: bigint): string | null {
  if (tokens > 0n) return null
  const money = totalNanoUsd(amounts)
  if (money > 0n) return amounts.requests > 0n ? 'Requests without tokens' : 'No tokens: the cost is of nobody’s tokens'
  return amounts.uncovered_nano_usd > 0n ? 'No tokens and no samples: paid for and dark' : 'Nothing in this range'
}
