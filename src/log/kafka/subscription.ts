// A subscription on Kafka: who may read is the group's business (group-member.ts), from where is the owner's
// (`onAssigned`: its store knows how far all is stored), how is partition-reader.ts's. This joins them, and watches the
// topics: one that is missing is waited for, one that grew is shared out again, one that was made anew is asked about
// again. Nothing here jumps: a position that the log does not have is a problem until a person decides.
//
// Worst case: the broker is away for a night. Then there is one request per back-off, two log lines, and reading goes on
// by itself.
//
// One class over 300 lines: assigning, asking, watching and revoking share the same few fields, and each part that could
// stand alone is a file of its own already.

import type { Broker, GroupAssignment } from '@platformatic/kafka'
import { Backoff, Notifier, settlesWithin } from '../../runtime/waiting.ts'
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
import { type ClusterMetadata, type KafkaCluster, partitionKey } from './cluster.ts'
import { explain } from './errors.ts'
import { newPartitionState, PartitionReader, type PartitionState } from './fetch-loop.ts'
import { Fetcher } from './fetch-protocol.ts'
import { Committer } from './membership/committer.ts'
import { GroupMember } from './membership/membership.ts'
import type { KafkaSettings } from './options.ts'
import { Problems } from './problems.ts'
import { securityFault, TOPIC_RIGHT_MISSING } from './security-faults.ts'
import { checkedStart, describePartitions } from './start-positions.ts'

const NEXT_WAIT_MS = 250
const DEFAULT_MAX_BYTES = 6 << 20
const CLOSE_LIMIT_MS = 2_500
const IN_USE_MS = 10_000

export interface KafkaSubscriptionContext {
  settings: KafkaSettings
  cluster: KafkaCluster
  where: string
  closed(subscription: KafkaSubscription): void
}

export class KafkaSubscription implements Subscription {
  readonly #options: SubscribeOptions
  readonly #context: KafkaSubscriptionContext
  readonly #settings: KafkaSettings
  readonly #problems: Problems
  readonly #fetcher: Fetcher
  readonly #reader: PartitionReader
  readonly #member: GroupMember
  readonly #committer: Committer
  readonly #states = new Map<string, PartitionState>()
  readonly #arrived = new Notifier()
  readonly #look = new Notifier()
  readonly #backoff: Backoff
  readonly #watching: Promise<void>
  #facts: ClusterMetadata = { topics: new Map(), brokers: new Map() }
  #asking = false
  #askNotBeforeMs = 0
  #nextCalledAtMs = 0
  #closing: Promise<void> | null = null

  constructor(options: SubscribeOptions, context: KafkaSubscriptionContext) {
    this.#options = options
    this.#context = context
    const settings = context.settings
    this.#settings = settings
    this.#backoff = new Backoff(settings.retryMs, settings.retryMaxMs)
    this.#problems = new Problems(settings.log, options.group)
    this.#fetcher = new Fetcher(settings)
    this.#reader = new PartitionReader(this.#fetcher, this.#readerOwner(), {
      maxBytes: options.maxBytes ?? DEFAULT_MAX_BYTES,
      retryMs: settings.retryMs,
      retryMaxMs: settings.retryMaxMs,
    })
    this.#member = new GroupMember({
      settings,
      group: options.group,
      problems: this.#problems,
      flush: async () => options.flush?.(),
      onAssignment: (assignments, kept) => this.#assign(assignments, kept),
    })
    this.#committer = new Committer(
      (positions) => this.#member.commit(positions.filter((each) => this.#states.has(partitionKey(each)))),
      (error) =>
        settings.log.debug?.({ group: options.group, reason: explain(error, settings) }, 'Commit was not taken'),
    )
    options.signal.addEventListener('abort', this.#wake, { once: true })
    this.#watching = this.#watch()
  }

  async next(): Promise<RecordBatch[]> {
    this.#nextCalledAtMs = performance.now()
    const untilMs = this.#nextCalledAtMs + NEXT_WAIT_MS
    while (!this.#ended) {
      const batches = this.#reader.take()
      if (batches.length > 0) return batches
      this.#reader.ask()
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
      const facts = this.#facts.topics.get(topic)
      if (!facts) return false
      partitions += facts.leaders.length
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
    this.#reader.close()
    this.#look.notify()
    this.#arrived.notify()
    await settlesWithin(CLOSE_LIMIT_MS, Promise.all([this.#member.close(), this.#fetcher.close(), this.#watching]))
    this.#states.clear()
    this.#problems.clearAll()
    this.#context.closed(this)
  }

  get #ended(): boolean {
    return this.#closing !== null || this.#options.signal.aborted
  }

  readonly #wake = (): void => this.#arrived.notify()

  #readerOwner() {
    return {
      states: () => [...this.#states.values()].filter((state) => state.phase === 'reading'),
      isCurrent: (state: PartitionState) => this.#states.get(partitionKey(state)) === state,
      broker: (node: number): Broker | undefined => this.#facts.brokers.get(node),
      outOfRange: (state: PartitionState) => this.#askAgain(state),
      undecodable: (state: PartitionState, error: unknown) => {
        this.#block(state, `record after offset ${state.position} cannot be read: ${this.#explain(error)}`)
        this.#showBlocked()
      },
      notAllowed: (topics: readonly string[]) => {
        if (topics.length === 0) this.#problems.clear('security', 'reader')
        else this.#problems.set('security', `Cannot read ${topics.join(', ')}: ${TOPIC_RIGHT_MISSING}`, 'reader')
      },
      lookAgain: (error: unknown) => {
        this.#settings.log.debug?.({ group: this.#options.group, reason: this.#explain(error) }, 'Fetch failed')
        this.#look.notify()
      },
      answered: () => this.#arrived.notify(),
    }
  }

  /** Looks at the topics for as long as the subscription lives. */
  async #watch(): Promise<void> {
    while (!this.#closing) {
      let pauseMs: number
      const startedMs = performance.now()
      try {
        pauseMs = await this.#lookAround()
        this.#problems.clear('unreachable')
        this.#problems.clear('security')
        this.#backoff.reset()
      } catch (error) {
        if (this.#closing) return
        const fault = securityFault(error, this.#settings)
        if (fault !== null) {
          // It answered, so it can be reached.
          this.#problems.clear('unreachable')
          this.#problems.set('security', `Cannot use Kafka at ${this.#context.where}: ${fault.text}`)
          await this.#look.sleep(this.#settings.securityPauseMs, () => this.#closing !== null)
          continue
        }
        this.#problems.set('unreachable', `Cannot reach Kafka at ${this.#context.where}: ${this.#explain(error)}`)
        pauseMs = this.#backoff.next()
      }
      await this.#look.wait(pauseMs)
      // Rung by every failing fetch, so there is a floor under how often the cluster is asked.
      await this.#look.sleep(startedMs + this.#settings.retryMs - performance.now(), () => this.#closing !== null)
    }
  }

  #explain(error: unknown): string {
    return explain(error, this.#settings)
  }

  async #lookAround(): Promise<number> {
    const { topics, group } = this.#options
    if (!this.#fetcher.ready) this.#fetcher.useVersion(await this.#context.cluster.fetchVersion())
    const facts = await this.#context.cluster.facts(topics)
    if (this.#closing) return 0
    this.#facts = facts
    const missing = topics.filter((topic) => !facts.topics.has(topic))
    if (missing.length === 0) this.#problems.clear('topic_missing')
    else this.#problems.set('topic_missing', `Topic does not exist: ${missing.map((each) => `"${each}"`).join(', ')}`)
    this.#compareStates()
    this.#member.follow(new Map([...facts.topics].map(([topic, { leaders }]) => [topic, leaders.length])))
    void this.#ask()
    this.#watchForStall(group)
    this.#arrived.notify()
    const { metadataPollMs, missingPollMs, blockedRetryMs } = this.#settings
    if (missing.length > 0) return Math.min(missingPollMs, metadataPollMs)
    const blocked = [...this.#states.values()].some((state) => state.phase === 'blocked')
    return blocked ? Math.min(blockedRetryMs, metadataPollMs) : metadataPollMs
  }

  /** Brings the states in line with what the topics are now. */
  #compareStates(): void {
    const dueMs = performance.now() - this.#settings.blockedRetryMs
    const anew: PartitionState[] = []
    for (const state of this.#states.values()) {
      const facts = this.#facts.topics.get(state.topic)
      if (!facts) continue
      state.leader = facts.leaders[state.partition] ?? -1
      if (facts.topicId !== state.topicId) anew.push(state)
      else if (state.phase === 'blocked' && state.askedAtMs <= dueMs) state.phase = 'asking'
    }
    if (anew.length === 0) return
    this.#revoke(anew)
    for (const { topic, partition } of anew) {
      const facts = this.#facts.topics.get(topic)
      if (facts && partition < facts.leaders.length) this.#addState({ topic, partition })
    }
  }

  #assign(assignments: readonly GroupAssignment[], kept: boolean): void {
    const given = new Map<string, TopicPartition>()
    for (const { topic, partitions } of assignments) {
      for (const partition of partitions) given.set(partitionKey({ topic, partition }), { topic, partition })
    }
    this.#revoke([...this.#states].filter(([key]) => !kept || !given.has(key)).map(([, state]) => state))
    for (const [key, each] of given) if (!this.#states.has(key)) this.#addState(each)
    this.#look.notify()
  }

  #revoke(states: readonly PartitionState[]): void {
    if (states.length === 0) return
    for (const state of states) this.#states.delete(partitionKey(state))
    // It may have been about one of these; else the next answer says it again.
    this.#problems.clear('security', 'reader')
    this.#showBlocked()
    this.#options.onRevoked?.(states.map(({ topic, partition }) => ({ topic, partition })))
  }

  #addState({ topic, partition }: TopicPartition): void {
    const facts = this.#facts.topics.get(topic)
    const state = newPartitionState({
      topic,
      partition,
      topicId: facts?.topicId ?? '',
      leader: facts?.leaders[partition] ?? -1,
    })
    this.#states.set(partitionKey(state), state)
  }

  #askAgain(state: PartitionState): void {
    state.phase = 'asking'
    this.#look.notify()
  }

  /** Asks the owner where to start, for all partitions that wait for it. One question at a time; it may take long. */
  async #ask(): Promise<void> {
    const waiting = [...this.#states.values()].filter((state) => state.phase === 'asking')
    if (waiting.length === 0 || this.#asking || performance.now() < this.#askNotBeforeMs) return
    this.#asking = true
    try {
      const questions = await describePartitions(this.#context.cluster, this.#options.group, waiting)
      const decisions = await this.#options.onAssigned(questions)
      if (this.#closing) return
      for (const [i, state] of waiting.entries()) this.#decide(state, questions[i]!, decisions[i])
      this.#showBlocked()
      this.#arrived.notify()
    } catch (error) {
      if (this.#closing) return
      this.#askNotBeforeMs = performance.now() + this.#settings.retryMs
      this.#settings.log.warn(
        { group: this.#options.group, reason: this.#explain(error) },
        'Cannot start partitions yet',
      )
    } finally {
      this.#asking = false
    }
    // Some may have come meanwhile, or the question failed.
    if ([...this.#states.values()].some((state) => state.phase === 'asking')) {
      setTimeout(() => this.#look.notify(), this.#settings.retryMs)
    }
  }

  #decide(state: PartitionState, question: AssignedPartition, decision: StartDecision | undefined): void {
    state.askedAtMs = performance.now()
    state.endOffset = question.endOffset
    state.stableEndOffset = question.endOffset
    const start = checkedStart(question, decision)
    if ('blocked' in start) {
      this.#block(state, start.blocked)
      return
    }
    state.phase = 'reading'
    state.position = start.offset
    state.fetchOffset = start.offset
    state.movedAtMs = performance.now()
  }

  #block(state: PartitionState, reason: string): void {
    state.phase = 'blocked'
    state.reason = reason
    state.askedAtMs = performance.now()
  }

  #showBlocked(): void {
    const blocked = [...this.#states.values()].filter((state) => state.reason !== '' && state.phase !== 'reading')
    if (blocked.length === 0) {
      this.#problems.clear('position_invalid')
      return
    }
    const named = blocked.slice(0, 3).map((state) => `${state.topic}-${state.partition}: ${state.reason}`)
    const more = blocked.length > 3 ? `; and ${blocked.length - 3} more` : ''
    this.#problems.set('position_invalid', `Partitions are not read: ${named.join('; ')}${more}`)
  }

  #watchForStall(group: string): void {
    const nowMs = performance.now()
    const inUse = nowMs - this.#nextCalledAtMs < IN_USE_MS
    const stalled = [...this.#states.values()].filter((state) => {
      const behind = state.phase === 'reading' && state.position < state.stableEndOffset
      if (!behind || !inUse) state.movedAtMs = nowMs
      return nowMs - state.movedAtMs > this.#settings.stalledMs
    })
    if (stalled.length === 0) {
      this.#problems.clear('stalled')
      return
    }
    const named = stalled.slice(0, 3).map((state) => `${state.topic}-${state.partition} at ${state.position}`)
    this.#problems.set('stalled', `Group "${group}" does not move although there are records: ${named.join(', ')}`)
    this.#fetcher.reset()
  }
}
