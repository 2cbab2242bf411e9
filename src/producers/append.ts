// Appends for producers: retries an append that failed with a retriable error until the log has taken it. A retry may
// put records into the log twice; those with an id of their own still become one document each.

import { setTimeout as sleep } from 'node:timers/promises'
import { type EventLog, LogError, type NewRecord } from '../log/event-log.ts'

const FIRST_DELAY_MS = 100
const MAX_DELAY_MS = 2000

/**
 * Resolves to true when the log has the records, to false when the signal aborted first. Throws a LogError that is not
 * retriable. `onRetry` is called once, with the first failure.
 */
export async function appendUntilTaken(
  log: EventLog,
  topic: string,
  records: readonly NewRecord[],
  signal: AbortSignal,
  onRetry?: (error: LogError) => void,
): Promise<boolean> {
  for (let delayMs = FIRST_DELAY_MS; !signal.aborted; delayMs = Math.min(delayMs * 2, MAX_DELAY_MS)) {
    try {
      await log.append(topic, records)
      return true
    } catch (error) {
      if (!(error instanceof LogError) || !error.retriable) throw error
      if (delayMs === FIRST_DELAY_MS) onRetry?.(error)
      await sleep(delayMs, undefined, { signal }).catch(() => {})
    }
  }
  return false
}
