// Membership in a consumer group: the library's Consumer joins, heartbeats and rejoins; this keeps one of them alive
// for the life of the subscription. Whatever ends a membership (a join that fails, heartbeats that stall, a client in
// an unknown state) leads to another join, and after some failures to a new client. Records are not read through it.
//
// The library's retries are off (options.ts). So a commit never rejoins, the flush before a rejoin may wait for a
// commit in flight, and each failed step comes back here, where the pauses are.

import {
  Consumer,
  type ConsumerGroupJoinPayload,
  type GroupAssignment,
  type GroupPartitionsAssigner,
} from '@platformatic/kafka'
import { Backoff, Notifier, settlesWithin } from '../../../runtime/waiting.ts'
import type { Position } from '../../event-log.ts'
import { explain, hasApiId } from '../errors.ts'
import { baseOptions, type KafkaSettings } from '../options.ts'
import type { Problems } from '../problems.ts'
import { securityFault } from '../security-faults.ts'

/** Name of our assignor in the group protocol. */
export const COLOCATED = 'colocated'
const FLUSH_LIMIT_MS = 3_000
const CLOSE_LIMIT_MS = 1_500
const FAILURES_BEFORE_NEW_CLIENT = 4
const NO_USER_DATA = Buffer.alloc(0)

export interface MembershipOptions {
  settings: KafkaSettings
  group: string
  problems: Problems
  /** Awaited, bounded, before each rejoin. */
  flush(): Promise<void>
  /** `kept`: this member was in every generation since its last assignment, so no other has read what it still has. */
  onAssignment(assignments: readonly GroupAssignment[], kept: boolean): void
}

export class Membership {
  readonly #options: MembershipOptions
  readonly #notifier = new Notifier()
  readonly #backoff: Backoff
  readonly #running: Promise<void>
  #topics = new Map<string, number>()
  #consumer: Consumer | null = null
  #joinNeeded = false
  #last: { consumer: Consumer; memberId: string | null; generationId: number } | null = null
  #closed = false

  constructor(options: MembershipOptions) {
    this.#options = options
    this.#backoff = new Backoff(options.settings.retryMs, options.settings.retryMaxMs)
    this.#running = this.#run()
  }

  /** Sets the topics to follow, with their numbers of partitions: a change rebalances the group. */
  follow(topics: Map<string, number>): void {
    const same = topics.size === this.#topics.size && [...topics].every(([topic, n]) => this.#topics.get(topic) === n)
    if (same) return
    this.#topics = topics
    this.#joinNeeded = true
    this.#notifier.notify()
  }

  /** Rejects when the group does; the caller decides whether that matters. */
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
    this.#notifier.notify()
    await this.#drop()
    await settlesWithin(CLOSE_LIMIT_MS, this.#running)
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      if (!this.#joinNeeded) {
        await this.#notifier.wait(Number.POSITIVE_INFINITY)
        continue
      }
      this.#joinNeeded = false
      try {
        if (this.#topics.size === 0) await this.#drop()
        else await this.#join()
        this.#backoff.reset()
      } catch (error) {
        if (this.#closed) return
        this.#joinNeeded = true
        const isSecurityFault = this.#reportFailure(error)
        const pauseMs = this.#backoff.next()
        if (this.#backoff.failures % FAILURES_BEFORE_NEW_CLIENT === 0) await this.#drop()
        if (isSecurityFault) await this.#notifier.sleep(this.#options.settings.securityPauseMs, () => this.#closed)
        else if (!this.#closed) await this.#notifier.wait(pauseMs)
      }
    }
  }

  async #join(): Promise<void> {
    this.#consumer ??= this.#newConsumer()
    const { topics } = this.#consumer
    for (const topic of [...topics.keys()]) if (!this.#topics.has(topic)) topics.untrack(topic)
    for (const topic of this.#topics.keys()) if (!topics.has(topic)) topics.track(topic)
    await this.#consumer.joinGroup({})
  }

  #newConsumer(): Consumer {
    const { settings, group } = this.#options
    const { sessionTimeoutMs, rebalanceTimeoutMs } = settings
    const consumer = new Consumer({
      // The response to a JoinGroup comes when all members have joined, at the latest after the rebalance timeout.
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
    // After an 'error' event the library joins no more and sends no more heartbeats.
    consumer.on('error', (error: unknown) => this.#lost(consumer, explain(error, settings)))
    consumer.on('consumer:heartbeat:stalled', () => {
      this.#lost(consumer, 'no response to heartbeats')
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
    this.#options.settings.log.debug({ group: this.#options.group, generationId, kept }, 'Joined the group')
    this.#options.onAssignment(assignments ?? [], kept)
  }

  #lost(consumer: Consumer, reason: string): void {
    if (this.#closed || consumer !== this.#consumer) return
    this.#options.settings.log.debug({ group: this.#options.group, reason }, 'Lost the group, joining again')
    this.#joinNeeded = true
    this.#notifier.notify()
  }

  /** Returns whether a login, a certificate or a right was refused. */
  #reportFailure(error: unknown): boolean {
    const { group, problems, settings } = this.#options
    const fault = securityFault(error, settings)
    if (fault !== null) {
      // The same text as other parts report for a refused connection, so that it is logged once.
      const action = fault.kind === 'rights' ? `join group "${group}"` : `use Kafka at ${settings.bootstrap}`
      problems.set('security', `Cannot ${action}: ${fault.text}`, 'member')
      return true
    }
    const details = { group, reason: explain(error, settings) }
    // One warning in a row of failures, and none for what passes at the next attempt.
    if (this.#backoff.failures === 2) settings.log.warn(details, 'Cannot join the group yet')
    else settings.log.debug(details, 'Cannot join the group yet')
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
    // LeaveGroup is best effort; without a response the connections are closed all the same.
    await settlesWithin(200, connections.close())
  }
}

/**
 * Partition n of every topic goes to the same member, n modulo members in the order of their ids. So samples and tokens
 * of one host (both keyed by host) are read by one process, and its live window is complete. The library's round robin
 * co-locates only by chance (0 of 12 pairs with 5 members). A member that does not follow a topic yet (it was created a
 * moment ago) is left out for that topic alone.
 */
const colocatedAssigner: GroupPartitionsAssigner = (_current, members, topics, metadata) => {
  const ids = [...members.keys()].sort()
  const assignments = new Map(ids.map((id) => [id, new Map<string, { topic: string; partitions: number[] }>()]))
  for (const topic of topics) {
    const followers = ids.filter((id) => members.get(id)?.topics?.includes(topic) ?? true)
    if (followers.length === 0) continue
    const count = metadata.topics.get(topic)?.partitionsCount ?? 0
    for (let partition = 0; partition < count; partition += 1) {
      const own = assignments.get(followers[partition % followers.length]!)!
      const assignment = own.get(topic)
      if (assignment) assignment.partitions.push(partition)
      else own.set(topic, { topic, partitions: [partition] })
    }
  }
  return [...assignments].map(([memberId, own]) => ({ memberId, assignments: own }))
}
