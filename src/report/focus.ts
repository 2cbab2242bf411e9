// Cost as FOCUS 1.2 (FinOps Open Cost and Usage Specification), CSV: one row for busy time, one for loaded idle, one
// for unallocated time, one for uncovered time, so that EffectiveCost adds up to all that was paid and idle money can
// be filtered. Owned hardware was paid for long ago: BilledCost 0, EffectiveCost its amortised cost. Custom columns
// begin with x_. Null is an empty cell, and every text is as it was reported: the file is for programs. Source:
// focus.finops.org, columns of version 1.2.

import { apportion } from '../domain/ledger/apportion.ts'
import { HOUR_MS } from '../domain/ledger/buckets.ts'
import { totalNanoUsd } from '../domain/ledger/rows.ts'
import type { PriceKind } from '../domain/prices/price-rule.ts'
import { usdPerMillion } from './cost-figures.ts'
import type { CostRow } from './cost-grouping.ts'
import type { CostQuery } from './cost-query.ts'
import { type CsvCell, csvFile, csvLine } from './csv.ts'

/** What a row is a charge for. */
type ChargeKind = 'busy' | 'loaded_idle' | 'unallocated' | 'uncovered'

const DESCRIPTIONS: Record<ChargeKind, string> = {
  busy: 'GPU time in use',
  loaded_idle: 'GPU time idle, model loaded',
  unallocated: 'GPU time idle, nothing loaded',
  uncovered: 'GPU time paid for and not monitored',
}

/**
 * Pricing category by price kind; a price that the provider may change at any time is Dynamic. A reserved price is
 * Committed where it is of a single commitment, since such a row has to name it.
 */
const PRICING: Record<PriceKind, 'Standard' | 'Dynamic' | 'Other'> = {
  'on-demand': 'Standard',
  spot: 'Dynamic',
  reserved: 'Other',
  owned: 'Other',
  sample: 'Standard',
  default: 'Standard',
}

const PROVIDER = 'Self-hosted'
/** Marks the keys of Tags as the provider's, so that none is taken for a tag that a user gave. */
const TAG_PREFIX = 'pertoken/'

interface Charge {
  row: CostRow
  kind: ChargeKind
  nanoUsd: bigint
  ms: bigint
  /** Of a reserved row: its commitment's id, null where that is not a single one. */
  commitment: string | null
  /** Whether the file is final. */
  isFinal: boolean
}

/** What a file states beside its rows. */
export interface FocusOptions {
  /** Nothing in the file will change. */
  isFinal: boolean
  /** The id of the commitment of a reserved row; null where it is not a single one. */
  commitmentOf: (row: CostRow) => string | null
}

/** Every column with its value, in the order of the file: FOCUS columns by name, then custom ones. */
const COLUMNS: Readonly<Record<string, (charge: Charge) => CsvCell>> = {
  BilledCost: ({ row, nanoUsd }) => (row.key.price_kind === 'owned' ? 0 : decimal(nanoUsd)),
  BillingAccountId: () => 'pertoken',
  BillingAccountName: () => 'pertoken',
  BillingCurrency: () => 'USD',
  BillingPeriodEnd: ({ row }) => dateTime(monthOf(row.startMs, 1)),
  BillingPeriodStart: ({ row }) => dateTime(monthOf(row.startMs, 0)),
  ChargeCategory: () => 'Usage',
  ChargeClass: () => null,
  ChargeDescription: ({ row, kind }) => describe(row, kind),
  ChargeFrequency: () => 'Usage-Based',
  ChargePeriodEnd: ({ row }) => dateTime(row.endMs),
  ChargePeriodStart: ({ row }) => dateTime(row.startMs),
  CommitmentDiscountCategory: ({ commitment }) => (commitment === null ? null : 'Usage'),
  CommitmentDiscountId: ({ commitment }) => commitment,
  CommitmentDiscountQuantity: (charge) => (charge.commitment === null ? null : hours(charge)),
  // What is paid for and not monitored is taken as unused.
  CommitmentDiscountStatus: ({ commitment, kind }) =>
    commitment === null ? null : kind === 'uncovered' ? 'Unused' : 'Used',
  CommitmentDiscountType: ({ commitment }) => (commitment === null ? null : 'Reservation'),
  CommitmentDiscountUnit: ({ commitment }) => (commitment === null ? null : 'Hours'),
  ConsumedQuantity: (charge) => (countsTokens(charge) ? tokensOf(charge.row) : hours(charge)),
  ConsumedUnit: (charge) => (countsTokens(charge) ? 'Tokens' : 'Hours'),
  ContractedCost: ({ nanoUsd }) => decimal(nanoUsd),
  EffectiveCost: ({ nanoUsd }) => decimal(nanoUsd),
  InvoiceIssuerName: () => PROVIDER,
  ListCost: ({ nanoUsd }) => decimal(nanoUsd),
  PricingCategory: ({ row, commitment }) => (commitment === null ? PRICING[row.key.price_kind!] : 'Committed'),
  PricingQuantity: (charge) => hours(charge),
  PricingUnit: () => 'Hours',
  ProviderName: () => PROVIDER,
  PublisherName: () => PROVIDER,
  ResourceId: ({ row }) => row.key.gpu_uuid ?? slotName(row),
  // Only where it differs from ResourceId: a name that repeats a generated id is none.
  ResourceName: ({ row }) => (row.key.gpu_uuid === null ? null : slotName(row)),
  ResourceType: ({ row }) => (slotName(row) === null ? null : 'GPU'),
  ServiceCategory: () => 'AI and Machine Learning',
  ServiceName: () => 'LLM inference',
  ServiceSubcategory: () => 'Generative AI',
  SubAccountId: ({ row }) => row.key.tenant,
  SubAccountName: ({ row }) => row.key.tenant,
  Tags: ({ row }) => tags(row),
  x_ChargeKind: ({ kind }) => kind,
  x_PriceKind: ({ row }) => row.key.price_kind,
  x_Model: ({ row }) => row.key.model,
  x_Host: ({ row }) => row.key.host,
  x_GpuIndex: ({ row }) => row.key.gpu_index,
  x_IdleCost: ({ kind, nanoUsd }) => (kind === 'busy' ? 0 : decimal(nanoUsd)),
  x_AssumedCost: ({ row, kind }) => (kind === 'busy' ? decimal(row.amounts.assumed_nano_usd) : 0),
  x_Requests: ({ row, kind }) => (kind === 'busy' ? Number(row.amounts.requests) : 0),
  x_InputTokens: ({ row, kind }) => (kind === 'busy' ? Number(row.amounts.prompt_tokens) : 0),
  x_CachedInputTokens: ({ row, kind }) => (kind === 'busy' ? Number(row.amounts.cached_prompt_tokens) : 0),
  x_OutputTokens: ({ row, kind }) => (kind === 'busy' ? Number(row.amounts.completion_tokens) : 0),
  x_CostPerMillionTokens: ({ row, kind }) => (kind === 'busy' ? perMillion(row) : null),
  x_Basis: ({ row }) => row.amounts.basis,
  x_Method: ({ row }) => row.amounts.method,
  x_Final: ({ isFinal }) => String(isFinal),
}

/** Names of the columns, in the order of the file. */
export const FOCUS_COLUMNS: readonly string[] = Object.keys(COLUMNS)

/** The question for a FOCUS file: its charges have a price kind and lie in one month of UTC. */
export function focusQuery(query: CostQuery): CostQuery {
  const by = query.by.includes('price_kind') ? query.by : [...query.by, 'price_kind' as const]
  return { ...query, by, step: query.step === 'all' ? 'month' : query.step }
}

/** Rows of cost, from a question of focusQuery, as a FOCUS file in pieces. */
export function focusFile(
  rows: AsyncIterable<CostRow>,
  options: FocusOptions,
): AsyncGenerator<string, void, undefined> {
  return csvFile(rows, FOCUS_COLUMNS, (row) => focusLines(row, options))
}

/** The lines of one row of cost; none where it cost nothing and nothing was used. */
function focusLines(row: CostRow, options: FocusOptions): string {
  const fill = Object.values(COLUMNS)
  return chargesOf(row, options)
    .map((charge) => csvLine(fill.map((cell) => cell(charge))))
    .join('')
}

function chargesOf(row: CostRow, { isFinal, commitmentOf }: FocusOptions): Charge[] {
  const commitment = row.key.price_kind === 'reserved' ? commitmentOf(row) : null
  const { amounts } = row
  const money = [amounts.busy_nano_usd, amounts.loaded_idle_nano_usd, amounts.unallocated_nano_usd]
  const presentMs = amounts.covered_ms + amounts.assumed_ms
  // A price of 0 does not show how the time was spent: then all of it goes with the usage.
  const times = totalNanoUsd(amounts) === 0n ? [presentMs, 0n, 0n] : apportion(presentMs, money)
  const charges = (['busy', 'loaded_idle', 'unallocated'] as const).map(
    (kind, i): Charge => ({ row, kind, nanoUsd: money[i]!, ms: times[i]!, commitment, isFinal }),
  )
  const uncovered = { nanoUsd: amounts.uncovered_nano_usd, ms: amounts.uncovered_ms }
  charges.push({ row, kind: 'uncovered', ...uncovered, commitment, isFinal })
  return charges.filter(({ kind, nanoUsd, ms }) => nanoUsd > 0n || ms > 0n || (kind === 'busy' && hasUsage(row)))
}

/** Whether a row has tokens or requests, which its busy charge carries even where it cost nothing. */
function hasUsage({ amounts }: CostRow): boolean {
  return amounts.requests > 0n || amounts.prompt_tokens + amounts.completion_tokens > 0n
}

function countsTokens({ row, kind }: Charge): boolean {
  return kind === 'busy' && tokensOf(row) > 0
}

function tokensOf({ amounts }: CostRow): number {
  return Number(amounts.prompt_tokens + amounts.completion_tokens)
}

function perMillion({ amounts }: CostRow): number | null {
  return usdPerMillion(totalNanoUsd(amounts), amounts.prompt_tokens + amounts.completion_tokens)
}

function hours({ ms }: Charge): number {
  return Number(ms) / HOUR_MS
}

/** Exact USD: nine decimals at most. Numbers would do up to 2⁵³ of 10⁻⁹ USD, and are what the CSV does not quote. */
function decimal(nanoUsd: bigint): number {
  return Number(nanoUsd) / 1e9
}

function describe({ key }: CostRow, kind: ChargeKind): string {
  const whose = [key.model, key.tenant].filter((name) => name !== null).join(' for ')
  return `${DESCRIPTIONS[kind]}${whose === '' ? '' : `: ${whose}`}`
}

function slotName({ key }: CostRow): string | null {
  return key.gpu_index === null ? null : `${key.host ?? 'unknown'}/${key.gpu_index}`
}

function tags({ key }: CostRow): string {
  const { model, tenant, host } = key
  const named = Object.entries({ model, tenant, host }).filter(([, name]) => name !== null)
  return JSON.stringify(Object.fromEntries(named.map(([tag, name]) => [`${TAG_PREFIX}${tag}`, name])))
}

/** FOCUS wants whole seconds and Z. */
function dateTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, -5)}Z`
}

/** Start of the month of an instant, or of one after it. */
function monthOf(ms: number, after: number): number {
  const at = new Date(ms)
  return Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + after)
}
