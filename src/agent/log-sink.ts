// Sends to an event log, keyed by host so that a host's events stay in order. A log that did not confirm is asked again;
// readers then see the same ids.

import type { EventKind } from '../domain/events/documents.ts'
import { type EventLog, LogError } from '../log/event-log.ts'
import { untilAborted } from '../runtime/waiting.ts'
import type { SendResult, Sink } from './sink.ts'

const MAX_RECORDS = 1000
const STOPPED: SendResult = { kind: 'failed', message: 'Stopped', retryAfterMs: null, needsPerson: false }

/** A sink over a log. `topics` are made where they are missing, with so many partitions; the log stays its owner's. */
export function logSink(
  log: EventLog,
  { topics, partitions }: { topics: Readonly<Record<EventKind, string>>; partitions: number },
): Sink {
  const made = new Set<string>()
  return {
    description: log.description,
    maxRecords: MAX_RECORDS,
    async send(kind, records, signal) {
      const topic = topics[kind]
      const work = async (): Promise<SendResult> => {
        if (!made.has(topic)) await log.ensureTopics([{ name: topic, partitions }])
        made.add(topic)
        await log.append(topic, records)
        return { kind: 'taken' }
      }
      return (await untilAborted(work().catch(failed), signal)) ?? STOPPED
    },
    close: async () => {},
  }
}

function failed(error: unknown): SendResult {
  if (!(error instanceof LogError)) throw error
  return { kind: 'failed', message: error.message, retryAfterMs: null, needsPerson: !error.retriable }
}
