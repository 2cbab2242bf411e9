// Sends to an event log, keyed by host so that a host's events stay in order. An append that was not confirmed is
// repeated; readers may then see an event twice, with the same id.

import type { EventKind } from '../domain/events/event.ts'
import { type EventLog, LogError } from '../log/event-log.ts'
import { untilAborted } from '../runtime/waiting.ts'
import type { SendResult, Sink } from './sink.ts'

const MAX_RECORDS = 1000
const STOPPED: SendResult = { kind: 'failed', message: 'Stopped', retryAfterMs: null, needsOperator: false }

/** A sink over a log, which the caller closes. Missing `topics` are created with so many partitions. */
export function logSink(
  log: EventLog,
  { topics, partitions }: { topics: Readonly<Record<EventKind, string>>; partitions: number },
): Sink {
  const ensured = new Set<string>()
  return {
    description: log.description,
    maxRecords: MAX_RECORDS,
    async send(kind, records, signal) {
      const topic = topics[kind]
      const append = async (): Promise<SendResult> => {
        if (!ensured.has(topic)) await log.ensureTopics([{ name: topic, partitions }])
        ensured.add(topic)
        await log.append(topic, records)
        return { kind: 'taken' }
      }
      return (await untilAborted(append().catch(failed), signal)) ?? STOPPED
    },
    close: async () => {},
  }
}

function failed(error: unknown): SendResult {
  if (!(error instanceof LogError)) throw error
  return { kind: 'failed', message: error.message, retryAfterMs: null, needsOperator: !error.retriable }
}
