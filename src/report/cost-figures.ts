// The figures of a row as they are published: components as USD, seconds and counts, quotients computed last. A
// quotient without a denominator is null, never 0, ∞ or NaN; `reason` then states why. Fully loaded and busy stand side
// by side, so that neither is taken for the other. Names are the published contract.

import { isNothingToReport, noAmounts, splitByTokens, totalNanoUsd } from '../domain/ledger/rows.ts'
import type { Basis, LedgerAmounts, Method } from '../domain/ledger/types.ts'
import { areTooFew } from '../domain/live/few-tokens.ts'
import { usd } from '../domain/prices/money.ts'
import { type CostKey, type CostRow, EMPTY_KEY } from './cost-grouping.ts'

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
  /** Paid for and unreported; beside the total, not in it. */
  uncovered_usd: number
  /** Fully loaded: the total ÷ prompt and completion tokens. */
  usd_per_million_tokens: number | null
  usd_per_million_tokens_busy: number | null
  /** The input's part of the total, cached tokens included, ÷ prompt tokens; with the output's part it is the total. */
  usd_per_million_input_tokens: number | null
  usd_per_million_output_tokens: number | null
  basis: Basis
  method: Method
  /** The part of the tokens that fell on time with measured utilisation, 0 to 1. */
  measured_token_share: number | null
  /** Why the cost of a million tokens is null; null where it is not. */
  reason: string | null
  /** The costs of a million tokens are over fewer than 1,000 tokens: exact, and no prices to compare. */
  too_few_tokens: boolean
}

/** The figures of a row, in the published order of CSV columns: append only. */
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

/** Names of the figures in the order in which they are written. */
export const FIGURE_NAMES = Object.keys(
  figuresOf({ startMs: 0, endMs: 0, key: EMPTY_KEY, amounts: noAmounts() }),
) as readonly (keyof CostFigures)[]

type Quotient = Extract<keyof CostFigures, `usd_per_${string}`>

function quotients(
  amounts: LedgerAmounts,
): Pick<CostFigures, Quotient | 'basis' | 'method' | 'measured_token_share' | 'reason' | 'too_few_tokens'> {
  const { busy_nano_usd, prompt_tokens, completion_tokens, basis, method } = amounts
  const tokens = prompt_tokens + completion_tokens
  const parts = splitByTokens(totalNanoUsd(amounts), amounts)
  return {
    usd_per_million_tokens: usdPerMillion(totalNanoUsd(amounts), tokens),
    usd_per_million_tokens_busy: usdPerMillion(busy_nano_usd, tokens),
    usd_per_million_input_tokens: parts && usdPerMillion(parts[0], prompt_tokens),
    usd_per_million_output_tokens: parts && usdPerMillion(parts[1], completion_tokens),
    basis,
    method,
    measured_token_share: tokens === 0n ? null : Number(amounts.measured_tokens) / Number(tokens),
    reason: reasonOf(amounts, tokens),
    too_few_tokens: areTooFew(tokens),
  }
}

/** USD per million of tokens, null without tokens. */
export function usdPerMillion(nanoUsd: bigint, tokens: bigint): number | null {
  return tokens === 0n ? null : Number(nanoUsd) / Number(tokens) / 1000
}

function reasonOf(amounts: LedgerAmounts, tokens: bigint): string | null {
  if (tokens > 0n) return null
  if (amounts.requests > 0n) return 'Requests without tokens'
  if (totalNanoUsd(amounts) > 0n) return 'No tokens: only cost'
  if (amounts.uncovered_nano_usd > 0n) return 'No tokens and no samples: paid for and not monitored'
  return isNothingToReport(amounts) ? 'Nothing in this range' : 'No tokens, and time that costs nothing'
}
