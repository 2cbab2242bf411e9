// One rule of the price book, compiled: its match, its validity in milliseconds, its price as an integer of 10⁻⁹ USD
// per hour; and the precedence of rule, sample and default. Owned GPUs have a fixed part, (purchase − salvage) ÷ life,
// and one that follows the measured power of each interval between two samples; where nothing was measured (assumed and
// uncovered time) the fixed part applies alone. Rules are ranked by what they name: uuid with its slot, uuid, slot,
// host, pattern.

import { parseInstantMs } from '../events/timestamp.ts'
import { decimalUnits, divideRounded, NANO_PER_USD, nanoUsd, usd } from './money.ts'
import { NamePattern } from './name-pattern.ts'
import type { PriceMatch, PriceRuleData } from './price-book-schema.ts'

/** Where the price of a row comes from: the kind of the price-book rule, the samples, or the book's default. */
export type PriceKind = 'on-demand' | 'spot' | 'reserved' | 'owned' | 'sample' | 'default'

/** What is known of a GPU when it is priced. */
export interface PricedSlot {
  uuid: string | null
  host: string | null
  gpuIndex: number
  name: string | null
  /** No sample is near, so the uuid cannot be known: rules that name the slot and a uuid fit by their slot. */
  isSilent?: boolean
}

/** Price of a GPU at an instant, without energy. */
class EffectivePrice {
  readonly kind: PriceKind
  /** The rule that gives the price, null when the sample or the default does. */
  readonly rule: PriceRule | null
  /** 10⁻⁹ USD per hour, or a sample's USD per hour: no BigInt is made for a token event that needs none. */
  readonly #price: bigint | number

  constructor(kind: PriceKind, rule: PriceRule | null, price: bigint | number) {
    this.kind = kind
    this.rule = rule
    this.#price = price
  }

  get nanoUsdPerHour(): bigint {
    return typeof this.#price === 'bigint' ? this.#price : nanoUsd(this.#price)
  }

  /** Not rounded where a sample gives the price. */
  get usdPerHour(): number {
    return typeof this.#price === 'bigint' ? usd(this.#price) : this.#price
  }
}

/** The precedence of prices: the effective rule, else the sample's own price, else the default of the book. */
export function effectivePrice(
  rule: PriceRule | null,
  sampleUsdPerHour: number | null,
  defaultNanoUsdPerHour: bigint,
): EffectivePrice {
  if (rule !== null) return new EffectivePrice(rule.kind, rule, rule.nanoUsdPerHour)
  if (sampleUsdPerHour !== null) return new EffectivePrice('sample', null, sampleUsdPerHour)
  return new EffectivePrice('default', null, defaultNanoUsdPerHour)
}

/** What a rule's match names, most specific first. */
export const MATCH_LEVELS = ['uuid and slot', 'uuid', 'slot', 'host', 'name'] as const
export type MatchLevel = 0 | 1 | 2 | 3 | 4

const HOURS_PER_YEAR = 8760n
/** µJ × (10⁻⁹ USD/kWh) × (PUE in 10⁻⁹) per ms as 10⁻⁹ USD per hour: 1 kWh is 3.6 × 10¹² µJ, 1 h is 3.6 × 10⁶ ms. */
const ENERGY_DIVISOR = 1_000_000_000_000_000n

/** The level of a match; null when its fields do not make sense together. */
export function matchLevel(match: PriceMatch): MatchLevel | null {
  const { uuid, host, gpu_index, name } = match
  if (name !== undefined) return uuid === undefined && host === undefined && gpu_index === undefined ? 4 : null
  if (gpu_index !== undefined) return host === undefined ? null : uuid === undefined ? 2 : 0
  if (uuid !== undefined) return host === undefined ? 1 : null
  return host === undefined ? null : 3
}

/** Rules of the same group are for the same GPUs: their validities must not overlap. */
export function matchKey(match: PriceMatch): string {
  const name = match.name === undefined ? null : new NamePattern(match.name).text
  return JSON.stringify([match.uuid ?? null, match.host ?? null, match.gpu_index ?? null, name])
}

export class PriceRule {
  readonly id: string
  readonly kind: Exclude<PriceKind, 'sample' | 'default'>
  readonly match: Readonly<PriceMatch>
  readonly level: MatchLevel
  readonly pattern: NamePattern | null
  /** First instant at which the rule is effective, -Infinity without a start. */
  readonly fromMs: number
  /** First instant at which it no longer is, Infinity without an end. */
  readonly toMs: number
  /** The price without energy, 10⁻⁹ USD per hour. */
  readonly nanoUsdPerHour: bigint
  readonly #energyFactor: bigint

  /** `data` has passed the check of price-book-check.ts. */
  constructor(data: PriceRuleData) {
    this.id = data.id
    this.kind = data.kind
    this.match = data.match
    this.level = matchLevel(data.match)!
    this.pattern = data.match.name === undefined ? null : new NamePattern(data.match.name)
    this.fromMs = data.from === undefined ? Number.NEGATIVE_INFINITY : parseInstantMs(data.from)
    this.toMs = data.to === undefined ? Number.POSITIVE_INFINITY : parseInstantMs(data.to)
    if (data.kind === 'owned') {
      const worth = nanoUsd(data.purchase_usd) - nanoUsd(data.salvage_usd ?? 0)
      const lifeNanoHours =
        data.life_hours === undefined ? nanoUsd(data.life_years!) * HOURS_PER_YEAR : nanoUsd(data.life_hours)
      this.nanoUsdPerHour = divideRounded(worth * NANO_PER_USD, lifeNanoHours)
      this.#energyFactor = nanoUsd(data.usd_per_kwh ?? 0) * nanoUsd(data.pue ?? 1)
    } else {
      this.nanoUsdPerHour = nanoUsd(data.usd_per_hour)
      this.#energyFactor = 0n
    }
    Object.freeze(this)
  }

  /**
   * Whether the rule is a commitment: a certain GPU is paid for from a certain day on, as it names a slot or a uuid and
   * has a `from`. Time of such a GPU without samples and tokens is uncovered; without a start all the past would be.
   */
  get isCommitment(): boolean {
    return this.level <= 2 && this.fromMs !== Number.NEGATIVE_INFINITY
  }

  /** Price in an interval of `overMs` milliseconds in which the GPU took `microjoules`, 10⁻⁹ USD per hour. */
  priceWithEnergy(microjoules: bigint, overMs: number): bigint {
    if (this.#energyFactor === 0n) return this.nanoUsdPerHour
    return this.nanoUsdPerHour + divideRounded(microjoules * this.#energyFactor, ENERGY_DIVISOR * BigInt(overMs))
  }

  /** Whether the price has a part that follows the power. */
  get followsPower(): boolean {
    return this.#energyFactor > 0n
  }

  /** Price while the GPU draws so many watts, 10⁻⁹ USD per hour: 10⁻³ W for a millisecond are 10⁻⁶ J. */
  priceAtPower(watts: number): bigint {
    return this.priceWithEnergy(decimalUnits(watts, 3), 1)
  }

  isEffective(atMs: number): boolean {
    return this.fromMs <= atMs && atMs < this.toMs
  }

  /** The first field of the match that does not fit the GPU, null when all fit. */
  mismatch(slot: PricedSlot): keyof PriceMatch | null {
    const { uuid, host, gpu_index } = this.match
    if (uuid !== undefined && uuid !== slot.uuid) return 'uuid'
    if (host !== undefined && host !== slot.host) return 'host'
    if (gpu_index !== undefined && gpu_index !== slot.gpuIndex) return 'gpu_index'
    if (this.pattern !== null && (slot.name === null || !this.pattern.matches(slot.name))) return 'name'
    return null
  }
}
