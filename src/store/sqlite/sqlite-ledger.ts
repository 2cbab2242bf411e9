// The ledger's half of the embedded store, on the same file as the events. This file is its map: spans, marks, events and
// purging have files of their own; price book versions, revisions and day states are a few rows, and are here.

import type { BucketLevel } from '../../domain/ledger/buckets.ts'
import type { LedgerSample, LedgerToken, RowTotals } from '../../domain/ledger/types.ts'
import type {
  DayState,
  DirtyBucket,
  LedgerBucket,
  LedgerStore,
  Mark,
  PriceBookVersion,
  Revision,
} from '../ledger-store.ts'
import { PagedIterator } from '../paged-iterator.ts'
import type { TokenGroup } from '../token-groups.ts'
import { readBuckets, readRevs, readRollups, replaceBuckets } from './bucket-rows.ts'
import { rawRange, readLedgerSamples, readLedgerTokens, tokenTotals } from './ledger-events.ts'
import { countMarks, deleteMarks, dirtyBuckets, insertMarks, readMarks } from './marks.ts'
import { purge } from './purge.ts'
import type { StoreDatabase } from './store-database.ts'

/** The two things that `price_book` holds, each numbered from 1. */
type BookKind = 'version' | 'revision'

/** The state that a day must be in to enter each. */
const STATE_BEFORE = { closing: null, frozen: 'closing', purged: 'frozen' } as const

export class SqliteLedger implements LedgerStore {
  readonly #file: StoreDatabase

  constructor(file: StoreDatabase) {
    this.#file = file
  }

  dirtyBuckets(level: BucketLevel, limit: number): Promise<DirtyBucket[]> {
    return dirtyBuckets(this.#file, level, limit)
  }

  readMarks(level: BucketLevel, startMs: number): Promise<Mark[]> {
    return readMarks(this.#file, level, startMs)
  }

  markSpans(
    level: BucketLevel,
    spans: readonly { startMs: number; hosts: readonly (string | null)[] }[],
    atMs: number,
  ): Promise<void> {
    return insertMarks(this.#file, level, { spans, atMs })
  }

  deleteMarks(ids: readonly string[]): Promise<void> {
    return deleteMarks(this.#file, ids)
  }

  pendingMarks(fromMs: number, toMs: number): Promise<number> {
    return countMarks(this.#file, fromMs, toMs)
  }

  readBuckets(
    level: BucketLevel,
    fromMs: number,
    toMs: number,
    hosts?: readonly (string | null)[],
  ): AsyncIterable<LedgerBucket> {
    return readBuckets(this.#file, level, { fromMs, toMs, hosts })
  }

  readRollups(
    by: keyof RowTotals,
    level: BucketLevel,
    fromMs: number,
    toMs: number,
    hosts?: readonly (string | null)[],
  ): AsyncIterable<Pick<LedgerBucket, 'startMs' | 'host' | 'rows'>> {
    return readRollups(this.#file, level, { by, fromMs, toMs, hosts })
  }

  readRevs(
    level: BucketLevel,
    startMs: number,
    hosts: readonly (string | null)[],
  ): Promise<Map<string | null, number>> {
    return readRevs(this.#file, { level, startMs, hosts })
  }

  replaceBuckets(spans: readonly LedgerBucket[]): Promise<boolean[]> {
    return replaceBuckets(this.#file, spans)
  }

  readLedgerSamples(fromMs: number, toMs: number): AsyncIterable<LedgerSample & { host: string | null }> {
    return new PagedIterator(readLedgerSamples(this.#file, { fromMs, toMs }))
  }

  readLedgerTokens(fromMs: number, toMs: number): AsyncIterable<LedgerToken> {
    return new PagedIterator(readLedgerTokens(this.#file, { fromMs, toMs }))
  }

  tokenTotals(fromMs: number, toMs: number, hosts: readonly (string | null)[]): Promise<TokenGroup[]> {
    return tokenTotals(this.#file, { fromMs, toMs, hosts })
  }

  rawRange(): Promise<{ fromMs: number; toMs: number } | null> {
    return rawRange(this.#file)
  }

  async readBooks(): Promise<PriceBookVersion[]> {
    return this.#readBook<PriceBookVersion>('version')
  }

  insertBook(book: PriceBookVersion): Promise<boolean> {
    return this.#insertBook('version', book.version, book)
  }

  async readRevisions(): Promise<Revision[]> {
    return this.#readBook<Revision>('revision')
  }

  insertRevision(revision: Revision): Promise<boolean> {
    return this.#insertBook('revision', revision.revision, revision)
  }

  async updateRevisionSummary(revision: number, summary: unknown): Promise<void> {
    const sql =
      "UPDATE price_book SET body = json_set(body, '$.summary', json(?)) WHERE kind = 'revision' AND number = ?"
    const text = JSON.stringify(summary)
    await this.#file.transaction('Writing a revision failed', () => this.#file.run(sql, text, revision))
  }

  async readDayStates(): Promise<DayState[]> {
    const sql = 'SELECT start_ms AS startMs, state, since_ms AS sinceMs FROM day_states ORDER BY start_ms'
    const rows = this.#file.use('Reading the states of days failed', () => this.#file.all<DayState>(sql))
    return rows.map((row) => ({ ...row }))
  }

  advanceDay({ startMs, state, sinceMs }: DayState): Promise<boolean> {
    const before = STATE_BEFORE[state]
    return this.#file.transaction('Writing the state of a day failed', () => {
      if (before === null) {
        const sql =
          'INSERT INTO day_states (start_ms, state, since_ms) VALUES (?, ?, ?) ON CONFLICT (start_ms) DO NOTHING'
        return this.#file.run(sql, startMs, state, sinceMs) === 1
      }
      const sql = 'UPDATE day_states SET state = ?, since_ms = ? WHERE start_ms = ? AND state = ?'
      return this.#file.run(sql, state, sinceMs, startMs, before) === 1
    })
  }

  purge(fromMs: number, toMs: number): Promise<{ events: number; cells: number }> {
    return purge(this.#file, { fromMs, toMs })
  }

  #readBook<T>(kind: BookKind): T[] {
    const sql = 'SELECT body FROM price_book WHERE kind = ? ORDER BY number'
    const rows = this.#file.use('Reading the price book failed', () => this.#file.all<{ body: string }>(sql, kind))
    return rows.map(({ body }) => JSON.parse(body))
  }

  async #insertBook(kind: BookKind, number: number, item: object): Promise<boolean> {
    const sql = 'INSERT INTO price_book (kind, number, body) VALUES (?, ?, ?) ON CONFLICT (kind, number) DO NOTHING'
    const body = JSON.stringify(item)
    const inserted = await this.#file.transaction('Writing the price book failed', () =>
      this.#file.run(sql, kind, number, body),
    )
    return inserted === 1
  }
}
