// Series of one engine, whole or as differences, summed by model.

import type { EngineSeries } from './engine-page.ts'
import type { Meaning } from './engine-profiles.ts'

/** What one model used; null: the engine does not state it, which is not 0. */
export interface EngineUsage extends Record<Meaning, number | null> {
  model: string | null
  /** The model that an adapter stands on. */
  base: string | null
}

/** In the order of the page. */
export function usageByModel(series: readonly Omit<EngineSeries, 'key' | 'family'>[]): EngineUsage[] {
  const found = new Map<string, EngineUsage>()
  for (const { model, base, meaning, value } of series) {
    const key = JSON.stringify([model, base])
    let usage = found.get(key)
    if (usage === undefined) {
      usage = {
        model,
        base,
        prompt: null,
        cached: null,
        completion: null,
        requests: null,
        prefillSeconds: null,
        decodeSeconds: null,
      }
      found.set(key, usage)
    }
    usage[meaning] = (usage[meaning] ?? 0) + value
  }
  return [...found.values()]
}
