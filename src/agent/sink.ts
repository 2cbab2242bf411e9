// Where the agent's records go: an event log (log-sink.ts: Kafka, or the embedded one), or another pertoken over HTTP
// (http-sink.ts). What happened to a batch is data, for each outcome asks for something else of the forwarder.

import type { EventKind } from '../domain/events/documents.ts'
import type { SpoolRecord } from './spool.ts'

/** What became of the records of one call. */
export type SendResult =
  /** The other side has all of them durably. */
  | { kind: 'taken' }
  /** None was taken, and these can never be: give them up, send the others. Never empty. */
  | { kind: 'refused'; refused: readonly { index: number; message: string }[] }
  /** None was taken: too many at once. Never for a single record. */
  | { kind: 'too-large' }
  /** Not known to be taken: send the same again, after `retryAfterMs` where the other side said so. */
  | { kind: 'failed'; message: string; retryAfterMs: number | null; needsPerson: boolean }

export interface Sink {
  /** For log lines: `kafka at localhost:9092`, `https://example.com`. */
  readonly description: string
  /** Most records of one call. */
  readonly maxRecords: number
  /** Sends records in order. Never rejects; bounded in time, and cut off when the signal aborts. */
  send(kind: EventKind, records: readonly SpoolRecord[], signal: AbortSignal): Promise<SendResult>
  close(): Promise<void>
}
