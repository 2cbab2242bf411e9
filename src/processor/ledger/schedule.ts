// When a dirty bucket is due, and in which order and runs due minutes are computed. A bucket rests until its newest
// mark has settled, since a late event seldom comes alone, but not for ever; a minute also waits for its own end and
// for what the agents' spools may still hold. Newest first: the present is what is looked at. Each keeper adds a small
// delay of its own, so that the second of two keepers mostly finds the marks deleted; catching up, keepers start at
// different runs.

import { CELL_MS, floorTo, HOUR_MS } from '../../domain/ledger/buckets.ts'
import type { DirtyBucket } from '../../store/ledger-store.ts'

/** When buckets of a level are due. */
export interface Schedule {
  /** Due when the newest mark is this old, milliseconds. */
  settleMs: number
  /** Or when the oldest mark is this old. */
  maxWaitMs: number
  /** And never before the bucket's start + this much of the clock: its length and what may still be on its way. */
  lagMs: number
  jitterMs: number
}

/** Minutes are computed this long after their end, milliseconds: what the agents' spools may still hold. */
export const LAG_MS = 105_000
/** Committed minutes that events mark too are computed by then, and not marked a second time, milliseconds. */
const COMMITMENT_GRACE_MS = 45_000

/** Minutes that start before this are paid for though unreported: they ended long enough ago. Epoch milliseconds. */
export function committedEndMs(nowMs: number, lagMs = LAG_MS): number {
  return floorTo(CELL_MS, nowMs - lagMs - COMMITMENT_GRACE_MS)
}

/** Whether a bucket is due. `seed` is the keeper's. */
export function isDue(bucket: DirtyBucket, nowMs: number, schedule: Schedule & { seed: number }): boolean {
  if (nowMs < bucket.startMs + schedule.lagMs) return false
  const delayMs = jitter(bucket.startMs, schedule.seed) * schedule.jitterMs
  return nowMs >= Math.min(bucket.lastAtMs + schedule.settleMs, bucket.firstAtMs + schedule.maxWaitMs) + delayMs
}

/** 0 to 1, the same for the same bucket and keeper. */
function jitter(startMs: number, seed: number): number {
  const mixed = Math.imul((startMs / CELL_MS) ^ seed, 0x9e3779b1) >>> 0
  return mixed / 2 ** 32
}

/** Minutes further apart than this are read in separate runs; closer ones share the samples around them anyway. */
const MAX_GAP_MS = 3 * CELL_MS
/** Marks that one run may hold in memory. */
const MAX_MARKS_PER_RUN = 20_000

/**
 * Cuts due minutes (newest first) into runs that are computed from one read: ascending inside, of one hour, at most
 * `maxMs` long. `isAlone`: minutes that failed together with others and are tried in runs of their own.
 */
export function runsOf(due: readonly DirtyBucket[], maxMs: number, isAlone: (startMs: number) => boolean): number[][] {
  const runs: number[][] = []
  let run: number[] = []
  let marks = 0
  for (const bucket of due) {
    const newest = run[0]
    const oldest = run.at(-1)
    const joins =
      newest !== undefined &&
      oldest! - bucket.startMs <= MAX_GAP_MS &&
      newest + CELL_MS - bucket.startMs <= maxMs &&
      floorTo(HOUR_MS, newest) === floorTo(HOUR_MS, bucket.startMs) &&
      marks + bucket.marks <= MAX_MARKS_PER_RUN &&
      !isAlone(newest) &&
      !isAlone(bucket.startMs)
    if (!joins) {
      run = []
      marks = 0
      runs.push(run)
    }
    run.push(bucket.startMs)
    marks += bucket.marks
  }
  return runs.map((starts) => starts.reverse())
}

/** Rotates groups of eight runs (after the first run) by a per-keeper offset, so that keepers catch up side by side. */
export function staggerRuns<T>(runs: readonly T[], seed: number): T[] {
  const rest = runs.slice(1)
  const staggered: T[] = runs.slice(0, 1)
  for (let i = 0; i < rest.length; i += 8) {
    const group = rest.slice(i, i + 8)
    const offset = seed % group.length
    staggered.push(...group.slice(offset), ...group.slice(0, offset))
  }
  return staggered
}

/** Groups of token usage that a run should hold at most: some 50 MB. */
const GROUPS_PER_RUN = 50_000
const FIRST_RUN_MINUTES = 5
/** The longest run: the minutes of an hour. */
const MAX_RUN_MINUTES = 60

/** How long the next run may be, learned from the runs before: the keeper's memory bound. */
export class RunLength {
  #minutes = FIRST_RUN_MINUTES

  get ms(): number {
    return this.#minutes * CELL_MS
  }

  /** Learns from a run: its length and how many groups it had. */
  learn(ms: number, groups: number): void {
    const perMinute = groups / (ms / CELL_MS)
    const fitting = perMinute === 0 ? MAX_RUN_MINUTES : Math.floor(GROUPS_PER_RUN / perMinute)
    // It may shrink at once, and at most double.
    this.#minutes = Math.max(1, Math.min(MAX_RUN_MINUTES, this.#minutes * 2, fitting))
  }
}
