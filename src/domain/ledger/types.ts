// The shapes of the ledger: what goes in (samples and grouped token totals of one cell) and what comes out (the rows of
// a cell). A cell is one minute of event time × one host; a slot is host + gpu_index. All quantities of a row are
// integers, so that hours, days and any other sums of rows are exact whatever the order: money in 10⁻⁹ USD, time in
// milliseconds, energy in millijoules, counts as they are; BigInt, because a fleet's year passes 2⁵³.
// The rules are in cell.ts and docs/cost-model.md, the gaps of the specification in docs/adr/0002-ledger-rules.md.

import type { GpuDocument, TokenDocument } from '../events/event.ts'
import type { PriceKind } from '../prices/price-rule.ts'

/** What the ledger reads of a sample; a GpuDocument is one. */
export type LedgerSample = Pick<
  GpuDocument,
  | '_id'
  | 'ts'
  | 'gpu_index'
  | 'uuid'
  | 'name'
  | 'utilization'
  | 'mem_used_mb'
  | 'mem_total_mb'
  | 'power_w'
  | 'energy_j'
  | 'price_per_hour_usd'
  | 'model_loaded'
>

/** What the ledger reads of one event of token usage; a TokenDocument is one. */
export type LedgerToken = Pick<
  TokenDocument,
  | '_id'
  | 'ts'
  | 'host'
  | 'gpu_index'
  | 'gpus'
  | 'model'
  | 'tenant'
  | 'prompt_tokens'
  | 'completion_tokens'
  | 'cached_prompt_tokens'
  | 'requests'
  | 'interval_s'
>

/** A sum of counts: a number up to 2⁵³ − 1, or a BigInt where the database gives one. */
export type Count = number | bigint

/**
 * Counts of token usage. Prompt tokens come in two classes that do not overlap: those that were computed and those that
 * came from a cache (`prompt_tokens` of the event is their sum; an absent `cached_prompt_tokens` is 0).
 */
export interface TokenCounts {
  /** Requests; an event without the field is 1. */
  requests: Count
  /** prompt_tokens − cached_prompt_tokens. */
  uncached_prompt_tokens: Count
  cached_prompt_tokens: Count
  completion_tokens: Count
}

/**
 * Token usage of one host and minute, grouped by the set of GPUs, model and tenant. An event on n GPUs gives each of
 * them floor(count / n), and the lowest index the remainder; so a group needs two sums of each count, both integer
 * arithmetic inside a database: `sum` = Σ count, and `each` = Σ floor(count / n), what every GPU but the lowest gets.
 * With one GPU they are equal. Groups may come in any order, in parts (the same key twice), and with `gpus` unsorted.
 */
export interface TokenTotals {
  /** Indexes of the GPUs: `gpus` of the events, else their one `gpu_index`. */
  gpus: readonly number[]
  model: string
  tenant: string | null
  /** How many of the events used anything: prompt + completion tokens + requests > 0. Others count as none. */
  events: Count
  sum: TokenCounts
  each: TokenCounts
}

/**
 * What the busy share of a row rests on: utilisation that was `measured`; mere `presence` of samples without
 * utilisation; `assumed` (tokens without samples); `mixed` over several of these; `none` without any.
 */
export type Basis = 'measured' | 'presence' | 'assumed' | 'mixed' | 'none'

/**
 * How money was attributed to a row's model and tenant: by weighted tokens; by requests where no token has weight; by
 * events where there are no requests either; because a sample reports the loaded model; because memory is in use by an
 * unknown model; `mixed` over several of these; `none` where it is attributed to none.
 */
export type Method = 'weighted-tokens' | 'requests' | 'events' | 'model-loaded' | 'memory' | 'mixed' | 'none'

/** The part of a row that adds up. */
export interface LedgerAmounts {
  requests: bigint
  /** Input tokens, cached ones included. */
  prompt_tokens: bigint
  cached_prompt_tokens: bigint
  completion_tokens: bigint
  /** The part of prompt + completion tokens that fell on time with measured utilisation. */
  measured_tokens: bigint
  /** Time covered by samples. */
  covered_ms: bigint
  /** The part of covered_ms whose samples have no utilisation. */
  presence_ms: bigint
  /** Time with tokens and without samples, taken as present and busy. */
  assumed_ms: bigint
  /** Time without samples and tokens that a commitment pays for. */
  uncovered_ms: bigint
  busy_nano_usd: bigint
  loaded_idle_nano_usd: bigint
  unallocated_nano_usd: bigint
  /** The part of busy + loaded idle + unallocated that no sample reports. */
  assumed_nano_usd: bigint
  /** Paid for and unreported; beside the three, not part of them. */
  uncovered_nano_usd: bigint
  /** Busy + loaded idle by weighted tokens: uncached input, cached input, output. All 0 without weighted tokens. */
  input_nano_usd: bigint
  cached_nano_usd: bigint
  output_nano_usd: bigint
  /** Energy over the covered time, null where no sample reports it. */
  energy_mj: bigint | null
  basis: Basis
  method: Method
}

/** What a row is about; `model` and `tenant` are null where there is none. */
export interface LedgerKey {
  gpu_index: number
  /** UUID and name of the GPU as a sample near the minute reports them; beside the slot, which is the identity. */
  gpu_uuid: string | null
  gpu_name: string | null
  model: string | null
  tenant: string | null
  price_kind: PriceKind
}

/** One row of a cell, and of the hours and days that are sums of cells. */
export type CellRow = LedgerKey & LedgerAmounts

/**
 * The totals of a bucket: its rows summed for questions without a GPU, by model and price kind, and by tenant and
 * price kind. The GPU, and the tenant or model, of these rows are empty: index 0 and null.
 */
export interface RowTotals {
  model: CellRow[]
  tenant: CellRow[]
}

/** A computed cell, its rows sorted by their key. */
export interface Cell {
  /** Start of the minute, epoch milliseconds. */
  startMs: number
  host: string | null
  /** Version of the price book that it was computed with. */
  bookVersion: number
  rows: CellRow[]
  /** How many names of models and tenants were folded into `other` by the book's limits. */
  overflow: number
}

/** The name of models and tenants beyond the book's limits. */
export const OTHER_NAME = 'other'
