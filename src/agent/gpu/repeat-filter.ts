// Keeps out readings that repeat. A source whose figures another program measures (a DCGM exporter: every 30 s unless
// configured) answers between two measurements with the figures of the last one. Sampled every second these would be
// thirty times the events for nothing, and the energy of 30 s would seem to be that of the second in which the figures
// change. So while they rest they are sampled every 10 s, changed or not: often enough for the live window, and the
// counter's rise is never taken for that of a shorter time.

import type { GpuReading } from './gpu-source.ts'

/** How often readings that rest are sampled. */
const REPEAT_MS = 10_000
/** So many readings in a row that differ: the source measures as often as it is read. */
const KEEPS_PACE = 3

/** Returns a function that is called with each reading: whether it is to be sampled. `nowMs` is a monotonic clock. */
export function repeatFilter(nowMs: () => number): (readings: readonly GpuReading[]) => boolean {
  let last = ''
  let inARow = 0
  let sampledMs = Number.NEGATIVE_INFINITY
  return (readings) => {
    const text = JSON.stringify(readings)
    inARow = text === last ? 0 : inARow + 1
    last = text
    if (inARow < KEEPS_PACE && nowMs() - sampledMs < REPEAT_MS) return false
    sampledMs = nowMs()
    return true
  }
}
