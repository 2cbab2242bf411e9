// What the ledger needs of the store: marks, spans (cells, and the hours and days that are sums of them), grouped raw
// events, price book versions, revisions, day states. The same two adapters as event-store.ts implement it; one contract
// suite, test/store/ledger-store.contract.ts, runs over both.
//
// The protocol that keeps the ledger right without a leader (docs/adr/0003-keeper-protocol.md): raw documents are written before their
// marks; marks are inserted, never merged; whoever computes a span reads the marks first, then the span's rev, then what
// it is computed from; replaces the span only if its rev is unchanged; and deletes exactly the marks that it read.
// All reads are of the primary and see every acknowledged write.

import type { BucketLevel } from '../domain/ledger/buckets.ts'
import type { CellRow, LedgerSample, LedgerToken, RowTotals, TokenTotals } from '../domain/ledger/types.ts'

/** Marks of one span start, over all hosts. */
export interface DirtyBucket {
  startMs: number
  /** How many marks it has; a store may keep one for each host. */
  marks: number
  /** When its oldest and newest mark were inserted, epoch milliseconds. */
  firstAtMs: number
  lastAtMs: number
}

/** One inserted mark; `id` is opaque and never used twice. */
export interface Mark {
  id: string
  hosts: (string | null)[]
}

/** One document of `cost_ledger`. */
export interface LedgerBucket {
  level: BucketLevel
  startMs: number
  host: string | null
  /** Counts replacements; 0 is a span that does not exist. */
  rev: number
  /** Versions of the price book that it was computed with, ascending; one for a cell. */
  bookVersions: number[]
  rows: CellRow[]
  /** What `rowSumsOf` makes of the rows. */
  sums: RowTotals | null
  capped: number
  /** Clock time when it was computed, epoch milliseconds. */
  computedMs: number
}

/** A version of the price book; instants from `fromMs` on are priced with it until the next one's (null: from the beginning). */
export interface PriceBookVersion {
  version: number
  /** A whole minute. */
  fromMs: number | null
  atMs: number
  /** Where it came from: environment, file, api, cli. */
  origin: string
  /** The book as it was given and validated, JSON. */
  book: unknown
}

/** A range of instants that was repriced: cells in it are computed with `bookVersion` from then on. */
export interface Revision {
  revision: number
  fromMs: number
  toMs: number
  bookVersion: number
  atMs: number
  /** Totals by model and tenant before and after, and what was skipped; JSON. */
  summary: unknown
}

/** A day of event time under retention. Days that were never closed have no state. */
export interface DayState {
  /** Start of the day, UTC, epoch milliseconds. */
  startMs: number
  state: 'closing' | 'frozen' | 'purged'
  /** When the state was entered, epoch milliseconds. */
  sinceMs: number
}

export interface LedgerStore {
  /** Span starts with marks, newest first, at most `limit`. */
  dirtyBuckets(level: BucketLevel, limit: number): Promise<DirtyBucket[]>
  /** All marks of one span start. */
  readMarks(level: BucketLevel, startMs: number): Promise<Mark[]>
  /** Inserts one mark a span start; for minutes the same as EventStore.insertMarks. */
  markSpans(
    level: BucketLevel,
    spans: readonly { startMs: number; hosts: readonly (string | null)[] }[],
    atMs: number,
  ): Promise<void>
  /** Deletes these marks; those that are gone already are no fault. */
  deleteMarks(ids: readonly string[]): Promise<void>
  /** Number of pending marks with a span start in [fromMs, toMs), over all levels; for `final`. */
  pendingMarks(fromMs: number, toMs: number): Promise<number>

  /**
   * Spans of a level with a start in [fromMs, toMs), by (start, host), streamed; of these hosts only when given. Null is
   * the first host, the others are in order of their UTF-8 bytes.
   */
  readBuckets(
    level: BucketLevel,
    fromMs: number,
    toMs: number,
    hosts?: readonly (string | null)[],
  ): AsyncIterable<LedgerBucket>
  /**
   * The same spans with their `sums.model` or `sums.tenant` in place of the rows where they have sums, and with their rows
   * where not: either way what adds up by model (or tenant) and price kind to what the rows add up to.
   */
  readRollups(
    by: keyof RowTotals,
    level: BucketLevel,
    fromMs: number,
    toMs: number,
    hosts?: readonly (string | null)[],
  ): AsyncIterable<Pick<LedgerBucket, 'startMs' | 'host' | 'rows'>>
  /** The revs of these hosts' spans; a host without a span is missing from the map. */
  readRevs(level: BucketLevel, startMs: number, hosts: readonly (string | null)[]): Promise<Map<string | null, number>>
  /**
   * Replaces each span whose stored rev is `span.rev` (0: does not exist) by this one with rev + 1. Answers, in order,
   * which were replaced. Repeating it after a lost reply answers false for those that were: the caller computes again.
   * True is always true; false may be said of one that was, where others wrote at the same time.
   */
  replaceBuckets(spans: readonly LedgerBucket[]): Promise<boolean[]>

  /** Samples that pertoken wrote in [fromMs, toMs), by (ts, _id), with `host`; streamed, with the ledger's fields. */
  readLedgerSamples(fromMs: number, toMs: number): AsyncIterable<LedgerSample & { host: string | null }>
  /** Token usage that pertoken wrote in [fromMs, toMs), event by event, by (ts, _id); streamed, with the ledger's fields. */
  readLedgerTokens(fromMs: number, toMs: number): AsyncIterable<LedgerToken>
  /**
   * Token usage of these hosts that pertoken wrote in [fromMs, toMs), grouped inside the store by minute, host, gpus, model,
   * tenant; each group once, `gpus` ascending. All groups are held in memory: ask for an hour at most.
   */
  tokenTotals(
    fromMs: number,
    toMs: number,
    hosts: readonly (string | null)[],
  ): Promise<(TokenTotals & { startMs: number; host: string | null })[]>
  /** The span of event time that pertoken has raw events for, [first, last + 1 ms); null when none. */
  rawRange(): Promise<{ fromMs: number; toMs: number } | null>

  readBooks(): Promise<PriceBookVersion[]>
  /** Inserts a version; false when that version number is taken (read again, try the next). */
  insertBook(book: PriceBookVersion): Promise<boolean>
  readRevisions(): Promise<Revision[]>
  /** Inserts a revision; false when that number is taken. */
  insertRevision(revision: Revision): Promise<boolean>
  updateRevisionSummary(revision: number, summary: unknown): Promise<void>

  readDayStates(): Promise<DayState[]>
  /**
   * Moves a day forward: absent → closing → frozen → purged; false when it was not in the state before, so also when it is
   * repeated after a lost reply.
   */
  advanceDay(day: DayState): Promise<boolean>
  /**
   * Deletes raw events that pertoken wrote, and minute cells, with a time in [fromMs, toMs), in bounded steps; what it
   * answers is what this call deleted. Stopped half-way, repeating it deletes the rest.
   */
  purge(fromMs: number, toMs: number): Promise<{ events: number; cells: number }>
}
