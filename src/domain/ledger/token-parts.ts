// A token event cut at minutes: one that sums over an interval becomes one part for each minute that it reaches, which
// the ledger takes like an event of that minute. Four counts are spread separately, like over GPUs: uncached input,
// cached input, output and requests. Most events have no interval, or one within a minute, and are their own part.

import { intervalMs, madeWithin } from '../events/event-interval.ts'
import { CELL_MS, floorTo, reachMinutes } from './buckets.ts'
import type { LedgerToken } from './types.ts'

/**
 * The parts of an event in order of time; they add up to it. The `ts` of a part is where it begins. Minutes in which no
 * whole token or request falls have none.
 */
export function partsOf(event: LedgerToken): LedgerToken[] {
  if (reachMinutes(event) === 0) return [event]
  const lengthMs = intervalMs(event)
  const toMs = event.ts.getTime()
  const fromMs = toMs - lengthMs
  const { interval_s: _, requests: allRequests = 1, cached_prompt_tokens: allCached = 0, ...rest } = event
  const counts = [allRequests, event.prompt_tokens - allCached, allCached, event.completion_tokens] as const
  const parts: LedgerToken[] = []
  const given = [0, 0, 0, 0]
  for (let atMs = fromMs; atMs < toMs; atMs = floorTo(CELL_MS, atMs) + CELL_MS) {
    const passedMs = Math.min(floorTo(CELL_MS, atMs) + CELL_MS, toMs) - fromMs
    const [requests, uncached, cached, completion] = counts.map((count, i) => {
      const made = madeWithin(count, passedMs, lengthMs) - given[i]!
      given[i]! += made
      return made
    }) as [number, number, number, number]
    if (requests + uncached + cached + completion === 0) continue
    const sums = { requests, prompt_tokens: uncached + cached, completion_tokens: completion }
    parts.push({ ...rest, ...sums, cached_prompt_tokens: cached, ts: new Date(atMs) })
  }
  return parts
}
