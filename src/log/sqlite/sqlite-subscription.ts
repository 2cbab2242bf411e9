// One member of a consumer group of the embedded log. While it has the group's lease it owns all partitions of its
// topics and reads them; otherwise it stands by. `flush` of the options is never called: the lease does not move while
// its owner lives, except by `close`, whose caller has finished by then.

import { randomUUID } from 'node:crypto'
import { setImmediate as afterImmediate } from 'node:timers/promises'
import { Notifier } from '../../runtime/waiting.ts'
import { isLocked } from '../../sqlite/sqlite-file.ts'
import type {
  AssignedPartition,
  LogProblem,
  PartitionLag,
  Position,
  RecordBatch,
  StartDecision,
  SubscribeOptions,
  Subscription,
  TopicPartition,
} from '../event-log.ts'
import { holdLease, ownsLease, releaseLease } from './lease.ts'
import type { LogDatabase, PartitionRow } from './log-database.ts'
import { readRecords } from './record-reader.ts'

/** Maximum records of one `next`: they are read without a pause, which takes about 5 ms. */
const MAX_RECORDS = 2000
const DEFAULT_MAX_BYTES = 4 * 1024 * 1024
/** `next` returns [] after this long without data. */
const IDLE_MS = 250
/** How often a waiting `next` checks whether another process has written. */
const POLL_MS = 50
const STAND_BY_MS = 250
/** After a decision to block, or a failed one, another is requested after this long. */
const START_RETRY_MS = 2000

interface OwnedPartition extends PartitionRow {
  position: number | null
  blocked: string | null
  startRequestedAtMs: number
}

export interface SqliteSubscriptionContext {
  database: LogDatabase
  leaseMs: number
  /** At the end of `close`. */
  closed(): void
}

export class SqliteSubscription implements Subscription {
  readonly #options: SubscribeOptions
  readonly #context: SqliteSubscriptionContext
  readonly #database: LogDatabase
  readonly #member = randomUUID()
  readonly #owned = new Map<number, OwnedPartition>()
  readonly #problems = new Map<string, LogProblem>()
  #missing: string[] = []
  #isOwner = false
  /** Counts assignments: decisions of `onAssigned` for an older one are dropped. */
  #epoch = 0
  #startsRequested = false
  #isClosed = false
  #turn = 0
  readonly #changed = new Notifier()
  /** The database's version that `next` has read; null when there may be something new in the same version. */
  #readVersion: number | null = null
  #timer: NodeJS.Timeout | undefined

  constructor(options: SubscribeOptions, context: SqliteSubscriptionContext) {
    this.#options = options
    this.#context = context
    this.#database = context.database
    options.signal.addEventListener('abort', this.wake, { once: true })
    this.#tick()
  }

  async next(): Promise<RecordBatch[]> {
    // Without this, a caller that always finds data would starve timers and sockets.
    await afterImmediate()
    const deadlineMs = performance.now() + IDLE_MS
    this.#readVersion = null
    while (!this.#isClosed && !this.#options.signal.aborted) {
      try {
        const batches = this.#database.use('Reading the log failed', () => this.#readChanged())
        if (batches.length > 0) return batches
      } catch (error) {
        this.#setProblem('read', 'unreachable', error)
      }
      const leftMs = deadlineMs - performance.now()
      if (leftMs <= 0) break
      await this.#changed.wait(Math.min(POLL_MS, leftMs))
    }
    return []
  }

  /** To be called after each append of this process: the database's version changes by other connections only. */
  readonly wake = (): void => {
    this.#readVersion = null
    this.#changed.notify()
  }

  async commit(positions: readonly Position[]): Promise<void> {
    const database = this.#database
    const { group } = this.#options
    try {
      database.transactLoosely('Committing failed', () => {
        // A member that lost its lease must not set back what the next one has committed.
        if (!ownsLease(database, group, this.#member)) return
        for (const { topic, topicId, partition, offset } of positions) {
          const row = database.partitions(topic).find((existing) => existing.partition === partition)
          if (row?.topicId === topicId) database.setCommittedOffset(group, row.id, offset)
        }
      })
      this.#problems.delete('commit')
    } catch (error) {
      this.#setProblem('commit', 'unreachable', error)
    }
  }

  get assigned(): readonly TopicPartition[] {
    return [...this.#owned.values()].map(({ topic, partition }) => ({ topic, partition }))
  }

  get ownsAll(): boolean {
    return this.#isOwner && this.#owned.size > 0 && this.#missing.length === 0
  }

  lag(): PartitionLag[] {
    let ends = new Map<number, number>()
    try {
      ends = this.#database.use('Reading the log failed', () => this.#database.endOffsets())
    } catch (error) {
      this.#setProblem('read', 'unreachable', error)
    }
    return [...this.#owned.values()].map(({ id, topic, partition, position, nextOffset }) => ({
      topic,
      partition,
      position,
      endOffset: ends.get(id) ?? nextOffset,
    }))
  }

  get problems(): readonly LogProblem[] {
    const problems = [...this.#problems.values()]
    for (const topic of this.#missing) {
      problems.push({ code: 'topic_missing', message: `Topic ${topic} does not exist: create it` })
    }
    for (const { topic, partition, blocked } of this.#owned.values()) {
      if (blocked === null) continue
      problems.push({ code: 'position_invalid', message: `${topic} partition ${partition} is not read: ${blocked}` })
    }
    return problems
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    clearTimeout(this.#timer)
    this.#options.signal.removeEventListener('abort', this.wake)
    this.#dropAssignment()
    this.wake()
    try {
      releaseLease(this.#database, this.#options.group, this.#member)
    } catch {
      // The lease expires.
    }
    this.#context.closed()
  }

  /** Renews or takes the lease and assigns new partitions, periodically until closed. */
  #tick(): void {
    const { leaseMs } = this.#context
    try {
      const isOwner = holdLease(this.#database, this.#options.group, { member: this.#member, leaseMs })
      if (this.#isOwner && !isOwner) this.#revokeAll()
      this.#isOwner = isOwner
      if (isOwner) this.#database.use('Assigning partitions failed', () => this.#assignNew())
      this.#problems.delete('lease')
    } catch (error) {
      this.#setProblem('lease', 'unreachable', error)
    }
    const pauseMs = this.#isOwner && this.#missing.length === 0 ? Math.min(1000, leaseMs / 5) : STAND_BY_MS
    this.#timer = setTimeout(() => this.#tick(), pauseMs).unref()
  }

  #revokeAll(): void {
    const lost = this.assigned
    this.#dropAssignment()
    this.#options.onRevoked?.(lost)
  }

  #dropAssignment(): void {
    this.#isOwner = false
    this.#epoch += 1
    this.#owned.clear()
  }

  #assignNew(): void {
    const { group, topics } = this.#options
    const rows: PartitionRow[] = []
    this.#missing = []
    for (const topic of topics) {
      const ofTopic = this.#database.partitions(topic)
      if (ofTopic.length === 0) this.#missing.push(topic)
      rows.push(...ofTopic)
    }
    if (this.#startsRequested) return
    const nowMs = performance.now()
    const starting = rows.filter((row) => {
      const owned = this.#owned.get(row.id)
      return owned === undefined || (owned.position === null && nowMs - owned.startRequestedAtMs >= START_RETRY_MS)
    })
    if (starting.length === 0) return
    if (starting.some((row) => !this.#owned.has(row.id))) {
      this.#database.transactLoosely('Joining the group failed', () => {
        for (const row of rows) this.#database.registerGroup(group, row.id)
      })
    }
    for (const row of starting) {
      const blocked = this.#owned.get(row.id)?.blocked ?? null
      this.#owned.set(row.id, { ...row, position: null, blocked, startRequestedAtMs: nowMs })
    }
    const described = starting.map((row) => {
      return { topic: row.topic, topicId: row.topicId, ...this.#database.describe(row, group) }
    })
    void this.#requestStarts(starting, described)
  }

  /** Requests start positions from the owner and applies them, unless the assignment has changed meanwhile. */
  async #requestStarts(rows: PartitionRow[], described: AssignedPartition[]): Promise<void> {
    const epoch = this.#epoch
    this.#startsRequested = true
    try {
      const decisions = await this.#options.onAssigned(described)
      this.#problems.delete('start')
      if (epoch === this.#epoch) this.#start(rows, decisions)
    } catch (error) {
      this.#setProblem('start', 'stalled', error)
    } finally {
      this.#startsRequested = false
    }
  }

  #start(rows: PartitionRow[], decisions: StartDecision[]): void {
    for (const [i, row] of rows.entries()) {
      const owned = this.#owned.get(row.id)!
      const decision = decisions[i]!
      owned.position = 'offset' in decision ? decision.offset : null
      owned.blocked = 'blocked' in decision ? decision.blocked : null
    }
    this.wake()
  }

  /** Reads unless nothing has changed since the last time. */
  #readChanged(): RecordBatch[] {
    const version = this.#database.dataVersion()
    if (version === this.#readVersion) return []
    const batches = this.#read()
    this.#problems.delete('read')
    this.#readVersion = version
    return batches
  }

  #read(): RecordBatch[] {
    const ends = this.#database.endOffsets()
    const ready = [...this.#owned.values()].filter(({ id, position }) => position !== null && position < ends.get(id)!)
    if (ready.length === 0) return []
    // Every partition with data gets an equal share, so that they advance together in time.
    const maxBytes = this.#options.maxBytes ?? DEFAULT_MAX_BYTES
    const limit = Math.max(1, Math.floor(MAX_RECORDS / ready.length))
    const shareBytes = Math.floor(maxBytes / ready.length)
    const first = this.#turn++ % ready.length
    const batches: RecordBatch[] = []
    let totalBytes = 0
    for (const owned of [...ready.slice(first), ...ready.slice(0, first)]) {
      if (totalBytes >= maxBytes) break
      const fromOffset = owned.position!
      const { records, bytes } = readRecords(this.#database, { id: owned.id, fromOffset, limit, maxBytes: shareBytes })
      totalBytes += bytes
      const end = ends.get(owned.id)!
      const nextOffset = records.length === 0 ? end : records.at(-1)!.offset + 1
      owned.position = nextOffset
      const { topic, topicId, partition } = owned
      const highWatermark = Math.max(end, nextOffset)
      batches.push({ topic, topicId, partition, records, fromOffset, nextOffset, highWatermark })
    }
    return batches
  }

  #setProblem(key: string, code: LogProblem['code'], error: unknown): void {
    // Another process is writing. The action is retried within a moment, so it is not reported.
    if (isLocked(error)) return
    this.#problems.set(key, { code, message: error instanceof Error ? error.message : String(error) })
  }
}
