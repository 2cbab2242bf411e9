// The embedded log: one SQLite file that keeps Kafka's words and meanings for one machine. Also the agent's spool.
// Appends of one turn of the event loop share a transaction and so an fsync. The file is bounded: past `maxBytes` the
// oldest records that every group has committed past go, and when none may go, append fails with `Log is full`, a
// passing fault: the caller waits. Before that, the topics of `dropOldest` lose their oldest records, counted: a spool's
// samples, dead letters. Its parts are in sqlite/; only log-file.ts there knows the driver.

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
import {
  committedOffset,
  oldestRecord,
  type PartitionRow,
  partitionsOf,
  setCommittedOffset,
} from './partition-tables.ts'
import { type DropOldest, makeRoom, type RoomLimits } from './prune.ts'
import { encodeHeaders } from './record-reader.ts'
import { SqliteSubscription } from './sqlite-subscription.ts'

export interface SqliteLogOptions {
  /** The file; it is made when it is missing, its directory too. */
  path: string
  /** Bound of what the file holds, bytes. */
  maxBytes?: number
  /** What every group has committed past is removed from this size on, bytes; `maxBytes` when absent. */
  keepBytes?: number
  /** What goes when the file is full of records that a group still has to read; nothing when absent. */
  dropOldest?: DropOldest
  /** A member without heartbeat for this long has lost its partitions, milliseconds. */
  leaseMs?: number
}

const DEFAULT_MAX_BYTES = 2 * 1024 ** 3
const DEFAULT_LEASE_MS = 5000
const MAX_PARTITIONS = 1024
/** Appends that wait are written in one transaction until they pass this many records. */
const RECORDS_PER_TRANSACTION = 2000
/** Records that offsetsAt looks at without a pause. */
const RECORDS_PER_SCAN = 20_000

interface Append {
  topic: string
  records: readonly NewRecord[]
  resolve(): void
  reject(error: unknown): void
}

export class SqliteLog implements EventLog {
  readonly description: string
  readonly #file: LogDatabase
  readonly #limits: RoomLimits
  readonly #leaseMs: number
  readonly #waiters = new Set<() => void>()
  readonly #members = new Set<SqliteSubscription>()
  #queue: Append[] = []
  /** The writing of what is queued, while there is some. */
  #flushing: Promise<void> | null = null
  /** Where the next record without key goes. */
  #turn = 0

  constructor({ path, maxBytes = DEFAULT_MAX_BYTES, keepBytes, dropOldest, leaseMs }: SqliteLogOptions) {
    this.#file = new LogDatabase(path)
    this.#limits = { maxBytes, keepBytes: Math.min(keepBytes ?? maxBytes, maxBytes), dropOldest: dropOldest ?? null }
    this.#leaseMs = leaseMs ?? DEFAULT_LEASE_MS
    this.description = `embedded log ${this.#file.path}`
  }

  async ensureTopics(topics: readonly TopicSpec[]): Promise<string[]> {
    return this.#file.transaction('Making topics failed', () =>
      topics.filter((topic) => this.#makeTopic(topic)).map(({ name }) => name),
    )
  }

  async describe(topics: readonly string[], group?: string): Promise<TopicDescription[]> {
    const file = this.#file
    return file.use('Describing topics failed', () => {
      const described = topics.map((name) => {
        const rows = partitionsOf(file, name)
        const partitions = rows.map(({ id, partition, nextOffset }) => ({
          partition,
          earliestOffset: oldestRecord(file, id)?.offset ?? nextOffset,
          endOffset: nextOffset,
          committedOffset: group === undefined ? null : committedOffset(file, group, id),
        }))
        return { name, topicId: rows[0]?.topicId ?? '', partitions }
      })
      return described.filter(({ partitions }) => partitions.length > 0)
    })
  }

  async append(topic: string, records: readonly NewRecord[]): Promise<void> {
    // Checked here, so that what fails in the shared transaction is never one caller's mistake.
    this.#file.use('Appending failed', () => checkAppend(this.#file, topic, records))
    return new Promise((resolve, reject) => {
      this.#queue.push({ topic, records, resolve, reject })
      this.#flushing ??= this.#flush()
    })
  }

  subscribe(options: SubscribeOptions): Subscription {
    const log = { file: this.#file, leaseMs: this.#leaseMs, waiters: this.#waiters }
    const member = new SqliteSubscription(log, options)
    this.#members.add(member)
    return member
  }

  async resetOffsets(group: string, positions: readonly Position[]): Promise<void> {
    const file = this.#file
    await file.transaction('Setting offsets failed', () => {
      if (hasOwner(file, group, this.#leaseMs)) {
        const message = `Setting offsets failed: group "${group}" has a member, stop it and wait ${this.#leaseMs} ms`
        throw new LogError(message, { retriable: true })
      }
      for (const { topic, topicId, partition, offset } of positions) {
        const row = partitionsOf(file, topic).find((each) => each.partition === partition)
        if (row?.topicId !== topicId) {
          const message = `Setting offsets failed: there is no partition ${partition} of topic ${topic} with id ${topicId}`
          throw new LogError(message, { retriable: false })
        }
        setCommittedOffset(file, group, row.id, offset)
      }
    })
  }

  async offsetsAt(topic: string, timestampMs: number): Promise<{ partition: number; offset: number }[]> {
    const rows = this.#file.use('Finding offsets failed', () => partitionsOf(this.#file, topic))
    const found: { partition: number; offset: number }[] = []
    for (const { id, partition, nextOffset } of rows) {
      found.push({ partition, offset: await this.#offsetAt(id, timestampMs, nextOffset) })
    }
    return found
  }

  async ping(): Promise<void> {
    this.#file.use('Log does not answer', () => {
      this.#file.checkInPlace()
      this.#file.get('SELECT id FROM topics LIMIT 1')
    })
  }

  /** Bytes of the file that hold something, what groups have committed past included. */
  heldBytes(): number {
    return this.#file.use('Measuring the log failed', () => this.#file.liveBytes())
  }

  async close(): Promise<void> {
    await this.#flushing
    for (const member of this.#members) await member.close()
    this.#members.clear()
    this.#file.close()
  }

  #makeTopic({ name, partitions }: TopicSpec): boolean {
    if (!Number.isInteger(partitions) || partitions < 1 || partitions > MAX_PARTITIONS) {
      const message = `Making topic ${name} failed: ${partitions} partitions, take 1 to ${MAX_PARTITIONS}`
      throw new LogError(message, { retriable: false })
    }
    if (this.#file.get('SELECT id FROM topics WHERE name = ?', name) !== undefined) return false
    this.#file.run('INSERT INTO topics (name, topic_id) VALUES (?, ?)', name, randomUUID())
    const topic = this.#file.get<{ id: number }>('SELECT id FROM topics WHERE name = ?', name)!.id
    for (let partition = 0; partition < partitions; partition += 1) {
      const sql = 'INSERT INTO partitions (topic, partition, next_offset) VALUES (?, ?, 0) RETURNING id'
      const { id } = this.#file.get<{ id: number }>(sql, topic, partition)!
      this.#file.exec(
        `CREATE TABLE records_${id} (
           offset INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, key BLOB, value BLOB, headers TEXT)`,
      )
    }
    return true
  }

  /** Writes what waits, in transactions of bounded size, until nothing does; an append is never divided. */
  async #flush(): Promise<void> {
    while (this.#queue.length > 0) {
      // Other appends of this turn of the event loop come along.
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
    const file = this.#file
    const dropped = await file.transaction('Appending failed', () => {
      const gone = makeRoom(file, this.#limits)
      for (const { topic, records } of appends) this.#insert(topic, records)
      return gone
    })
    for (const [topic, count] of dropped) this.#limits.dropOldest?.onDropped(topic, count)
    for (const wake of [...this.#waiters]) wake()
  }

  #insert(topic: string, records: readonly NewRecord[]): void {
    const file = this.#file
    const rows = partitionsOf(file, topic)
    const nowMs = Date.now()
    const writers = rows.map(({ id }) =>
      file.statement(`INSERT INTO records_${id} (offset, time_ms, key, value, headers) VALUES (?, ?, ?, ?, ?)`),
    )
    for (const record of records) {
      const key = typeof record.key === 'string' ? Buffer.from(record.key) : record.key
      const partition = record.partition ?? this.#partitionFor(key, rows.length)
      writers[partition]!.run(rows[partition]!.nextOffset++, nowMs, key, record.value, encodeHeaders(record.headers))
    }
    for (const row of rows) setNextOffset(file, row)
  }

  #partitionFor(key: Buffer | null, partitions: number): number {
    return key === null ? this.#turn++ % partitions : partitionForKey(key, partitions)
  }

  /** Record times need not ascend (clocks are set back), so this looks at each, in steps. */
  async #offsetAt(id: number, timestampMs: number, endOfLog: number): Promise<number> {
    const file = this.#file
    for (let from = 0; from < endOfLog; ) {
      const step = file.use('Finding offsets failed', () => {
        const sql = `SELECT min(offset) AS found FROM records_${id} WHERE offset >= ? AND offset < ? AND time_ms >= ?`
        from = Math.max(from, oldestRecord(file, id)?.offset ?? endOfLog)
        return file.get<{ found: number | null }>(sql, from, from + RECORDS_PER_SCAN, timestampMs)!
      })
      if (step.found !== null) return step.found
      from += RECORDS_PER_SCAN
      await afterImmediate()
    }
    return endOfLog
  }
}

function checkAppend(file: LogDatabase, topic: string, records: readonly NewRecord[]): void {
  const { length } = partitionsOf(file, topic)
  if (length === 0) throw new LogError(`Appending failed: topic ${topic} does not exist, make it`, { retriable: true })
  for (const { partition } of records) {
    if (partition === undefined || (Number.isInteger(partition) && partition >= 0 && partition < length)) continue
    throw new LogError(`Appending failed: topic ${topic} has no partition ${partition}`, { retriable: false })
  }
}

function setNextOffset(file: LogDatabase, { id, nextOffset }: PartitionRow): void {
  file.run('UPDATE partitions SET next_offset = ? WHERE id = ? AND next_offset < ?', nextOffset, id, nextOffset)
}
