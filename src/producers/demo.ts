// Appends the demo workload to the log in real time, starting some minutes in the past, so that the page has data at
// once. Past events are appended in batches as fast as the log takes them.

import { setTimeout as sleep } from 'node:timers/promises'
import type { EventLog, NewRecord } from '../log/event-log.ts'
import { appendUntilTaken } from './append.ts'
import { type DemoEvent, generateDemo } from './demo-workload.ts'

/** How far in the past the demo starts, milliseconds. */
const HISTORY_MS = 20 * 60_000
/** Maximum of events per append. */
const MAX_BATCH = 1000
/** Interval at which due events are appended, milliseconds. */
const TICK_MS = 250
const SEED = 1

/** Runs until the signal aborts. `topics` are the names of the topics of samples and of token usage. */
export async function runDemo(
  log: EventLog,
  topics: { gpu: string; token: string },
  signal: AbortSignal,
): Promise<void> {
  // Starts on a whole second, so that samples fall on whole seconds too.
  const startMs = Math.floor((Date.now() - HISTORY_MS) / 1000) * 1000
  const events = generateDemo({ seed: SEED, startMs })
  let next = events.next().value as DemoEvent
  while (!signal.aborted) {
    const batch = { gpu: [] as NewRecord[], token: [] as NewRecord[] }
    const nowMs = Date.now()
    let count = 0
    for (; count < MAX_BATCH && timeOf(next) <= nowMs; count++) {
      batch[next.topic].push({ key: next.event.host ?? null, value: Buffer.from(JSON.stringify(next.event)) })
      next = events.next().value as DemoEvent
    }
    for (const kind of ['gpu', 'token'] as const) {
      if (batch[kind].length > 0) await appendUntilTaken(log, topics[kind], batch[kind], signal)
    }
    if (count < MAX_BATCH) await sleep(TICK_MS, undefined, { signal }).catch(() => {})
  }
}

function timeOf({ event }: DemoEvent): number {
  return typeof event.ts === 'number' ? event.ts : Date.parse(event.ts)
}
