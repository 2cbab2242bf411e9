// The EventLog on Apache Kafka (2.7 or later; topic ids need 2.8). Nothing connects before its first use: a log object
// can be created while the broker is away. Subscriptions have clients of their own, see subscription.ts.

import { setTimeout as sleep } from 'node:timers/promises'
import { Backoff, settlesWithin } from '../../runtime/waiting.ts'
import type {
  EventLog,
  NewRecord,
  Position,
  SubscribeOptions,
  Subscription,
  TopicDescription,
  TopicPartition,
  TopicSpec,
} from '../event-log.ts'
import { LogError } from '../event-log.ts'
import { EARLIEST, KafkaCluster, LATEST, partitionKey } from './cluster.ts'
import { closeConnections } from './connection-tracker.ts'
import { hasApiId, isUnknownTopic, toLogError } from './errors.ts'
import { type KafkaLogOptions, type KafkaSettings, kafkaSettings } from './options.ts'
import { KafkaProducer } from './producer.ts'
import { securityFault } from './security-faults.ts'
import { KafkaSubscription } from './subscription.ts'

const PING_LIMIT_MS = 3_000
const CLOSE_LIMIT_MS = 3_000
const CREATED_LIMIT_MS = 10_000
const CREATED_POLL_MS = 100
/** How long `describe` retries while leaders change. */
const DESCRIBE_LIMIT_MS = 4_000

export class KafkaLog implements EventLog {
  readonly description: string
  readonly #settings: KafkaSettings
  readonly #cluster: KafkaCluster
  readonly #producer: KafkaProducer
  readonly #subscriptions = new Set<KafkaSubscription>()
  /** The last refused login or certificate, and until when no request is sent. */
  #refused: { error: unknown; untilMs: number } | null = null
  #closed = false

  constructor(options: KafkaLogOptions) {
    this.#settings = kafkaSettings(options)
    this.description = `kafka at ${this.#settings.bootstrap}`
    this.#cluster = new KafkaCluster(this.#settings)
    this.#producer = new KafkaProducer(this.#settings)
  }

  async ensureTopics(topics: readonly TopicSpec[]): Promise<string[]> {
    const names = topics.map(({ name }) => name)
    return this.#run('Cannot create topics', async () => {
      const { topics: existing } = await this.#cluster.metadata(names)
      const created: string[] = []
      for (const topic of topics) if (!existing.has(topic.name) && (await this.#create(topic))) created.push(topic.name)
      await this.#untilReadable(created)
      return created
    })
  }

  /** Partitions of a topic that was just created change leaders for a moment, so a retriable failure is retried. */
  async describe(topics: readonly string[], group?: string): Promise<TopicDescription[]> {
    const backoff = new Backoff(100, 1000)
    for (const untilMs = performance.now() + DESCRIBE_LIMIT_MS; ; ) {
      try {
        return await this.#describeOnce(topics, group)
      } catch (error) {
        const pauseMs = backoff.next()
        const mayPass = error instanceof LogError && error.retriable && securityFault(error, this.#settings) === null
        if (!mayPass || this.#closed || performance.now() + pauseMs > untilMs) throw error
        await sleep(pauseMs)
      }
    }
  }

  async #describeOnce(topics: readonly string[], group?: string): Promise<TopicDescription[]> {
    return this.#run('Cannot describe topics', async () => {
      const metadata = await this.#cluster.metadata(topics)
      const partitions = [...metadata.topics].flatMap(([topic, { leaders }]) => partitionsOf(topic, leaders.length))
      const [earliest, end, committed] = await Promise.all([
        this.#cluster.offsets(partitions, EARLIEST),
        this.#cluster.offsets(partitions, LATEST),
        group === undefined ? new Map<string, number>() : this.#cluster.committed(group, partitions),
      ])
      return topics.flatMap((name) => {
        const topic = metadata.topics.get(name)
        if (!topic) return []
        const described = partitionsOf(name, topic.leaders.length).map((topicPartition) => {
          const key = partitionKey(topicPartition)
          return {
            partition: topicPartition.partition,
            earliestOffset: earliest.get(key) ?? 0,
            endOffset: end.get(key) ?? 0,
            committedOffset: committed.get(key) ?? null,
          }
        })
        return [{ name, topicId: topic.topicId, partitions: described }]
      })
    })
  }

  async append(topic: string, records: readonly NewRecord[]): Promise<void> {
    await this.#run(`Cannot append to topic "${topic}"`, () => this.#producer.append(topic, records))
  }

  subscribe(options: SubscribeOptions): Subscription {
    if (this.#closed) throw new LogError('Cannot subscribe: the log is closed', { retriable: false })
    const subscription: KafkaSubscription = new KafkaSubscription(options, {
      settings: this.#settings,
      cluster: this.#cluster,
      closed: () => this.#subscriptions.delete(subscription),
    })
    this.#subscriptions.add(subscription)
    return subscription
  }

  async resetOffsets(group: string, positions: readonly Position[]): Promise<void> {
    const action = `Cannot set offsets of group "${group}"`
    await this.#run(action, async () => {
      const members = await this.#cluster.memberCount(group)
      if (members > 0) throw hasMembers(action, members)
      try {
        await this.#cluster.setCommitted(group, positions)
      } catch (error) {
        // A member has joined since the group was described.
        if (hasApiId(error, 'UNKNOWN_MEMBER_ID', 'ILLEGAL_GENERATION')) throw hasMembers(action, 1)
        throw error
      }
    })
  }

  async offsetsAt(topic: string, timestampMs: number): Promise<{ partition: number; offset: number }[]> {
    return this.#run(`Cannot find offsets of topic "${topic}"`, async () => {
      const metadata = (await this.#cluster.metadata([topic])).topics.get(topic)
      if (!metadata)
        throw new LogError(`Cannot find offsets of topic "${topic}": it does not exist`, { retriable: true })
      const partitions = partitionsOf(topic, metadata.leaders.length)
      // Negative timestamps have special meanings in Kafka (EARLIEST, LATEST).
      const [found, end] = await Promise.all([
        this.#cluster.offsets(partitions, Math.max(0, Math.floor(timestampMs))),
        this.#cluster.offsets(partitions, LATEST),
      ])
      return partitions.map((topicPartition) => {
        const key = partitionKey(topicPartition)
        const offset = found.get(key) ?? -1
        return { partition: topicPartition.partition, offset: offset >= 0 ? offset : (end.get(key) ?? 0) }
      })
    })
  }

  async ping(): Promise<void> {
    await this.#run('Cannot reach Kafka', async () => {
      const response = this.#cluster.admin.metadata({ topics: [], forceUpdate: true, retries: 0 })
      if (!(await settlesWithin(PING_LIMIT_MS, response))) {
        throw new LogError(`Cannot reach Kafka at ${this.#settings.bootstrap}: no response in ${PING_LIMIT_MS} ms`, {
          retriable: true,
        })
      }
      await response
    })
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await Promise.all([...this.#subscriptions].map((subscription) => subscription.close()))
    await settlesWithin(CLOSE_LIMIT_MS, Promise.allSettled([this.#producer.close(), this.#cluster.close()]))
    closeConnections(this.#settings.connections)
  }

  async #run<T>(action: string, work: () => Promise<T>): Promise<T> {
    if (this.#closed) throw new LogError(`${action}: the log is closed`, { retriable: false })
    const refused = this.#refused
    // Callers retry about every second; a broker that refuses a login or certificate must not get requests that often.
    if (refused !== null && performance.now() < refused.untilMs) throw toLogError(action, refused.error, this.#settings)
    try {
      return await work()
    } catch (error) {
      const cause = error instanceof LogError ? error.cause : error
      const kind = securityFault(cause, this.#settings)?.kind
      if (kind === 'login' || kind === 'tls') {
        this.#refused = { error: cause, untilMs: performance.now() + this.#settings.securityPauseMs }
      }
      throw toLogError(action, error, this.#settings)
    }
  }

  async #create({ name, partitions, replication }: TopicSpec): Promise<boolean> {
    try {
      // -1 is the broker's default.
      await this.#cluster.admin.createTopics({ topics: [{ topic: name, partitions, replicas: replication ?? -1 }] })
      return true
    } catch (error) {
      if (hasApiId(error, 'TOPIC_ALREADY_EXISTS')) return false
      throw toLogError(`Cannot create topic "${name}"`, error, this.#settings)
    }
  }

  /** Brokers learn of a new topic a moment after the controller has created it. */
  async #untilReadable(names: readonly string[]): Promise<void> {
    const startedMs = performance.now()
    while (names.length > 0) {
      const { topics } = await this.#cluster.metadata(names).catch((error) => {
        if (isUnknownTopic(error)) return { topics: new Map() }
        throw error
      })
      if (topics.size === names.length) return
      if (performance.now() - startedMs > CREATED_LIMIT_MS) {
        throw new LogError(`Cannot use new topics yet: ${names.join(', ')} have no leader`, { retriable: true })
      }
      await sleep(CREATED_POLL_MS)
    }
  }
}

function partitionsOf(topic: string, count: number): TopicPartition[] {
  return Array.from({ length: count }, (_, partition) => ({ topic, partition }))
}

function hasMembers(action: string, members: number): LogError {
  const counted = members === 1 ? 'a member' : `${members} members`
  return new LogError(`${action}: it has ${counted}; stop the processors of this group first`, { retriable: true })
}
