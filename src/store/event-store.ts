// The port of the store, first half: raw events, dead letters, and the processor's progress. The second half, the
// ledger, is ledger-store.ts. Two adapters implement both, mongo/ and sqlite/; one contract suite,
// test/store/event-store.contract.ts, runs over both.
//
// Every write is idempotent: it may be repeated after a lost reply, and made by two processors at once. When a write
// resolves, what it wrote is durable (MongoDB: majority and journal) and visible to every later read.
//
// Whoever makes a store owns it: prepares it before anything else and closes it, once, at the end; both halves share
// one connection. All methods may be called concurrently. What a method returns belongs to the caller; what is passed
// in stays the caller's, except the documents of `writeDocuments`, which must not be changed afterwards.

import type { EventKind, GpuDocument, TokenDocument } from '../domain/events/event.ts'
import type { ReasonCode } from '../domain/events/rejection.ts'
import type { Position } from '../log/event-log.ts'
import type { LedgerStore } from './ledger-store.ts'

/** Host and time of a document as it is stored: where the ledger has it. */
export interface EventPlace {
  host: string | null
  ts: Date
  interval_s?: number
}

/** How many documents of a write were new; the others existed already. */
export interface WriteResult {
  stored: number
  duplicate: number
  /**
   * Of the documents that existed already, where the stored ones lie: what was passed may lie elsewhere, since hosts
   * are inferred again at each delivery, and two events of one id may have two times. Read after the write, so it has
   * the document that another processor has just written. One that was deleted meanwhile is left out.
   */
  existing: { samples: EventPlace[]; tokens: EventPlace[] }
}

/** The copy of a rejected record, for listings. `_id` is made of its position, so writing it again is a no-op. */
export interface DeadLetter {
  _id: string
  reason: ReasonCode
  message: string
  topic: string
  topic_id: string
  partition: number
  offset: number
  /** The record's timestamp in the log; null where that is no time (see recordTimeOf). */
  record_time: Date | null
  /** When it was rejected. */
  time: Date
  key: Buffer | null
  /** The record's bytes, cut to DEAD_LETTER_COPY_BYTES. */
  value: Buffer | null
  /** Length and SHA-256 (hex) of the whole value. */
  value_length: number
  value_sha256: string
  headers: Record<string, string>
  /** Set once it was appended to its topic again. */
  redriven_at?: Date
}

/** Longest copy of a rejected value that the store keeps; the dead-letter topic keeps more. */
export const DEAD_LETTER_COPY_BYTES = 65_536

/** A page of a listing; `cursor` continues behind it, null at the end. */
export interface Page<T> {
  items: T[]
  cursor: string | null
}

/** Which events to list, by (ts, _id). Times are epoch milliseconds, `toMs` exclusive. */
export interface EventQuery {
  fromMs?: number
  toMs?: number
  host?: string | null
  gpuIndex?: number
  model?: string
  tenant?: string
  limit: number
  cursor?: string
}

/**
 * Which samples `latestSample` considers: of one slot, host, index, or all; in the whole of time where no bound is set.
 */
export interface LatestSampleQuery {
  host?: string | null
  gpuIndex?: number
  /**
   * Bounds of event time, epoch milliseconds, both inclusive. A lower bound also bounds what a search in vain costs.
   */
  atOrAfterMs?: number
  atOrBeforeMs?: number
}

/** Counts for /health and doctor. */
export interface StoreCounts {
  gpuMetrics: number
  tokenUsage: number
  deadLetters: number
  /** Documents in the two event collections that pertoken did not write; null where counting would take long. */
  foreign: number | null
}

/** A failure of the store; `retriable`: whether the same call may succeed later. */
export class StoreError extends Error {
  readonly retriable: boolean
  /** Whether the message names a remedy. */
  readonly hasRemedy: boolean

  constructor(message: string, options: { retriable: boolean; hasRemedy?: boolean; cause?: unknown }) {
    super(message, { cause: options.cause })
    this.name = 'StoreError'
    this.retriable = options.retriable
    this.hasRemedy = options.hasRemedy ?? false
  }
}

export interface EventStore {
  /** For log lines and /health: `mongodb ca0 at localhost:27017`. */
  readonly description: string
  /** The ledger's half, on the same connection: prepared and closed together with this one. */
  readonly ledger: LedgerStore
  /**
   * Creates what is missing (collections, indexes, format number), migrates an older format, refuses a newer one. An
   * index that exists with other options is returned as a warning. Throws a StoreError; may be called again.
   */
  prepare(): Promise<{ warnings: string[] }>
  /** Resolves when the store responds; throws a StoreError when it does not. */
  ping(): Promise<void>
  close(): Promise<void>

  /**
   * Writes the documents of one step, both kinds concurrently. The documents must not be changed afterwards. What
   * existed already is read back, which costs nothing where everything is new.
   * `jsonBytes`, if known, is their total length as JSON: it spares the store from measuring each of them.
   */
  writeDocuments(
    samples: readonly GpuDocument[],
    tokens: readonly TokenDocument[],
    jsonBytes?: number,
  ): Promise<WriteResult>
  writeDeadLetters(letters: readonly DeadLetter[]): Promise<void>
  /** Advances positions; one that is not ahead of the stored one of the same topic id changes nothing. */
  advancePositions(group: string, positions: readonly Position[]): Promise<void>
  /** Stores positions of partitions that have none of this topic id yet; others stay: a start is decided once. */
  beginPositions(group: string, positions: readonly Position[]): Promise<void>
  /** All stored positions of a group, of every topic id that was ever stored. */
  readPositions(group: string): Promise<Position[]>
  /** Replaces the stored positions of these partitions unconditionally and drops other topic ids: `topics seek`. */
  resetPositions(group: string, positions: readonly Position[]): Promise<void>

  /** The newest sample by (ts, _id) that the query considers; null when there is none. */
  latestSample(query: LatestSampleQuery): Promise<GpuDocument | null>
  /** The newest sample of each slot with a sample at or after `sinceMs`, at most `limit` slots. */
  latestSamplePerSlot(sinceMs: number, limit: number): Promise<GpuDocument[]>
  /** Event time of the newest document of a kind, epoch milliseconds; null when there is none. */
  newestMs(kind: EventKind): Promise<number | null>
  /** Documents that pertoken wrote, with ts in [fromMs, toMs), by (ts, _id), streamed. */
  readEvents(kind: 'gpu', fromMs: number, toMs: number): AsyncIterable<GpuDocument>
  readEvents(kind: 'token', fromMs: number, toMs: number): AsyncIterable<TokenDocument>
  /** A page of documents as stored, including those that pertoken did not write. */
  listEvents(kind: EventKind, query: EventQuery): Promise<Page<Record<string, unknown>>>
  /** A page of dead letters, newest first. */
  listDeadLetters(query: { reason?: string; topic?: string; limit: number; cursor?: string }): Promise<Page<DeadLetter>>
  readDeadLetter(id: string): Promise<DeadLetter | null>
  markRedriven(id: string, at: Date): Promise<void>
  /** Deletes dead letters written before an instant, epoch milliseconds; returns how many. */
  purgeDeadLetters(beforeMs: number): Promise<number>
  count(): Promise<StoreCounts>
}
