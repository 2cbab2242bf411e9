// The live figures in a fixed order, as the API, the page and the metrics show them: models by name, slots by host and
// index. The processor gives them in the order in which it saw them first, which another process saw differently.

import type { LiveModel, LiveSlot } from '../domain/live/live-figures.ts'
import type { HttpDependencies } from './dependencies.ts'

export interface LiveView {
  as_of: string
  /** Nothing was read for a whole window, or something is wrong: the figures are of the past. */
  stale: boolean
  window_s: number
  models: LiveModel[]
  slots: LiveSlot[]
}

export function liveView(processor: HttpDependencies['processor']): LiveView {
  const { as_of, stale, window_s, models, slots } = processor.live()
  return { as_of, stale, window_s, models: models.toSorted(byModel), slots: slots.toSorted(bySlot) }
}

/** Orders by host (none first), then index. */
export function bySlot(
  a: { host: string | null; gpu_index: number },
  b: { host: string | null; gpu_index: number },
): number {
  return compare(a.host ?? '', b.host ?? '') || a.gpu_index - b.gpu_index
}

export function byModel(a: { model: string }, b: { model: string }): number {
  return compare(a.model, b.model)
}

/** By code units: the same on every machine, whatever its locale. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
