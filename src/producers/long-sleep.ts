// Sleeps until an instant that may be months away. A timer of more than 2^31 ms (24.8 days) fires at once, so a long
// pause is cut into parts; after each the clock is read again, so that a machine that was suspended wakes up in time.

import { setTimeout as timer } from 'node:timers/promises'

/** Longest part, milliseconds. */
const MAX_PART_MS = 3_600_000

export interface SleepTools {
  nowMs: () => number
  sleep: (ms: number, signal: AbortSignal) => Promise<unknown>
}

const SYSTEM: SleepTools = { nowMs: Date.now, sleep: (ms, signal) => timer(ms, undefined, { signal }) }

/** Resolves at the instant `untilMs` (epoch milliseconds), or as soon as the signal aborts; never rejects. */
export async function sleepUntil(untilMs: number, signal: AbortSignal, tools: SleepTools = SYSTEM): Promise<void> {
  for (let leftMs = untilMs - tools.nowMs(); leftMs > 0 && !signal.aborted; leftMs = untilMs - tools.nowMs()) {
    await tools.sleep(Math.min(leftMs, MAX_PART_MS), signal).catch(() => {})
  }
}
