// One member of a consumer group of the embedded log. While it has the group's lease it owns all partitions of its
// topics and reads them; else it stands by. `flush` of the options is never called: the lease does not move while its
// owner lives, except by `close`, whose caller has finished by then. A little over 300 lines: the states of a member, standing by,
// owning, blocked, closed, are easier to follow on one page.

import { randomUUID } from 'node:crypto'
import { setImmediate as afterImmediate } from 'node:timers/promises'
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
import type { LogDatabase } from './log-database.ts'
import {
  committedOffset,
  endOffset,
  endOffsets,
  oldestRecord,
  type PartitionRow,
  partitionsOf,
  registerGroup,
  setCommittedOffset,
} from './partition-tables.ts'
import { readRecords } from './record-reader.ts'

/** The most records of one `next`: they are read without a pause, which takes some 5 ms. */
const MAX_RECORDS = 2000
const DEFAULT_MAX_BYTES = 4 * 1024 * 1024
/** `next` answers [] after this long without data. */
const IDLE_MS = 250
/** How often a waiting `next` looks whether another process has written. */
const POLL_MS = 50
const STAND_BY_MS = 250
/** A decision to block, or a failed one, is asked for again after this long. */
const ASK_AGAIN_MS = 2000

interface OwnedPartition extends PartitionRow {
  position: number | null
  blocked: string | null
  askedAtMs: number
}

/** What a member needs of the log that it reads. */
export interface MemberLog {
  file: LogDatabase
  leaseMs: number
  /** Called after each append of this process. */
  waiters: Set<() => void>
}

export class SqliteSubscription implements Subscription {
  readonly #log: MemberLog
  readonly #options: SubscribeOptions
  readonly #member = randomUUID()
  readonly #owned = new Map<number, OwnedPartition>()
  readonly #problems = new Map<string, LogProblem>()
  #missing: string[] = []
  #isOwner = false
  /** Counts assignments: an answer of `onAssigned` for an older one is dropped. */
  #epoch = 0
  #isAsking = false
  #isClosed = false
  #turn = 0
  #timer: NodeJS.Timeout | undefined

  constructor(log: MemberLog, options: SubscribeOptions) {
    this.#log = log
    this.#options = options
    this.#tick()
  }

  async next(): Promise<RecordBatch[]> {
    // Without this a caller that always finds data would never let a timer or a socket have its turn.
    await afterImmediate()
    const deadlineMs = performance.now() + IDLE_MS
    let seenVersion: number | null = null
    while (!this.#isClosed && !this.#options.signal.aborted) {
      try {
        const version = this.#log.file.use('Reading the log failed', () => this.#log.file.dataVersion())
        if (seenVersion !== version) {
          const batches = this.#log.file.use('Reading the log failed', () => this.#read())
          this.#problems.delete('read')
          if (batches.length > 0) return batches
        }
        seenVersion = version
      } catch (error) {
        this.#setProblem('read', 'unreachable', error)
      }
      const leftMs = deadlineMs - performance.now()
      if (leftMs <= 0) break
      if (await this.#wait(Math.min(POLL_MS, leftMs))) seenVersion = null
    }
    return []
  }

  async commit(positions: readonly Position[]): Promise<void> {
    const { file } = this.#log
    const { group } = this.#options
    try {
      file.transactLoosely('Committing failed', () => {
        // A member that lost its lease must not set back what the next one has committed.
        if (!ownsLease(file, group, this.#member)) return
        for (const { topic, topicId, partition, offset } of positions) {
          const row = partitionsOf(file, topic).find((each) => each.partition === partition)
          if (row?.topicId === topicId) setCommittedOffset(file, group, row.id, offset)
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
      ends = this.#log.file.use('Reading the log failed', () => endOffsets(this.#log.file))
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
      problems.push({ code: 'topic_missing', message: `Topic ${topic} does not exist: make it` })
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
    this.#forget()
    this.#wakeAll()
    try {
      releaseLease(this.#log.file, this.#options.group, this.#member)
    } catch {
      // The lease runs out by itself.
    }
  }

  /** Keeps or takes the lease, looks for partitions that are new; again and again until closed. */
  #tick(): void {
    const { file, leaseMs } = this.#log
    try {
      const isOwner = holdLease(file, this.#options.group, { member: this.#member, leaseMs })
      if (this.#isOwner && !isOwner) this.#lose()
      this.#isOwner = isOwner
      if (isOwner) file.use('Assigning partitions failed', () => this.#assignNew())
      this.#problems.delete('lease')
    } catch (error) {
      this.#setProblem('lease', 'unreachable', error)
    }
    const pauseMs = this.#isOwner && this.#missing.length === 0 ? Math.min(1000, leaseMs / 5) : STAND_BY_MS
    this.#timer = setTimeout(() => this.#tick(), pauseMs).unref()
  }

  #lose(): void {
    const lost = this.assigned
    this.#forget()
    this.#options.onRevoked?.(lost)
  }

  #forget(): void {
    this.#isOwner = false
    this.#epoch += 1
    this.#owned.clear()
  }

  #assignNew(): void {
    const rows: PartitionRow[] = []
    this.#missing = []
    for (const topic of this.#options.topics) {
      const ofTopic = partitionsOf(this.#log.file, topic)
      if (ofTopic.length === 0) this.#missing.push(topic)
      rows.push(...ofTopic)
    }
    if (this.#isAsking) return
    const nowMs = performance.now()
    const asked = rows.filter((row) => {
      const owned = this.#owned.get(row.id)
      return owned === undefined || (owned.position === null && nowMs - owned.askedAtMs >= ASK_AGAIN_MS)
    })
    if (asked.length === 0) return
    if (asked.some((row) => !this.#owned.has(row.id))) this.#register(rows)
    for (const row of asked) {
      const blocked = this.#owned.get(row.id)?.blocked ?? null
      this.#owned.set(row.id, { ...row, position: null, blocked, askedAtMs: nowMs })
    }
    this.#ask(asked.map((row) => this.#describe(row))).then((decisions) => this.#start(asked, decisions))
  }

  #register(rows: PartitionRow[]): void {
    const { file } = this.#log
    file.transactLoosely('Joining the group failed', () => {
      for (const row of rows) registerGroup(file, this.#options.group, row.id)
    })
  }

  #describe({ id, topic, topicId, partition }: PartitionRow): AssignedPartition {
    const { file } = this.#log
    const end = endOffset(file, id)
    return {
      topic,
      topicId,
      partition,
      committedOffset: committedOffset(file, this.#options.group, id),
      earliestOffset: oldestRecord(file, id)?.offset ?? end,
      endOffset: end,
    }
  }

  /** The decisions, or null when there are none (an older assignment, or asking failed). */
  async #ask(partitions: AssignedPartition[]): Promise<StartDecision[] | null> {
    const epoch = this.#epoch
    this.#isAsking = true
    try {
      const decisions = await this.#options.onAssigned(partitions)
      this.#problems.delete('start')
      return epoch === this.#epoch ? decisions : null
    } catch (error) {
      this.#setProblem('start', 'stalled', error)
      return null
    } finally {
      this.#isAsking = false
    }
  }

  #start(asked: PartitionRow[], decisions: StartDecision[] | null): void {
    if (decisions === null) return
    for (const [i, row] of asked.entries()) {
      const owned = this.#owned.get(row.id)!
      const decision = decisions[i]!
      owned.position = 'offset' in decision ? decision.offset : null
      owned.blocked = 'blocked' in decision ? decision.blocked : null
    }
    this.#wakeAll()
  }

  #read(): RecordBatch[] {
    const { file } = this.#log
    const ends = endOffsets(file)
    const ready = [...this.#owned.values()].filter(({ id, position }) => position !== null && position < ends.get(id)!)
    if (ready.length === 0) return []
    // Every partition that has something gets an equal share, so that they stay side by side in time.
    const maxBytes = this.#options.maxBytes ?? DEFAULT_MAX_BYTES
    const limit = Math.max(1, Math.floor(MAX_RECORDS / ready.length))
    const shareBytes = Math.floor(maxBytes / ready.length)
    const first = this.#turn++ % ready.length
    const batches: RecordBatch[] = []
    let totalBytes = 0
    for (const owned of [...ready.slice(first), ...ready.slice(0, first)]) {
      if (totalBytes >= maxBytes) break
      const fromOffset = owned.position!
      const { records, bytes } = readRecords(file, owned.id, { offset: fromOffset, limit, maxBytes: shareBytes })
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

  /** True when this process has appended or a partition was started; false when the time is up. */
  #wait(pauseMs: number): Promise<boolean> {
    const { waiters } = this.#log
    const { signal } = this.#options
    return new Promise((resolve) => {
      const settle = (isNews: boolean) => {
        clearTimeout(timer)
        waiters.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve(isNews)
      }
      const wake = () => settle(true)
      const timer = setTimeout(settle, pauseMs, false)
      waiters.add(wake)
      signal.addEventListener('abort', wake)
    })
  }

  #wakeAll(): void {
    for (const wake of [...this.#log.waiters]) wake()
  }

  #setProblem(key: string, code: LogProblem['code'], error: unknown): void {
    // Another process writes just now. What was tried is done again in a moment, so it is nothing to tell people.
    if (isLocked(error)) return
    this.#problems.set(key, { code, message: error instanceof Error ? error.message : String(error) })
  }
}
