// The port of the store, second half: what the ledger needs. Marks, buckets (cells, and the hours and days rolled up
// from them), raw events as the ledger reads them, price book versions, revisions, day states. Implemented by the same
// two adapters as event-store.ts, on the same connection, which belongs to the store: nothing to prepare or close here.
// One contract suite, test/store/ledger-store.contract.ts, runs over both.
//
// The protocol that keeps the ledger right without a leader (docs/adr/0003-keeper-protocol.md): raw documents are
// written before their marks; marks are inserted, never merged; whoever computes a bucket reads the marks first, then
// the bucket's rev, then what it is computed from; replaces the bucket only if its rev is unchanged; and deletes
// exactly the marks that it read. All reads see every acknowledged write.

import type { BucketLevel } from '../domain/ledger/buckets.ts'
import type { CellRow, LedgerSample, LedgerToken, RowTotals, TokenTotals } from '../domain/ledger/types.ts'

/** The hosts whose buckets of one start are to be recomputed. */
export interface StaleBucket {
  /** Start of the bucket, epoch milliseconds. */
  startMs: number
  hosts: readonly (string | null)[]
}

/** The pending marks of one bucket start, over all hosts. */
export interface DirtyBucket {
  startMs: number
  /** How many marks it has; a store may keep one for each host. */
  marks: number
  /** When its oldest and its newest mark were inserted, epoch milliseconds. */
  firstAtMs: number
  lastAtMs: number
}

/** One inserted mark; `id` is opaque and never reused. */
export interface Mark {
  id: string
  hosts: (string | null)[]
}

/** One bucket of one host: a document of `cost_ledger`. */
export interface LedgerBucket {
  level: BucketLevel
  startMs: number
  host: string | null
  /** Counts replacements; 0: the bucket does not exist yet. */
  rev: number
  /** Versions of the price book that it was computed with, ascending; one for a cell. */
  bookVersions: number[]
  rows: CellRow[]
  /** `rowTotalsOf` the rows: null where they are few, and in buckets that an older pertoken computed. */
  totals: RowTotals | null
  /** How many models and tenants were beyond the limit of names and counted under the overflow name. */
  capped: number
  /** Clock time when it was computed, epoch milliseconds. */
  computedMs: number
}

/** A version of the price book: prices instants from `fromMs` (null: the beginning) until the next version's. */
export interface PriceBookVersion {
  version: number
  /** A whole minute. */
  fromMs: number | null
  atMs: number
  /** Where it came from: environment, file, api, cli. */
  origin: string
  /** The validated book as it was given, JSON. */
  book: unknown
}

/** A range of instants that was repriced: its cells are computed with `bookVersion` from then on. */
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

/** The state from which each state is entered; null: from none. */
export const STATE_BEFORE = { closing: null, frozen: 'closing', purged: 'frozen' } as const satisfies Record<
  DayState['state'],
  DayState['state'] | null
>

export interface LedgerStore {
  /** Bucket starts with marks, newest first, at most `limit`. */
  dirtyBuckets(level: BucketLevel, limit: number): Promise<DirtyBucket[]>
  /** All marks of one bucket start. */
  readMarks(level: BucketLevel, startMs: number): Promise<Mark[]>
  /** Inserts marks with fresh ids, at least one for each entry; never merged with existing ones. */
  insertMarks(level: BucketLevel, buckets: readonly StaleBucket[], atMs: number): Promise<void>
  /** Deletes these marks; those that are gone already are ignored. */
  deleteMarks(ids: readonly string[]): Promise<void>
  /** Number of pending marks with a bucket start in [fromMs, toMs), over all levels; for `final`. */
  pendingMarks(fromMs: number, toMs: number): Promise<number>

  /**
   * Buckets of a level with a start in [fromMs, toMs), by (start, host), streamed; only those of `hosts` when given.
   * Null is the first host, the others are in order of their UTF-8 bytes.
   */
  readBuckets(
    level: BucketLevel,
    fromMs: number,
    toMs: number,
    hosts?: readonly (string | null)[],
  ): AsyncIterable<LedgerBucket>
  /**
   * The same buckets with their totals by model or tenant as `rows` where they have totals, and with their own rows
   * where not: either way, rows whose totals by model (or tenant) and price kind equal those of the bucket's own rows.
   */
  readTotals(
    by: keyof RowTotals,
    level: BucketLevel,
    fromMs: number,
    toMs: number,
    hosts?: readonly (string | null)[],
  ): AsyncIterable<Pick<LedgerBucket, 'startMs' | 'host' | 'rows'>>
  /** The revs of these hosts' buckets; a host without a bucket is missing from the map. */
  readRevs(level: BucketLevel, startMs: number, hosts: readonly (string | null)[]): Promise<Map<string | null, number>>
  /**
   * Replaces each bucket whose stored rev equals `rev` (0: does not exist) by this one with rev + 1. Returns, in order,
   * which were replaced. A `true` is definitive; a `false` may be a false negative, under concurrent writers or when
   * the call is repeated after a lost reply, and means: compute again.
   */
  replaceBuckets(buckets: readonly LedgerBucket[]): Promise<boolean[]>

  /** Samples that pertoken wrote in [fromMs, toMs), by (ts, _id), with `host`; streamed, with the ledger's fields. */
  readLedgerSamples(fromMs: number, toMs: number): AsyncIterable<LedgerSample & { host: string | null }>
  /**
   * Token usage that pertoken wrote in [fromMs, toMs), event by event, by (ts, _id); streamed, with the ledger's
   * fields.
   */
  readLedgerTokens(fromMs: number, toMs: number): AsyncIterable<LedgerToken>
  /**
   * The token usage that pertoken wrote whose interval reaches into minutes before that of its ts (`reachMinutes` > 0)
   * and overlaps the minutes of [fromMs, toMs), event by event, in no particular order; streamed, with the ledger's
   * fields. Costs what these events cost, whatever lies beside them; request an hour at most.
   */
  readReachingTokens(fromMs: number, toMs: number): AsyncIterable<LedgerToken>
  /**
   * Token usage of these hosts in [fromMs, toMs) that pertoken wrote, grouped by minute, host, gpus, model and tenant,
   * inside the store but for events of several minutes, which are cut (`partsOf`); each group once, `gpus` ascending.
   * All groups are held in memory: request an hour at most.
   */
  tokenTotals(
    fromMs: number,
    toMs: number,
    hosts: readonly (string | null)[],
  ): Promise<(TokenTotals & { startMs: number; host: string | null })[]>
  /** The range of event time that pertoken has raw events for, [first, last + 1 ms); null when there are none. */
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
   * Moves a day forward: absent → closing → frozen → purged. Returns false when it was not in the state before, and so
   * also when it is repeated after a lost reply.
   */
  advanceDay(day: DayState): Promise<boolean>
  /**
   * Deletes raw events that pertoken wrote, and cells, with a time in [fromMs, toMs), in bounded steps; returns what
   * this call deleted. When it fails half-way, repeating it deletes the rest.
   */
  purge(fromMs: number, toMs: number): Promise<{ events: number; cells: number }>
}
