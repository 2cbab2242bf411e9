// Membership in a consumer group: the library's Consumer joins, heartbeats and rejoins; this keeps one of them alive for
// ever. Whatever ends (a join that fails, heartbeats that stall, a client in a state of its own) is joined again, and after
// some failures made anew. Records are not read through it.
//
// The library's retries are off (kafka-options.ts). So a commit never rejoins by itself, the flush before a rejoin may
// wait for a commit in flight, and each failed step comes back here, where the pauses are.

import { Consumer, type ConsumerGroupJoinPayload, type GroupAssignment } from '@platformatic/kafka'
import { Backoff, Notifier, settlesWithin } from '../../../runtime/waiting.ts'
import type { Position } from '../../event-log.ts'
import { explain, hasApiId } from '../errors.ts'
import { baseOptions, type KafkaSettings } from '../options.ts'
import type { Problems } from '../problems.ts'
import { securityFault } from '../security-faults.ts'
import { COLOCATED, colocatedAssigner } from './colocated-assigner.ts'

const FLUSH_LIMIT_MS = 3_000
const CLOSE_LIMIT_MS = 1_500
const FAILURES_BEFORE_NEW_CLIENT = 4
const NO_USER_DATA = Buffer.alloc(0)

export interface GroupMemberOptions {
  settings: KafkaSettings
  group: string
  problems: Problems
  /** Awaited, bounded, before each rejoin. */
  flush(): Promise<void>
  /** `kept` says that this member was in every generation since its last assignment, so what it still has is untouched. */
  onAssignment(assignments: readonly GroupAssignment[], kept: boolean): void
}

export class GroupMember {
  readonly #options: GroupMemberOptions
  readonly #bell = new Notifier()
  readonly #backoff: Backoff
  readonly #running: Promise<void>
  #wanted = new Map<string, number>()
  #consumer: Consumer | null = null
  #joinNeeded = false
  #last: { consumer: Consumer; memberId: string | null; generationId: number } | null = null
  #closed = false

  constructor(options: GroupMemberOptions) {
    this.#options = options
    this.#backoff = new Backoff(options.settings.retryMs, options.settings.retryMaxMs)
    this.#running = this.#run()
  }

  /** Which topics to follow, with their numbers of partitions: another number makes the group share them out again. */
  follow(topics: Map<string, number>): void {
    const same = topics.size === this.#wanted.size && [...topics].every(([topic, n]) => this.#wanted.get(topic) === n)
    if (same) return
    this.#wanted = topics
    this.#joinNeeded = true
    this.#bell.notify()
  }

  /** Rejects when the group does not take it; the caller decides whether that matters. */
  async commit(positions: readonly Position[]): Promise<void> {
    const consumer = this.#consumer
    if (!consumer?.memberId) return
    await consumer.commit({
      offsets: positions.map(({ topic, partition, offset }) => ({
        topic,
        partition,
        offset: BigInt(offset),
        leaderEpoch: -1,
      })),
    })
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#bell.notify()
    await this.#drop()
    await settlesWithin(CLOSE_LIMIT_MS, this.#running)
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      if (!this.#joinNeeded) {
        await this.#bell.wait(Number.POSITIVE_INFINITY)
        continue
      }
      this.#joinNeeded = false
      try {
        if (this.#wanted.size === 0) await this.#drop()
        else await this.#join()
        this.#backoff.reset()
      } catch (error) {
        if (this.#closed) return
        this.#joinNeeded = true
        const isRefused = this.#noteFailure(error)
        const pauseMs = this.#backoff.next()
        if (this.#backoff.failures % FAILURES_BEFORE_NEW_CLIENT === 0) await this.#drop()
        if (isRefused) await this.#bell.sleep(this.#options.settings.securityPauseMs, () => this.#closed)
        else if (!this.#closed) await this.#bell.wait(pauseMs)
      }
    }
  }

  async #join(): Promise<void> {
    this.#consumer ??= this.#newConsumer()
    const { topics } = this.#consumer
    for (const topic of [...topics.keys()]) if (!this.#wanted.has(topic)) topics.untrack(topic)
    for (const topic of this.#wanted.keys()) if (!topics.has(topic)) topics.track(topic)
    await this.#consumer.joinGroup({})
  }

  #newConsumer(): Consumer {
    const { settings, group } = this.#options
    const { sessionTimeoutMs, rebalanceTimeoutMs } = settings
    const consumer = new Consumer({
      // A JoinGroup is answered when all members are there, at the latest after the rebalance time.
      ...baseOptions(settings, rebalanceTimeoutMs + 5_000),
      groupId: group,
      autocommit: false,
      groupProtocol: 'classic',
      sessionTimeout: sessionTimeoutMs,
      rebalanceTimeout: rebalanceTimeoutMs,
      heartbeatInterval: Math.min(3_000, Math.floor(sessionTimeoutMs / 3)),
      heartbeatStallTimeout: sessionTimeoutMs,
      protocols: [{ name: COLOCATED, version: 1 }],
      partitionAssigner: colocatedAssigner,
      protocolsMetadata: () => this.#flush(),
    })
    consumer.on('consumer:group:join', (payload) => this.#joined(consumer, payload))
    // The library gives up joining with an 'error' event, and then sends no more heartbeats.
    consumer.on('error', (error: unknown) => this.#lost(consumer, explain(error, settings)))
    consumer.on('consumer:heartbeat:stalled', () => {
      this.#lost(consumer, 'no heartbeat was answered')
      if (this.#consumer === consumer) void this.#drop()
    })
    return consumer
  }

  #joined(consumer: Consumer, { memberId, generationId = 0, assignments }: ConsumerGroupJoinPayload): void {
    if (this.#closed || consumer !== this.#consumer) return
    const last = this.#last
    const kept = last?.consumer === consumer && last.memberId === memberId && generationId - last.generationId <= 1
    this.#last = { consumer, memberId, generationId }
    this.#options.problems.clear('group_incompatible')
    this.#options.problems.clear('security', 'member')
    this.#options.settings.log.debug?.({ group: this.#options.group, generationId, kept }, 'Joined the group')
    this.#options.onAssignment(assignments ?? [], kept)
  }

  #lost(consumer: Consumer, reason: string): void {
    if (this.#closed || consumer !== this.#consumer) return
    this.#options.settings.log.debug?.({ group: this.#options.group, reason }, 'Lost the group, joining again')
    this.#joinNeeded = true
    this.#bell.notify()
  }

  /** Says whether a login, a certificate or a right was refused. */
  #noteFailure(error: unknown): boolean {
    const { group, problems, settings } = this.#options
    const fault = securityFault(error, settings)
    if (fault !== null) {
      // A refused connection is told in the words of whoever else is refused, so that it is said once.
      const what = fault.kind === 'rights' ? `join group "${group}"` : `use Kafka at ${settings.bootstrap}`
      problems.set('security', `Cannot ${what}: ${fault.text}`, 'member')
      return true
    }
    const details = { group, reason: explain(error, settings) }
    // Once in a row, and not for what passes at the next attempt.
    if (this.#backoff.failures === 2) settings.log.warn(details, 'Cannot join the group yet')
    else settings.log.debug?.(details, 'Cannot join the group yet')
    if (!hasApiId(error, 'INCONSISTENT_GROUP_PROTOCOL')) return false
    problems.set(
      'group_incompatible',
      `Cannot join group "${group}": members that share partitions in another way (an older processor) still run in it; stop them`,
    )
    return false
  }

  /** Bounded, since no heartbeat is sent meanwhile. It may wait for a commit: commits here never wait for a join. */
  async #flush(): Promise<Buffer> {
    if (this.#last !== null && !this.#closed) {
      const limitMs = Math.min(FLUSH_LIMIT_MS, this.#options.settings.sessionTimeoutMs / 3)
      await settlesWithin(limitMs, this.#options.flush())
    }
    return NO_USER_DATA
  }

  async #drop(): Promise<void> {
    const consumer = this.#consumer
    this.#consumer = null
    if (!consumer) return
    const { connections } = consumer
    await settlesWithin(CLOSE_LIMIT_MS, consumer.close(true))
    // Leaving is a courtesy; without an answer the connections go anyway.
    await settlesWithin(200, connections.close())
  }
}
