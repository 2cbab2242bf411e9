// The embedded log: one SQLite file with Kafka's terms and semantics for one machine. Also the agent's spool. Appends
// of one turn of the event loop share a transaction and so an fsync. The file is bounded: past `maxBytes` the oldest
// records that every group has committed past are removed, and when none may be removed, append fails with `Log is
// full`, a retriable error: the caller waits. Before that, the topics of `dropOldest` lose their oldest records,
// counted: a spool's samples, dead letters.

import { randomUUID } from 'node:crypto'
import { setImmediate as afterImmediate } from 'node:timers/promises'
import {
  type EventLog,
  LogError,
  type NewRecord,
  type Position,
  type SubscribeOptions,
  type Subscription,
  type TopicDescription,
  type TopicSpec,
} from '../event-log.ts'
import { partitionForKey } from '../partitioner.ts'
import { hasOwner } from './lease.ts'
import { LogDatabase } from './log-database.ts'
import { type DropOldest, makeRoom, type RoomLimits } from './prune.ts'
import { encodeHeaders } from './record-reader.ts'
import { SqliteSubscription } from './sqlite-subscription.ts'

export interface SqliteLogOptions {
  /** The file; created when missing, with its directory. */
  path: string
  /** Bound of the bytes in use. */
  maxBytes?: number
  /** Above this size, bytes, what every group has committed past is removed; `maxBytes` when absent. */
  keepBytes?: number
  /** What is dropped when the file is full of records that a group still has to read; nothing when absent. */
  dropOldest?: DropOldest
  /** A member without heartbeat for this long has lost its partitions, milliseconds. */
  leaseMs?: number
}

const DEFAULT_MAX_BYTES = 2 * 1024 ** 3
const DEFAULT_LEASE_MS = 5000
const MAX_PARTITIONS = 1024
/** Queued appends share a transaction up to about this many records. */
const RECORDS_PER_TRANSACTION = 2000
/** Records that offsetsAt scans without a pause. */
const RECORDS_PER_SCAN = 20_000

/** The one record of a topic that takes the place of all before it: a state. */
export interface Replacement {
  topic: string
  value: Buffer
}

interface Append {
  topic: string
  records: readonly NewRecord[]
  replacement: Replacement | null
  resolve(): void
  reject(error: unknown): void
}

export class SqliteLog implements EventLog {
  readonly description: string
  readonly #database: LogDatabase
  readonly #limits: RoomLimits
  readonly #leaseMs: number
  readonly #subscriptions = new Set<SqliteSubscription>()
  #queue: Append[] = []
  /** The writing of the queue, while it is not empty. */
  #flushing: Promise<void> | null = null
  /** Partition of the next record without key, modulo their number. */
  #turn = 0

  constructor({ path, maxBytes = DEFAULT_MAX_BYTES, keepBytes, dropOldest, leaseMs }: SqliteLogOptions) {
    this.#database = new LogDatabase(path)
    this.#limits = { maxBytes, keepBytes: Math.min(keepBytes ?? maxBytes, maxBytes), dropOldest: dropOldest ?? null }
    this.#leaseMs = leaseMs ?? DEFAULT_LEASE_MS
    this.description = `embedded log ${this.#database.path}`
  }

  async ensureTopics(topics: readonly TopicSpec[]): Promise<string[]> {
    return this.#database.transaction('Creating topics failed', () =>
      topics.filter((topic) => this.#createTopic(topic)).map(({ name }) => name),
    )
  }

  async describe(topics: readonly string[], group?: string): Promise<TopicDescription[]> {
    const database = this.#database
    return database.use('Describing topics failed', () => {
      const described = topics.map((name) => {
        const rows = database.partitions(name)
        return { name, topicId: rows[0]?.topicId ?? '', partitions: rows.map((row) => database.describe(row, group)) }
      })
      return described.filter(({ partitions }) => partitions.length > 0)
    })
  }

  append(topic: string, records: readonly NewRecord[]): Promise<void> {
    return this.appendReplacing(topic, records, null)
  }

  /** Appends records, none as well, and replaces a topic's only record, in one transaction. */
  async appendReplacing(topic: string, records: readonly NewRecord[], replacement: Replacement | null): Promise<void> {
    // Checked here, so that a caller's invalid append does not fail the shared transaction.
    this.#database.use('Appending failed', () => {
      checkAppend(this.#database, topic, records)
      if (replacement !== null) checkAppend(this.#database, replacement.topic, [])
    })
    return new Promise((resolve, reject) => {
      this.#queue.push({ topic, records, replacement, resolve, reject })
      this.#flushing ??= this.#flush()
    })
  }

  subscribe(options: SubscribeOptions): Subscription {
    const subscription: SqliteSubscription = new SqliteSubscription(options, {
      database: this.#database,
      leaseMs: this.#leaseMs,
      closed: () => this.#subscriptions.delete(subscription),
    })
    this.#subscriptions.add(subscription)
    return subscription
  }

  async resetOffsets(group: string, positions: readonly Position[]): Promise<void> {
    const database = this.#database
    await database.transaction('Setting offsets failed', () => {
      if (hasOwner(database, group, this.#leaseMs)) {
        const message = `Setting offsets failed: group "${group}" has a member, stop it and wait ${this.#leaseMs} ms`
        throw new LogError(message, { retriable: true })
      }
      for (const { topic, topicId, partition, offset } of positions) {
        const row = database.partitions(topic).find((existing) => existing.partition === partition)
        if (row?.topicId !== topicId) {
          const message = `Setting offsets failed: there is no partition ${partition} of topic ${topic} with id ${topicId}`
          throw new LogError(message, { retriable: false })
        }
        database.setCommittedOffset(group, row.id, offset)
      }
    })
  }

  async offsetsAt(topic: string, timestampMs: number): Promise<{ partition: number; offset: number }[]> {
    const rows = this.#database.use('Finding offsets failed', () => this.#database.partitions(topic))
    const found: { partition: number; offset: number }[] = []
    for (const { id, partition, nextOffset } of rows) {
      found.push({ partition, offset: await this.#offsetAt(id, timestampMs, nextOffset) })
    }
    return found
  }

  async ping(): Promise<void> {
    this.#database.use('Log does not respond', () => {
      this.#database.checkInPlace()
      this.#database.get('SELECT id FROM topics LIMIT 1')
    })
  }

  /** Bytes of the file in use, what groups have committed past included. */
  heldBytes(): number {
    return this.#database.use('Measuring the log failed', () => this.#database.liveBytes())
  }

  /** Value of the newest record of a topic's first partition; null: there is none. */
  async lastValue(topic: string): Promise<Buffer | null> {
    return this.#database.use('Reading the log failed', () => {
      const [first] = this.#database.partitions(topic)
      if (first === undefined) return null
      const sql = `SELECT value FROM records_${first.id} ORDER BY offset DESC LIMIT 1`
      const value = this.#database.get<{ value: Uint8Array | null }>(sql)?.value ?? null
      return value === null ? null : Buffer.from(value)
    })
  }

  async close(): Promise<void> {
    await this.#flushing
    for (const subscription of this.#subscriptions) await subscription.close()
    this.#database.close()
  }

  #createTopic({ name, partitions }: TopicSpec): boolean {
    if (!Number.isInteger(partitions) || partitions < 1 || partitions > MAX_PARTITIONS) {
      const message = `Creating topic ${name} failed: ${partitions} partitions, take 1 to ${MAX_PARTITIONS}`
      throw new LogError(message, { retriable: false })
    }
    if (this.#database.get('SELECT id FROM topics WHERE name = ?', name) !== undefined) return false
    this.#database.run('INSERT INTO topics (name, topic_id) VALUES (?, ?)', name, randomUUID())
    const topic = this.#database.get<{ id: number }>('SELECT id FROM topics WHERE name = ?', name)!.id
    for (let partition = 0; partition < partitions; partition += 1) {
      const sql = 'INSERT INTO partitions (topic, partition, next_offset) VALUES (?, ?, 0) RETURNING id'
      const { id } = this.#database.get<{ id: number }>(sql, topic, partition)!
      this.#database.exec(
        `CREATE TABLE records_${id} (
           offset INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, key BLOB, value BLOB, headers TEXT)`,
      )
    }
    return true
  }

  /** Writes the queue in transactions of bounded size until it is empty; an append is never split. */
  async #flush(): Promise<void> {
    while (this.#queue.length > 0) {
      // Other appends of this turn of the event loop join the transaction.
      await afterImmediate()
      let count = 0
      let records = 0
      while (count < this.#queue.length && records < RECORDS_PER_TRANSACTION) {
        records += this.#queue[count]!.records.length
        count += 1
      }
      const appends = this.#queue.splice(0, count)
      try {
        await this.#write(appends)
        for (const append of appends) append.resolve()
      } catch (error) {
        for (const append of appends) append.reject(error)
      }
    }
    this.#flushing = null
  }

  async #write(appends: readonly Append[]): Promise<void> {
    const database = this.#database
    const droppedByTopic = await database.transaction('Appending failed', () => {
      const dropped = makeRoom(database, this.#limits)
      for (const { topic, records, replacement } of appends) {
        this.#insert(topic, records)
        if (replacement !== null) this.#replace(replacement)
      }
      return dropped
    })
    for (const [topic, count] of droppedByTopic) this.#limits.dropOldest?.onDropped(topic, count)
    for (const subscription of this.#subscriptions) subscription.wake()
  }

  #insert(topic: string, records: readonly NewRecord[]): void {
    const database = this.#database
    const rows = database.partitions(topic)
    const nowMs = Date.now()
    const writers = rows.map(({ id }) =>
      database.statement(`INSERT INTO records_${id} (offset, time_ms, key, value, headers) VALUES (?, ?, ?, ?, ?)`),
    )
    for (const record of records) {
      const key = typeof record.key === 'string' ? Buffer.from(record.key) : record.key
      const partition = record.partition ?? this.#partitionFor(key, rows.length)
      writers[partition]!.run(rows[partition]!.nextOffset++, nowMs, key, record.value, encodeHeaders(record.headers))
    }
    for (const { id, nextOffset } of rows) database.setEndOffset(id, nextOffset)
  }

  #replace({ topic, value }: Replacement): void {
    for (const { id } of this.#database.partitions(topic)) this.#database.run(`DELETE FROM records_${id}`)
    this.#insert(topic, [{ key: null, value, partition: 0 }])
  }

  #partitionFor(key: Buffer | null, partitions: number): number {
    return key === null ? this.#turn++ % partitions : partitionForKey(key, partitions)
  }

  /** Record times need not ascend (clocks are set back), so this scans all, in steps. */
  async #offsetAt(id: number, timestampMs: number, endOfLog: number): Promise<number> {
    const database = this.#database
    for (let from = 0; from < endOfLog; ) {
      const step = database.use('Finding offsets failed', () => {
        const sql = `SELECT min(offset) AS found FROM records_${id} WHERE offset >= ? AND offset < ? AND time_ms >= ?`
        from = Math.max(from, database.oldestRecord(id)?.offset ?? endOfLog)
        return database.get<{ found: number | null }>(sql, from, from + RECORDS_PER_SCAN, timestampMs)!
      })
      if (step.found !== null) return step.found
      from += RECORDS_PER_SCAN
      await afterImmediate()
    }
    return endOfLog
  }
}

function checkAppend(database: LogDatabase, topic: string, records: readonly NewRecord[]): void {
  const { length } = database.partitions(topic)
  if (length === 0)
    throw new LogError(`Appending failed: topic ${topic} does not exist, create it`, { retriable: true })
  for (const { partition } of records) {
    if (partition === undefined || (Number.isInteger(partition) && partition >= 0 && partition < length)) continue
    throw new LogError(`Appending failed: topic ${topic} has no partition ${partition}`, { retriable: false })
  }
}
