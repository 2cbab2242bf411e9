// When a dirty span is due, and in which order and runs due minutes are computed. A span rests until its newest mark has
// settled, since a late event seldom comes alone, but not for ever; a minute also waits for its own end and for what the
// agents' spools may still hold. Newest first: what people look at is now. Each keeper waits a little of its own longer,
// so that of two keepers one mostly finds the marks gone; when catching up, keepers start at different places.

import { CELL_MS, floorTo, HOUR_MS } from '../../domain/ledger/buckets.ts'
import type { DirtyBucket } from '../../store/ledger-store.ts'

export interface DueRule {
  /** Due when the newest mark is this old, milliseconds. */
  settleMs: number
  /** Or when the oldest mark is this old. */
  maxWaitMs: number
  /** And never before the span's start + this much of the clock: its length and what may still be on its way. */
  lagMs: number
  jitterMs: number
}

/** Whether a span is due. `seed` is the keeper's. */
export function isDue(span: DirtyBucket, nowMs: number, rule: DueRule & { seed: number }): boolean {
  if (nowMs < span.startMs + rule.lagMs) return false
  const patienceMs = jitter(span.startMs, rule.seed) * rule.jitterMs
  return nowMs >= Math.min(span.lastAtMs + rule.settleMs, span.firstAtMs + rule.maxWaitMs) + patienceMs
}

/** Minutes further apart than this are read in runs of their own; closer ones share the samples around them anyway. */
const MAX_GAP_MS = 3 * CELL_MS
/** Marks that one run may hold in memory. */
const MAX_MARKS_PER_RUN = 20_000

/**
 * Cuts due minutes (newest first) into runs that are computed from one read: ascending inside, of one hour, at most
 * `maxMs` long. `alone` are minutes that failed in company and are tried by themselves.
 */
export function runsOf(due: readonly DirtyBucket[], maxMs: number, alone: (startMs: number) => boolean): number[][] {
  const runs: number[][] = []
  let run: number[] = []
  let marks = 0
  for (const span of due) {
    const newest = run[0]
    const oldest = run.at(-1)
    const joins =
      newest !== undefined &&
      oldest! - span.startMs <= MAX_GAP_MS &&
      newest + CELL_MS - span.startMs <= maxMs &&
      floorTo(HOUR_MS, newest) === floorTo(HOUR_MS, span.startMs) &&
      marks + span.marks <= MAX_MARKS_PER_RUN &&
      !alone(newest) &&
      !alone(span.startMs)
    if (!joins) {
      run = []
      marks = 0
      runs.push(run)
    }
    run.push(span.startMs)
    marks += span.marks
  }
  return runs.map((starts) => starts.reverse())
}

/** Turns each eight runs but the first by a number of the keeper's own, so that two keepers catch up side by side. */
export function staggerRuns<T>(runs: readonly T[], seed: number): T[] {
  const rest = runs.slice(1)
  const turned: T[] = runs.slice(0, 1)
  for (let i = 0; i < rest.length; i += 8) {
    const group = rest.slice(i, i + 8)
    const by = seed % group.length
    turned.push(...group.slice(by), ...group.slice(0, by))
  }
  return turned
}

/** 0 to 1, the same for the same span and keeper. */
function jitter(startMs: number, seed: number): number {
  const mixed = Math.imul((startMs / CELL_MS) ^ seed, 0x9e3779b1) >>> 0
  return mixed / 2 ** 32
}
