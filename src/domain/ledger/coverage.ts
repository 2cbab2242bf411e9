// Which intervals of a minute a slot's samples cover, and at what price. A sample covers the time back to the slot's
// previous sample if that is at most G before it, else nothing; its fields (utilisation, price, loaded model, memory,
// power) hold for that time. The covered time is cut at the minute's edges and wherever a price rule starts or ends, so
// that each interval has one price. What no sample covers are gaps. Times are whole milliseconds, intervals half open.

import { decimalUnits } from '../prices/money.ts'
import type { PriceBook } from '../prices/price-book.ts'
import { effectivePrice, type PricedSlot, type PriceKind, type PriceRule } from '../prices/price-rule.ts'
import { CELL_MS } from './buckets.ts'
import { EnergyCounter } from './energy.ts'
import { nearestOf } from './nearest-sample.ts'
import type { LedgerSample } from './types.ts'

/** Utilisation is an integer of 1/10,000. */
const UTILIZATION_PLACES = 4
export const UTILIZATION_SCALE = 10 ** UTILIZATION_PLACES

/** An interval of one slot with one price. */
export interface PricedInterval {
  /** Its first instant, epoch milliseconds. */
  fromMs: number
  ms: number
  /** The rule that gives the price, null where a sample or the default does. */
  rule: PriceRule | null
  nanoUsdPerHour: bigint
  kind: PriceKind
}

/** An interval that a sample covers. */
export interface CoveredInterval extends PricedInterval {
  /** Utilisation in 1/10,000; null where the sample has none, and then it counts as busy. */
  utilization: number | null
  modelLoaded: string | null
  /** At least 5 % of the GPU's memory is in use. */
  memoryHeld: boolean
  /** Energy in the interval, null where no sample reports it. */
  energyMj: bigint | null
  /** The sample that closes it, and the average power up to that, null where unknown. */
  sample: LedgerSample
  powerW: number | null
}

interface Gap {
  fromMs: number
  toMs: number
}

/** One slot in one minute, as its samples report it. */
export class SlotCoverage {
  readonly gpuIndex: number
  readonly covered: CoveredInterval[] = []
  readonly uuid: string | null
  readonly name: string | null
  readonly #gaps: Gap[] = []
  readonly #book: PriceBook
  /** Uuid and name as the nearest samples have them: what prices the gaps. */
  readonly slot: PricedSlot
  readonly #nearestUsdPerHour: number | null

  /** `samples` of the slot, ascending by time, each instant once (see `firstPerInstant`). */
  constructor(
    slot: { host: string | null; gpuIndex: number },
    startMs: number,
    options: { samples: readonly LedgerSample[]; book: PriceBook },
  ) {
    const { samples, book } = options
    this.gpuIndex = slot.gpuIndex
    this.#book = book
    const place = { startMs, gapMs: book.maxSampleGapMs }
    const [reachFromMs, reachToMs] = [startMs - book.maxSampleGapMs, startMs + CELL_MS + book.maxSampleGapMs]
    const isSilent = !samples.some(({ ts }) => ts.getTime() >= reachFromMs && ts.getTime() < reachToMs)
    // Silence has no uuid: a rule that names the slot beside it states which GPU is paid for.
    this.uuid = isSilent ? book.silentUuid(slot, startMs, startMs + CELL_MS) : nearestOf(samples, 'uuid', place)
    this.name = nearestOf(samples, 'name', place)
    this.#nearestUsdPerHour = nearestOf(samples, 'price_per_hour_usd', place)
    const { host, gpuIndex } = slot
    this.slot = { uuid: isSilent ? null : this.uuid, host, gpuIndex, name: this.name, isSilent }
    this.#cover(samples, startMs)
  }

  /** The gaps as time that is assumed present, by rule, else the nearest sample's price, else the default. */
  assumedIntervals(): PricedInterval[] {
    const intervals: PricedInterval[] = []
    for (const gap of this.#gaps) {
      for (const segment of this.#book.segments(this.slot, gap.fromMs, gap.toMs)) {
        const { kind, nanoUsdPerHour } = effectivePrice(
          segment.rule,
          this.#nearestUsdPerHour,
          segment.defaultNanoUsdPerHour,
        )
        const { fromMs, toMs, rule } = segment
        intervals.push({ fromMs, ms: toMs - fromMs, rule, kind, nanoUsdPerHour })
      }
    }
    return intervals
  }

  /** The part of the gaps that is paid for by commitments to this slot or its uuid. */
  committedIntervals(): PricedInterval[] {
    const intervals: PricedInterval[] = []
    for (const gap of this.#gaps) {
      for (const segment of this.#book.segments(this.slot, gap.fromMs, gap.toMs)) {
        if (!segment.rule?.isCommitment) continue
        const { fromMs, toMs, rule } = segment
        const { kind, nanoUsdPerHour } = rule
        intervals.push({ fromMs, ms: toMs - fromMs, rule, kind, nanoUsdPerHour })
      }
    }
    return intervals
  }

  #cover(samples: readonly LedgerSample[], startMs: number): void {
    const endMs = startMs + CELL_MS
    const gapMs = this.#book.maxSampleGapMs
    const energy = new EnergyCounter(samples, { fromMs: startMs - gapMs, toMs: endMs + gapMs })
    let doneMs = startMs
    for (let i = 1; i < samples.length; i++) {
      const previous = samples[i - 1]!
      const sample = samples[i]!
      const beginMs = previous.ts.getTime()
      const tsMs = sample.ts.getTime()
      if (tsMs <= startMs || beginMs >= endMs || tsMs - beginMs > gapMs) continue
      const fromMs = Math.max(beginMs, startMs)
      const toMs = Math.min(tsMs, endMs)
      if (fromMs > doneMs) this.#gaps.push({ fromMs: doneMs, toMs: fromMs })
      doneMs = toMs
      this.#coverInterval(sample, { fromMs, toMs }, { beginMs, microjoules: energy.before(i) })
    }
    if (doneMs < endMs) this.#gaps.push({ fromMs: doneMs, toMs: endMs })
  }

  /** The part [fromMs, toMs) of the time from `beginMs` to a sample, for which the sample's fields hold. */
  #coverInterval(
    sample: LedgerSample,
    part: Gap,
    { beginMs, microjoules }: { beginMs: number; microjoules: bigint | null },
  ): void {
    const slot = { ...this.slot, uuid: sample.uuid ?? null, name: sample.name ?? null }
    const overMs = sample.ts.getTime() - beginMs
    const reported = {
      utilization: utilizationOf(sample),
      modelLoaded: sample.model_loaded ?? null,
      memoryHeld: isMemoryHeld(sample),
      sample,
      // 10⁻⁶ J in a millisecond are 10⁻³ W.
      powerW: microjoules === null ? null : Number(microjoules) / overMs / 1000,
    }
    for (const segment of this.#book.segments(slot, part.fromMs, part.toMs)) {
      const { rule, defaultNanoUsdPerHour } = segment
      const price = effectivePrice(rule, sample.price_per_hour_usd ?? null, defaultNanoUsdPerHour)
      const nanoUsdPerHour =
        rule === null || microjoules === null ? price.nanoUsdPerHour : rule.priceWithEnergy(microjoules, overMs)
      const energyMj =
        microjoules === null
          ? null
          : millijoulesUntil(microjoules, overMs, segment.toMs - beginMs) -
            millijoulesUntil(microjoules, overMs, segment.fromMs - beginMs)
      const interval = { fromMs: segment.fromMs, ms: segment.toMs - segment.fromMs, rule, nanoUsdPerHour }
      this.covered.push({ ...interval, kind: price.kind, ...reported, energyMj })
    }
  }
}

/** Samples of one slot ascending by time; of several at the same instant only that with the smallest id. */
export function firstPerInstant(samples: readonly LedgerSample[]): readonly LedgerSample[] {
  // Stores return them in this order: then there is nothing to do.
  if (samples.every((sample, i) => i === 0 || sample.ts.getTime() > samples[i - 1]!.ts.getTime())) return samples
  const sorted = samples.toSorted((a, b) => a.ts.getTime() - b.ts.getTime() || (a._id < b._id ? -1 : 1))
  return sorted.filter((sample, i) => i === 0 || sample.ts.getTime() !== sorted[i - 1]!.ts.getTime())
}

function utilizationOf(sample: LedgerSample): number | null {
  const utilization = sample.utilization ?? null
  return utilization === null ? null : Number(decimalUnits(utilization, UTILIZATION_PLACES))
}

/** Whole mJ used in the first `untilMs` of an interval: adjacent parts add up to the whole. */
function millijoulesUntil(microjoules: bigint, overMs: number, untilMs: number): bigint {
  return (microjoules * BigInt(untilMs)) / (BigInt(overMs) * 1000n)
}

function isMemoryHeld(sample: LedgerSample): boolean {
  const used = sample.mem_used_mb ?? 0
  const total = sample.mem_total_mb ?? 0
  return total > 0 && used * 20 >= total
}
