// The embedded store: one SQLite file, for one machine without MongoDB. Several processes may use it at once; each write
// is one transaction, so one fsync. The ledger's half works on the same connection, `file`.

import type { EventKind, GpuDocument, TokenDocument } from '../../domain/events/documents.ts'
import type { DirtyMinute } from '../../domain/ledger/buckets.ts'
import type { Position } from '../../log/event-log.ts'
import type {
  DeadLetter,
  EventQuery,
  EventStore,
  LatestSampleQuery,
  Page,
  StoreCounts,
  WriteResult,
} from '../event-store.ts'
import { PagedIterator } from '../paged-iterator.ts'
import { insertDeadLetter, listDeadLetters, readDeadLetter } from './dead-letter-rows.ts'
import { latestSample, latestSamplePerSlot, listEvents, readEvents } from './event-queries.ts'
import { insertSamples, insertTokens, readCounter, TABLE_OF } from './event-rows.ts'
import { insertMarks } from './marks.ts'
import { purgeDeadLetters } from './purge.ts'
import { prepareSchema } from './schema.ts'
import { SqliteLedger } from './sqlite-ledger.ts'
import { StoreDatabase, type StoreDatabaseOptions } from './store-database.ts'

export class SqliteStore implements EventStore {
  readonly description: string
  /** The connection, for the store's other half. */
  readonly file: StoreDatabase
  readonly ledger: SqliteLedger

  constructor(options: StoreDatabaseOptions) {
    this.file = new StoreDatabase(options)
    this.ledger = new SqliteLedger(this.file)
    this.description = `embedded store ${options.path}`
  }

  async prepare(): Promise<{ warnings: string[] }> {
    await prepareSchema(this.file)
    return { warnings: [] }
  }

  async ping(): Promise<void> {
    this.file.ping()
  }

  async close(): Promise<void> {
    this.file.close()
  }

  async writeDocuments(samples: readonly GpuDocument[], tokens: readonly TokenDocument[]): Promise<WriteResult> {
    const total = samples.length + tokens.length
    if (total === 0) return { stored: 0, duplicate: 0 }
    const stored = await this.file.transaction(
      'Writing events failed',
      () => insertSamples(this.file, samples) + insertTokens(this.file, tokens),
    )
    return { stored, duplicate: total - stored }
  }

  async writeDeadLetters(letters: readonly DeadLetter[]): Promise<void> {
    if (letters.length === 0) return
    await this.file.transaction('Writing dead letters failed', () => {
      for (const letter of letters) insertDeadLetter(this.file, letter)
    })
  }

  async insertMarks(minutes: readonly DirtyMinute[], atMs: number): Promise<void> {
    await insertMarks(this.file, 'minute', { spans: minutes, atMs })
  }

  async advancePositions(group: string, positions: readonly Position[]): Promise<void> {
    if (positions.length === 0) return
    await this.file.transaction('Writing positions failed', () => {
      for (const position of positions) this.#putPosition(group, position)
    })
  }

  async beginPositions(group: string, positions: readonly Position[]): Promise<void> {
    if (positions.length === 0) return
    await this.file.transaction('Writing positions failed', () => {
      for (const { topic, partition, topicId, offset } of positions) {
        const sql = `INSERT INTO positions (group_name, topic, partition, topic_id, offset) VALUES (?, ?, ?, ?, ?)
          ON CONFLICT DO NOTHING`
        this.file.run(sql, group, topic, partition, topicId, offset)
      }
    })
  }

  async readPositions(group: string): Promise<Position[]> {
    const sql = `SELECT topic, partition, topic_id AS topicId, offset FROM positions WHERE group_name = ?
      ORDER BY topic, partition, topic_id`
    const rows = this.file.use('Reading positions failed', () => this.file.all<Position>(sql, group))
    return rows.map((row) => ({ ...row }))
  }

  async resetPositions(group: string, positions: readonly Position[]): Promise<void> {
    await this.file.transaction('Setting positions failed', () => {
      for (const { topic, partition } of positions) {
        const sql = 'DELETE FROM positions WHERE group_name = ? AND topic = ? AND partition = ?'
        this.file.run(sql, group, topic, partition)
      }
      for (const position of positions) this.#putPosition(group, position)
    })
  }

  latestSample(query: LatestSampleQuery): Promise<GpuDocument | null> {
    return latestSample(this.file, query)
  }

  async latestSamplePerSlot(sinceMs: number, limit: number): Promise<GpuDocument[]> {
    return this.file.use('Reading the latest samples failed', () => latestSamplePerSlot(this.file, sinceMs, limit))
  }

  async newestMs(kind: EventKind): Promise<number | null> {
    const sql = `SELECT max(ts) AS newest FROM ${TABLE_OF[kind]}`
    return this.file.use('Reading the newest time failed', () => this.file.get<{ newest: number | null }>(sql)!.newest)
  }

  readEvents(kind: 'gpu', fromMs: number, toMs: number): AsyncIterable<GpuDocument>
  readEvents(kind: 'token', fromMs: number, toMs: number): AsyncIterable<TokenDocument>
  readEvents(kind: EventKind, fromMs: number, toMs: number): AsyncIterable<GpuDocument | TokenDocument> {
    return new PagedIterator(readEvents<GpuDocument | TokenDocument>(this.file, kind, { fromMs, toMs }))
  }

  listEvents(kind: EventKind, query: EventQuery): Promise<Page<Record<string, unknown>>> {
    return listEvents(this.file, kind, query)
  }

  async listDeadLetters(query: {
    reason?: string
    topic?: string
    limit: number
    cursor?: string
  }): Promise<Page<DeadLetter>> {
    return this.file.use('Listing dead letters failed', () => listDeadLetters(this.file, query))
  }

  async readDeadLetter(id: string): Promise<DeadLetter | null> {
    return this.file.use('Reading a dead letter failed', () => readDeadLetter(this.file, id))
  }

  async markRedriven(id: string, at: Date): Promise<void> {
    await this.file.transaction('Marking a dead letter failed', () => {
      this.file.run('UPDATE dead_letters SET redriven_ms = ? WHERE _id = ?', at.getTime(), id)
    })
  }

  purgeDeadLetters(beforeMs: number): Promise<number> {
    return purgeDeadLetters(this.file, beforeMs)
  }

  async count(): Promise<StoreCounts> {
    return this.file.use('Counting failed', () => ({
      gpuMetrics: readCounter(this.file, 'gpu'),
      tokenUsage: readCounter(this.file, 'token'),
      deadLetters: this.file.get<{ count: number }>('SELECT count(*) AS count FROM dead_letters')!.count,
      // Nothing but pertoken writes into its file.
      foreign: 0,
    }))
  }

  #putPosition(group: string, { topic, partition, topicId, offset }: Position): void {
    this.file.run(
      `INSERT INTO positions (group_name, topic, partition, topic_id, offset) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET offset = excluded.offset WHERE excluded.offset > offset`,
      group,
      topic,
      partition,
      topicId,
      offset,
    )
  }
}
