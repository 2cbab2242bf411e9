// What a slot was like around a minute, where the minute has no sample of its own: the nearest sample's fields.

import { CELL_MS } from './buckets.ts'
import type { LedgerSample } from './types.ts'

/**
 * A field of the sample within G of the minute that has it and is nearest to the minute's start; of two as near the
 * earlier. Null when none has. `samples` ascend by time.
 */
export function nearestOf<F extends 'uuid' | 'name' | 'price_per_hour_usd'>(
  samples: readonly LedgerSample[],
  field: F,
  { startMs, gapMs }: { startMs: number; gapMs: number },
): NonNullable<LedgerSample[F]> | null {
  let nearest: NonNullable<LedgerSample[F]> | null = null
  let nearestMs = Number.POSITIVE_INFINITY
  for (const sample of samples) {
    const tsMs = sample.ts.getTime()
    const distanceMs = Math.abs(tsMs - startMs)
    if (tsMs < startMs - gapMs || tsMs >= startMs + CELL_MS + gapMs || distanceMs >= nearestMs) continue
    const value = sample[field] ?? null
    if (value === null) continue
    nearest = value
    nearestMs = distanceMs
  }
  return nearest
}
