// The ledger's half over MongoDB, on the same connection as the events. This file is its map; each noun has its own.
// All reads are of the primary with read concern majority, all writes majority and journal. That is as good as
// linearizable for the keeper: an acknowledged write lies before the primary's majority commit point, so every later
// majority read there has it. What a majority read has is a prefix of the oplog: whoever sees a mark sees the documents
// that were acknowledged before it was inserted. A primary that was voted out may answer for some seconds from such a
// prefix that is old; then marks of later are not read and not deleted either, and a span computed from it is replaced
// only if its rev, checked on the primary that takes the majority write, is still the one that was read.

import type { BucketLevel } from '../../../domain/ledger/buckets.ts'
import type { LedgerSample, LedgerToken, RowTotals } from '../../../domain/ledger/types.ts'
import type {
  DayState,
  DirtyBucket,
  LedgerBucket,
  LedgerStore,
  Mark,
  PriceBookVersion,
  Revision,
} from '../../ledger-store.ts'
import { PagedIterator } from '../../paged-iterator.ts'
import type { TokenGroup } from '../../token-groups.ts'
import type { MongoConnection } from '../connection.ts'
import { readBuckets, readRevs, readRollups, replaceBuckets } from './bucket-writes.ts'
import { purge, rawRange, readLedgerSamples, readLedgerTokens } from './cell-events.ts'
import { countMarks, deleteMarks, dirtyBuckets, insertMarks, readMarks } from './marks.ts'
import {
  advanceDay,
  insertBook,
  insertRevision,
  readBooks,
  readDayStates,
  readRevisions,
  updateRevisionSummary,
} from './price-book.ts'
import { TokenTotalsReader } from './token-totals.ts'

export class MongoLedger implements LedgerStore {
  readonly #connection: MongoConnection
  readonly #tokenTotals: TokenTotalsReader

  constructor(connection: MongoConnection) {
    this.#connection = connection
    this.#tokenTotals = new TokenTotalsReader(connection)
  }

  dirtyBuckets(level: BucketLevel, limit: number): Promise<DirtyBucket[]> {
    return this.#run('read dirty spans', (connection) => dirtyBuckets(connection, level, limit))
  }

  readMarks(level: BucketLevel, startMs: number): Promise<Mark[]> {
    return this.#run('read marks', (connection) => readMarks(connection, level, startMs))
  }

  markSpans(
    level: BucketLevel,
    spans: readonly { startMs: number; hosts: readonly (string | null)[] }[],
    atMs: number,
  ): Promise<void> {
    return this.#run('insert marks', (connection) => insertMarks(connection, level, { spans, atMs }))
  }

  deleteMarks(ids: readonly string[]): Promise<void> {
    return this.#run('delete marks', (connection) => deleteMarks(connection, ids))
  }

  pendingMarks(fromMs: number, toMs: number): Promise<number> {
    return this.#run('count marks', (connection) => countMarks(connection, fromMs, toMs))
  }

  readBuckets(
    level: BucketLevel,
    fromMs: number,
    toMs: number,
    hosts?: readonly (string | null)[],
  ): AsyncIterable<LedgerBucket> {
    const pages = this.#stream('read the ledger', (connection) =>
      readBuckets(connection, level, { fromMs, toMs, hosts }),
    )
    return new PagedIterator(pages)
  }

  readRollups(
    by: keyof RowTotals,
    level: BucketLevel,
    fromMs: number,
    toMs: number,
    hosts?: readonly (string | null)[],
  ): AsyncIterable<LedgerBucket> {
    const pages = this.#stream('read the ledger', (connection) =>
      readRollups(connection, level, { by, fromMs, toMs, hosts }),
    )
    return new PagedIterator(pages)
  }

  readRevs(
    level: BucketLevel,
    startMs: number,
    hosts: readonly (string | null)[],
  ): Promise<Map<string | null, number>> {
    return this.#run('read revs of the ledger', (connection) => readRevs(connection, { level, startMs, hosts }))
  }

  replaceBuckets(spans: readonly LedgerBucket[]): Promise<boolean[]> {
    return this.#run('write the ledger', (connection) => replaceBuckets(connection, spans))
  }

  readLedgerSamples(fromMs: number, toMs: number): AsyncIterable<LedgerSample & { host: string | null }> {
    return new PagedIterator(
      this.#stream('read samples', (connection) => readLedgerSamples(connection, { fromMs, toMs })),
    )
  }

  readLedgerTokens(fromMs: number, toMs: number): AsyncIterable<LedgerToken> {
    return new PagedIterator(
      this.#stream('read token usage', (connection) => readLedgerTokens(connection, { fromMs, toMs })),
    )
  }

  tokenTotals(fromMs: number, toMs: number, hosts: readonly (string | null)[]): Promise<TokenGroup[]> {
    return this.#run('sum token usage', () => this.#tokenTotals.read({ fromMs, toMs, hosts }))
  }

  rawRange(): Promise<{ fromMs: number; toMs: number } | null> {
    return this.#run('read the range of events', rawRange)
  }

  readBooks(): Promise<PriceBookVersion[]> {
    return this.#run('read the price book', readBooks)
  }

  insertBook(book: PriceBookVersion): Promise<boolean> {
    return this.#run('write the price book', (connection) => insertBook(connection, book))
  }

  readRevisions(): Promise<Revision[]> {
    return this.#run('read revisions', readRevisions)
  }

  insertRevision(revision: Revision): Promise<boolean> {
    return this.#run('write a revision', (connection) => insertRevision(connection, revision))
  }

  updateRevisionSummary(revision: number, summary: unknown): Promise<void> {
    return this.#run('write a revision', (connection) => updateRevisionSummary(connection, revision, summary))
  }

  readDayStates(): Promise<DayState[]> {
    return this.#run('read the states of days', readDayStates)
  }

  advanceDay(day: DayState): Promise<boolean> {
    return this.#run('write the state of a day', (connection) => advanceDay(connection, day))
  }

  purge(fromMs: number, toMs: number): Promise<{ events: number; cells: number }> {
    return this.#run('purge events', (connection) => purge(connection, { fromMs, toMs }))
  }

  #run<T>(action: string, work: (connection: MongoConnection) => Promise<T>): Promise<T> {
    return this.#connection.run(action, () => work(this.#connection))
  }

  async *#stream<T>(action: string, open: (connection: MongoConnection) => AsyncIterable<T>): AsyncGenerator<T> {
    try {
      await this.#connection.connect()
      yield* open(this.#connection)
    } catch (error) {
      throw this.#connection.failure(action, error)
    }
  }
}
