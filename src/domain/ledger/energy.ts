// The energy that a slot used between two samples: what the GPU's own counter rose by, else measured power × time. A
// counter is believed only as far as one GPU can have counted so: not across two GPUs, not backwards, not faster than a
// board can draw, and not at rest beside measured power. A doubted difference is no figure, and never a sum of money:
// one reading of another GPU's counter would be worth a year's. Rules: docs/cost-model.md, section 10.

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

/**
 * Energy between the samples `at - 1` and `at`, 10⁻⁶ J; null where no sample shows it. `samples` are one slot's,
 * ascending by time; those outside of `window` count for nothing.
 */
export function energyBefore(samples: readonly LedgerSample[], at: number, window: Window): bigint | null {
  const [previous, sample] = [samples[at - 1]!, samples[at]!]
  const rose = riseOf(previous, sample)
  if (rose !== null && counterDoubt(samples, at, window) === null) return rose
  const milliwatts = milliwattsOf(sample)
  return milliwatts === null ? null : milliwatts * BigInt(sample.ts.getTime() - previous.ts.getTime())
}

/** Why the counter is not believed between the samples `at - 1` and `at`; null where it is, or where there is none. */
export function counterDoubt(samples: readonly LedgerSample[], at: number, window: Window): CounterDoubt | null {
  const [previous, sample] = [samples[at - 1]!, samples[at]!]
  const rose = riseOf(previous, sample)
  if (rose === null) return null
  if (areTwoGpus(previous, sample)) return 'two GPUs'
  if (sample.energy_j! < previous.energy_j!) return 'back'
  const overMs = BigInt(sample.ts.getTime() - previous.ts.getTime())
  const isPossible = (mostMilliwatts: bigint) => rose <= mostMilliwatts * overMs
  const isMeasured = (each: LedgerSample) => isPossible(MOST_TIMES_MEASURED * (milliwattsOf(each) ?? 0n))
  if (!isPossible(MOST_MILLIWATTS) && !isMeasured(previous) && !isMeasured(sample)) return 'leap'
  return rose === 0n && isFrozen(samples, at, window) ? 'stopped' : null
}

/** What the counter rose by, in whole mJ, as 10⁻⁶ J; null where a sample has no counter. */
function riseOf(previous: LedgerSample, sample: LedgerSample): bigint | null {
  const before = previous.energy_j ?? null
  const after = sample.energy_j ?? null
  return before === null || after === null ? null : BigInt(Math.round((after - before) * 1000)) * 1000n
}

/** Whether the counter has rested for long around two samples that both measured power. */
function isFrozen(samples: readonly LedgerSample[], at: number, { fromMs, toMs }: Window): boolean {
  if ([at - 1, at].some((i) => (milliwattsOf(samples[i]!) ?? 0n) <= AWAKE_MILLIWATTS)) return false
  const rests = (i: number) =>
    samples[i - 1]!.energy_j === samples[i]!.energy_j && !areTwoGpus(samples[i - 1]!, samples[i]!)
  if (!rests(at)) return false
  let first = at - 1
  let last = at
  const restedMs = () => samples[last]!.ts.getTime() - samples[first]!.ts.getTime()
  while (restedMs() < FROZEN_MS && first > 0 && samples[first - 1]!.ts.getTime() >= fromMs && rests(first)) first--
  while (
    restedMs() < FROZEN_MS &&
    last + 1 < samples.length &&
    samples[last + 1]!.ts.getTime() < toMs &&
    rests(last + 1)
  )
    last++
  return restedMs() >= FROZEN_MS
}

/** Whether two samples of a slot are of two GPUs: by uuid where both have it, else by name. */
function areTwoGpus(a: LedgerSample, b: LedgerSample): boolean {
  if ((a.uuid ?? null) !== null && (b.uuid ?? null) !== null) return a.uuid !== b.uuid
  return (a.name ?? null) !== null && (b.name ?? null) !== null && a.name !== b.name
}

function milliwattsOf({ power_w }: LedgerSample): bigint | null {
  return (power_w ?? null) === null ? null : BigInt(Math.round(power_w! * 1000))
}
