// The live figures in a fixed order, as the API, the page and the metrics show them: models by name, slots by host and
// index. The processor returns them in the order of first appearance, which differs between processes.

import { bySlot } from '../domain/fleet/gpu-conflicts.ts'
import type { LiveFigures } from '../domain/live/live-figures.ts'
import type { HttpDependencies } from './dependencies.ts'

export interface LiveView extends LiveFigures {
  as_of: string
  /** Nothing was read for a whole window, or the processor is unhealthy: the figures are of the past. */
  stale: boolean
  window_s: number
}

export function liveView(processor: HttpDependencies['processor']): LiveView {
  const { as_of, stale, window_s, totals, models, slots } = processor.live()
  return { as_of, stale, window_s, totals, models: models.toSorted(byModel), slots: slots.toSorted(bySlot) }
}

/** Orders by name in code units, the same in every locale. */
export function byModel(a: { model: string }, b: { model: string }): number {
  return a.model < b.model ? -1 : a.model > b.model ? 1 : 0
}
