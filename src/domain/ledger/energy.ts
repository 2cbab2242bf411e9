// The energy that a slot used between two samples: what the GPU's own counter rose by, else measured power × time. A
// counter is believed only as far as one GPU can have counted so: not across two GPUs, not backwards, not faster than a
// board can draw, and not at rest beside measured power. A doubted difference is no figure, and never a sum of money:
// one reading of another GPU's counter would be worth a year's. Rules: docs/cost-model.md, section 10.

import { decimalUnits } from '../prices/money.ts'
import type { LedgerSample } from './types.ts'

/** What no GPU draws, 10⁻³ W: more than ten times the largest boards, for peaks between samples and several dies. */
const MOST_MILLIWATTS = 10_000_000n
/** A difference may be so many times what a sample measured: power is of an instant, the difference of all the time. */
const MOST_TIMES_MEASURED = 4n
/** A counter that rests this long beside power has stopped; shorter, it may be read in steps, and catches up. */
const FROZEN_MS = 60_000
/** Power that a counter at rest belies, 10⁻³ W: a GPU that is asleep draws less. */
const AWAKE_MILLIWATTS = 20_000n

/** Instants of event time, epoch milliseconds: what a cell may know of the samples around it. */
interface Window {
  fromMs: number
  toMs: number
}

/** Why a counter's difference is not believed. */
export type CounterDoubt = 'two GPUs' | 'back' | 'leap' | 'stopped'

/** The energy of one slot between its samples, ascending by time; those outside of the window count for nothing. */
export class EnergyCounter {
  readonly #samples: readonly LedgerSample[]
  readonly #window: Window
  #restedMs: Float64Array | null = null

  constructor(samples: readonly LedgerSample[], window: Window) {
    this.#samples = samples
    this.#window = window
  }

  /** Energy between the samples `at - 1` and `at`, 10⁻⁶ J; null where no sample has either. */
  before(at: number): bigint | null {
    const [previous, sample] = [this.#samples[at - 1]!, this.#samples[at]!]
    const rose = riseOf(previous, sample)
    if (rose !== null && this.doubt(at) === null) return rose
    const milliwatts = milliwattsOf(sample)
    return milliwatts === null ? null : milliwatts * BigInt(sample.ts.getTime() - previous.ts.getTime())
  }

  /**
   * Why the counter is not believed between the samples `at - 1` and `at`; null where it is, or where there is none.
   */
  doubt(at: number): CounterDoubt | null {
    const [previous, sample] = [this.#samples[at - 1]!, this.#samples[at]!]
    const rose = riseOf(previous, sample)
    if (rose === null) return null
    if (areTwoGpus(previous, sample)) return 'two GPUs'
    if (sample.energy_j! < previous.energy_j!) return 'back'
    const overMs = BigInt(sample.ts.getTime() - previous.ts.getTime())
    const isPossible = (mostMilliwatts: bigint) => rose <= mostMilliwatts * overMs
    const isMeasured = (each: LedgerSample) => isPossible(MOST_TIMES_MEASURED * (milliwattsOf(each) ?? 0n))
    if (!isPossible(MOST_MILLIWATTS) && !isMeasured(previous) && !isMeasured(sample)) return 'leap'
    return rose === 0n && isAwake(previous) && isAwake(sample) && this.#rested(at) >= FROZEN_MS ? 'stopped' : null
  }

  /** How long the counter rests around the samples `at - 1` and `at`, milliseconds. */
  #rested(at: number): number {
    this.#restedMs ??= this.#findRests()
    return this.#restedMs[at]!
  }

  /** One pass over all samples: a host may send thousands a minute. */
  #findRests(): Float64Array {
    const samples = this.#samples
    const restedMs = new Float64Array(samples.length)
    const tsMs = (i: number) => samples[i]!.ts.getTime()
    for (let first = 0, end = 1; first < samples.length; first = end, end++) {
      while (end < samples.length && rests(samples[end - 1]!, samples[end]!)) end++
      let [from, to] = [first, end - 1]
      while (from < to && tsMs(from) < this.#window.fromMs) from++
      while (to > from && tsMs(to) >= this.#window.toMs) to--
      restedMs.fill(tsMs(to) - tsMs(from), first + 1, end)
    }
    return restedMs
  }
}

/** What the counter rose by, each reading in whole mJ, as 10⁻⁶ J; null where a sample has no counter. */
function riseOf(previous: LedgerSample, sample: LedgerSample): bigint | null {
  const before = previous.energy_j ?? null
  const after = sample.energy_j ?? null
  return before === null || after === null ? null : (decimalUnits(after, 3) - decimalUnits(before, 3)) * 1000n
}

/** Whether a GPU's counter is the same in two samples. */
function rests(previous: LedgerSample, sample: LedgerSample): boolean {
  return previous.energy_j === sample.energy_j && !areTwoGpus(previous, sample)
}

function isAwake(sample: LedgerSample): boolean {
  return (milliwattsOf(sample) ?? 0n) > AWAKE_MILLIWATTS
}

/** Whether two samples of a slot are of two GPUs: by uuid where both have it, else by name. */
function areTwoGpus(a: LedgerSample, b: LedgerSample): boolean {
  if ((a.uuid ?? null) !== null && (b.uuid ?? null) !== null) return a.uuid !== b.uuid
  return (a.name ?? null) !== null && (b.name ?? null) !== null && a.name !== b.name
}

function milliwattsOf({ power_w }: LedgerSample): bigint | null {
  return (power_w ?? null) === null ? null : decimalUnits(power_w!, 3)
}
