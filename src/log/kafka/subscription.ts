// A subscription on Kafka: the group decides which partitions are read (membership.ts), the owner from where
// (`onAssigned`: its store knows how far all is stored), and fetch-loop.ts reads them. This joins the three and watches
// the topics: a missing one is waited for, new partitions lead to a rebalance, those of a recreated one start again.
// Nothing here jumps: a position that the log does not have is a problem until an operator decides.
//
// Worst case: the broker is away for a night. Then there is one request per back-off and there are two log lines, and
// reading resumes when it is back.

import type { GroupAssignment } from '@platformatic/kafka'
import { Backoff, Notifier, settlesWithin } from '../../runtime/waiting.ts'
import type {
  LogProblem,
  PartitionLag,
  Position,
  RecordBatch,
  SubscribeOptions,
  Subscription,
  TopicPartition,
} from '../event-log.ts'
import { type ClusterMetadata, type KafkaCluster, partitionKey } from './cluster.ts'
import { explain } from './errors.ts'
import { FetchLoop } from './fetch-loop.ts'
import { Committer } from './membership/committer.ts'
import { Membership } from './membership/membership.ts'
import type { KafkaSettings } from './options.ts'
import { newPartitionState, type PartitionState, stalledOf, start } from './partition-state.ts'
import { Problems } from './problems.ts'
import { securityFault } from './security-faults.ts'

const NEXT_WAIT_MS = 250
const DEFAULT_MAX_BYTES = 6 << 20
const CLOSE_LIMIT_MS = 2_500
const IN_USE_MS = 10_000

export interface KafkaSubscriptionContext {
  settings: KafkaSettings
  cluster: KafkaCluster
  /** At the end of `close`. */
  closed(): void
}

export class KafkaSubscription implements Subscription {
  readonly #options: SubscribeOptions
  readonly #context: KafkaSubscriptionContext
  readonly #settings: KafkaSettings
  readonly #problems: Problems
  readonly #fetchLoop: FetchLoop
  readonly #membership: Membership
  readonly #committer: Committer
  readonly #states = new Map<string, PartitionState>()
  readonly #arrived = new Notifier()
  readonly #refresh = new Notifier()
  readonly #backoff: Backoff
  readonly #watching: Promise<void>
  #metadata: ClusterMetadata = { topics: new Map(), brokers: new Map() }
  #startsRequested = false
  #requestNotBeforeMs = 0
  #nextCalledAtMs = 0
  #closing: Promise<void> | null = null

  constructor(options: SubscribeOptions, context: KafkaSubscriptionContext) {
    this.#options = options
    this.#context = context
    const settings = context.settings
    this.#settings = settings
    this.#backoff = new Backoff(settings.retryMs, settings.retryMaxMs)
    this.#problems = new Problems(settings.log, options.group)
    this.#fetchLoop = new FetchLoop({
      settings,
      group: options.group,
      states: this.#states,
      problems: this.#problems,
      maxBytes: options.maxBytes ?? DEFAULT_MAX_BYTES,
      arrived: this.#arrived,
      refresh: this.#refresh,
    })
    this.#membership = new Membership({
      settings,
      group: options.group,
      problems: this.#problems,
      flush: async () => options.flush?.(),
      onAssignment: (assignments, kept) => this.#assign(assignments, kept),
    })
    this.#committer = new Committer(
      (positions) => this.#membership.commit(positions.filter((position) => this.#states.has(partitionKey(position)))),
      (error) => settings.log.debug({ group: options.group, reason: explain(error, settings) }, 'Commit failed'),
    )
    options.signal.addEventListener('abort', this.#wake, { once: true })
    this.#watching = this.#watch()
  }

  async next(): Promise<RecordBatch[]> {
    this.#nextCalledAtMs = performance.now()
    const untilMs = this.#nextCalledAtMs + NEXT_WAIT_MS
    while (!this.#ended) {
      const batches = this.#fetchLoop.take()
      if (batches.length > 0) return batches
      this.#fetchLoop.request()
      const leftMs = untilMs - performance.now()
      if (leftMs <= 0) break
      await this.#arrived.wait(leftMs)
    }
    return []
  }

  async commit(positions: readonly Position[]): Promise<void> {
    if (!this.#closing) await this.#committer.commit(positions)
  }

  get assigned(): TopicPartition[] {
    return [...this.#states.values()].map(({ topic, partition }) => ({ topic, partition }))
  }

  get ownsAll(): boolean {
    let partitions = 0
    for (const topic of this.#options.topics) {
      const metadata = this.#metadata.topics.get(topic)
      if (!metadata) return false
      partitions += metadata.leaders.length
    }
    return partitions === this.#states.size
  }

  lag(): PartitionLag[] {
    return [...this.#states.values()].map(({ topic, partition, phase, position, endOffset }) => ({
      topic,
      partition,
      position: phase === 'reading' ? position : null,
      endOffset,
    }))
  }

  get problems(): LogProblem[] {
    return this.#problems.list
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#options.signal.removeEventListener('abort', this.#wake)
    this.#refresh.notify()
    this.#arrived.notify()
    const closed = Promise.all([this.#membership.close(), this.#fetchLoop.close(), this.#watching])
    await settlesWithin(CLOSE_LIMIT_MS, closed)
    this.#states.clear()
    this.#problems.clearAll()
    this.#context.closed()
  }

  get #ended(): boolean {
    return this.#closing !== null || this.#options.signal.aborted
  }

  readonly #wake = (): void => this.#arrived.notify()

  /** Refreshes the metadata for as long as the subscription lives. */
  async #watch(): Promise<void> {
    while (!this.#closing) {
      let pauseMs: number
      const startedMs = performance.now()
      try {
        pauseMs = await this.#refreshMetadata()
        this.#problems.clear('unreachable')
        this.#problems.clear('security')
        this.#backoff.reset()
      } catch (error) {
        if (this.#closing) return
        const fault = securityFault(error, this.#settings)
        if (fault !== null) {
          // It responded, so it can be reached.
          this.#problems.clear('unreachable')
          this.#problems.set('security', `Cannot use Kafka at ${this.#settings.bootstrap}: ${fault.text}`)
          await this.#refresh.sleep(this.#settings.securityPauseMs, () => this.#closing !== null)
          continue
        }
        this.#problems.set('unreachable', `Cannot reach Kafka at ${this.#settings.bootstrap}: ${this.#explain(error)}`)
        pauseMs = this.#backoff.next()
      }
      await this.#refresh.wait(pauseMs)
      // Every failing fetch notifies, so there is a floor under how often metadata is requested.
      await this.#refresh.sleep(startedMs + this.#settings.retryMs - performance.now(), () => this.#closing !== null)
    }
  }

  #explain(error: unknown): string {
    return explain(error, this.#settings)
  }

  async #refreshMetadata(): Promise<number> {
    const { topics, group } = this.#options
    if (!this.#fetchLoop.ready) this.#fetchLoop.useVersion(await this.#context.cluster.fetchVersion())
    const metadata = await this.#context.cluster.metadata(topics)
    if (this.#closing) return 0
    this.#metadata = metadata
    this.#fetchLoop.brokers = metadata.brokers
    const missing = topics.filter((topic) => !metadata.topics.has(topic))
    if (missing.length === 0) this.#problems.clear('topic_missing')
    else this.#problems.set('topic_missing', `Topic does not exist: ${missing.map((topic) => `"${topic}"`).join(', ')}`)
    this.#compareStates()
    this.#membership.follow(new Map([...metadata.topics].map(([topic, { leaders }]) => [topic, leaders.length])))
    void this.#requestStarts()
    this.#watchForStall(group)
    this.#arrived.notify()
    const { metadataPollMs, missingPollMs, blockedRetryMs } = this.#settings
    if (missing.length > 0) return Math.min(missingPollMs, metadataPollMs)
    const blocked = [...this.#states.values()].some((state) => state.phase === 'blocked')
    return blocked ? Math.min(blockedRetryMs, metadataPollMs) : metadataPollMs
  }

  /** Updates the states to what the topics are now. */
  #compareStates(): void {
    const dueMs = performance.now() - this.#settings.blockedRetryMs
    const recreated: PartitionState[] = []
    for (const state of this.#states.values()) {
      const metadata = this.#metadata.topics.get(state.topic)
      if (!metadata) continue
      state.leader = metadata.leaders[state.partition] ?? -1
      if (metadata.topicId !== state.topicId) recreated.push(state)
      else if (state.phase === 'blocked' && state.startRequestedAtMs <= dueMs) state.phase = 'starting'
    }
    if (recreated.length === 0) return
    this.#revoke(recreated)
    for (const { topic, partition } of recreated) {
      const metadata = this.#metadata.topics.get(topic)
      if (metadata && partition < metadata.leaders.length) this.#addState({ topic, partition })
    }
  }

  #assign(assignments: readonly GroupAssignment[], kept: boolean): void {
    const given = new Map<string, TopicPartition>()
    for (const { topic, partitions } of assignments) {
      for (const partition of partitions) given.set(partitionKey({ topic, partition }), { topic, partition })
    }
    this.#revoke([...this.#states].filter(([key]) => !kept || !given.has(key)).map(([, state]) => state))
    for (const [key, topicPartition] of given) if (!this.#states.has(key)) this.#addState(topicPartition)
    this.#refresh.notify()
  }

  #revoke(states: readonly PartitionState[]): void {
    if (states.length === 0) return
    for (const state of states) this.#states.delete(partitionKey(state))
    // It may have been about one of these; otherwise the next response reports it again.
    this.#problems.clear('security', 'reader')
    this.#problems.reportBlocked(this.#states.values())
    this.#options.onRevoked?.(states.map(({ topic, partition }) => ({ topic, partition })))
  }

  #addState({ topic, partition }: TopicPartition): void {
    const metadata = this.#metadata.topics.get(topic)
    const state = newPartitionState({
      topic,
      partition,
      topicId: metadata?.topicId ?? '',
      leader: metadata?.leaders[partition] ?? -1,
    })
    this.#states.set(partitionKey(state), state)
  }

  /** Requests start positions from the owner for partitions in phase `starting`, one request at a time. */
  async #requestStarts(): Promise<void> {
    const waiting = [...this.#states.values()].filter((state) => state.phase === 'starting')
    if (waiting.length === 0 || this.#startsRequested || performance.now() < this.#requestNotBeforeMs) return
    this.#startsRequested = true
    try {
      const described = await this.#context.cluster.describePartitions(this.#options.group, waiting)
      const decisions = await this.#options.onAssigned(described)
      if (this.#closing) return
      for (const [i, state] of waiting.entries()) start(state, described[i]!, decisions[i])
      this.#problems.reportBlocked(this.#states.values())
      this.#arrived.notify()
    } catch (error) {
      if (this.#closing) return
      this.#requestNotBeforeMs = performance.now() + this.#settings.retryMs
      this.#settings.log.warn(
        { group: this.#options.group, reason: this.#explain(error) },
        'Cannot start partitions yet',
      )
    } finally {
      this.#startsRequested = false
    }
    // More may have been assigned meanwhile, or the request failed.
    if ([...this.#states.values()].some((state) => state.phase === 'starting')) {
      setTimeout(() => this.#refresh.notify(), this.#settings.retryMs)
    }
  }

  #watchForStall(group: string): void {
    const inUse = performance.now() - this.#nextCalledAtMs < IN_USE_MS
    const stalled = stalledOf(this.#states.values(), { inUse, stalledMs: this.#settings.stalledMs })
    if (stalled.length === 0) {
      this.#problems.clear('stalled')
      return
    }
    const named = stalled.slice(0, 3).map((state) => `${state.topic}-${state.partition} at ${state.position}`)
    this.#problems.set('stalled', `Group "${group}" does not move although there are records: ${named.join(', ')}`)
    this.#fetchLoop.reset()
  }
}
