// Where the agent's records go: an event log (log-sink.ts: Kafka, or the embedded one), or another pertoken over HTTP
// (http-sink.ts). The outcome of a batch is data, as the forwarder treats each one differently.

import type { EventKind } from '../domain/events/event.ts'
import type { SpoolRecord } from './spool.ts'

/** The outcome of one call. */
export type SendResult =
  /** All records are stored durably. */
  | { kind: 'taken' }
  /** None was taken, as these are invalid: discard them, send the others. Never empty. */
  | { kind: 'rejected'; rejected: readonly { index: number; message: string }[] }
  /** None was taken: the batch is too large. Never for a single record. */
  | { kind: 'too-large' }
  /** Not known to be taken: send the same batch again, after `retryAfterMs` where the receiver asked for that. */
  | { kind: 'failed'; message: string; retryAfterMs: number | null; needsOperator: boolean }

export interface Sink {
  /** For log lines: `kafka at localhost:9092`, `https://example.com`. */
  readonly description: string
  /** Maximum of records per call. */
  readonly maxRecords: number
  /** Sends records in order. Never rejects; has a time limit, and ends when the signal aborts. */
  send(kind: EventKind, records: readonly SpoolRecord[], signal: AbortSignal): Promise<SendResult>
  close(): Promise<void>
}
