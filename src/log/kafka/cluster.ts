// What is requested of a cluster besides records: its topics with their ids and leaders, offsets by time, a group's
// committed offsets and members. One connection per broker, shared by the log and its subscriptions. The library
// rejects a whole metadata response when one topic in it does not exist; here such a topic is merely absent from the
// result.

import { setTimeout as sleep } from 'node:timers/promises'
import { Admin, type Broker, type Group } from '@platformatic/kafka'
import type { AssignedPartition, Position, TopicPartition } from '../event-log.ts'
import { hasApiId, isUnknownTopic } from './errors.ts'
import { baseOptions, type KafkaSettings } from './options.ts'

const REQUEST_TIMEOUT_MS = 6_000
const COORDINATOR_LIMIT_MS = 6_000
const COORDINATOR_RETRY_MS = 200
export const EARLIEST = -2
export const LATEST = -1

export interface TopicMetadata {
  topicId: string
  /** Node that leads each partition; -1 while there is none. */
  leaders: number[]
}

export interface ClusterMetadata {
  topics: Map<string, TopicMetadata>
  brokers: Map<number, Broker>
}

export function partitionKey({ topic, partition }: TopicPartition): string {
  return `${topic} ${partition}`
}

export class KafkaCluster {
  readonly admin: Admin

  constructor(settings: KafkaSettings) {
    this.admin = new Admin(baseOptions(settings, REQUEST_TIMEOUT_MS))
  }

  /** Fresh metadata of all brokers, and of those of the topics that exist. */
  async metadata(names: readonly string[]): Promise<ClusterMetadata> {
    const metadata: ClusterMetadata = { topics: new Map(), brokers: new Map() }
    try {
      await this.#readMetadata(metadata, [...names])
    } catch (error) {
      if (!isMissingTopic(error)) throw error
      metadata.topics.clear()
      for (const name of names) {
        await this.#readMetadata(metadata, [name]).catch((cause) => {
          if (!isMissingTopic(cause)) throw cause
        })
      }
    }
    return metadata
  }

  async #readMetadata(into: ClusterMetadata, names: string[]): Promise<void> {
    const { brokers, topics } = await this.admin.metadata({ topics: names, forceUpdate: true, retries: 0 })
    into.brokers = brokers
    for (const name of names) {
      const topic = topics.get(name)
      if (topic) into.topics.set(name, { topicId: topic.id, leaders: topic.partitions.map(({ leader }) => leader) })
    }
  }

  /**
   * Offset per `partitionKey`: EARLIEST, LATEST or the first at or after an instant; -1 when there is none after it.
   */
  async offsets(partitions: readonly TopicPartition[], timestampMs: number): Promise<Map<string, number>> {
    const offsets = new Map<string, number>()
    if (partitions.length === 0) return offsets
    const topics = [...Map.groupBy(partitions, ({ topic }) => topic)].map(([name, own]) => ({
      name,
      partitions: own.map(({ partition }) => ({ partitionIndex: partition, timestamp: BigInt(timestampMs) })),
    }))
    for (const topic of await this.admin.listOffsets({ topics })) {
      for (const { partitionIndex, offset } of topic.partitions) {
        offsets.set(partitionKey({ topic: topic.name, partition: partitionIndex }), Number(offset))
      }
    }
    return offsets
  }

  /** The group's committed offset per `partitionKey`, where there is one. */
  async committed(group: string, partitions: readonly TopicPartition[]): Promise<Map<string, number>> {
    const offsets = new Map<string, number>()
    if (partitions.length === 0) return offsets
    const topics = [...Map.groupBy(partitions, ({ topic }) => topic)].map(([name, own]) => ({
      name,
      partitionIndexes: own.map(({ partition }) => partition),
    }))
    const groups = await withCoordinator(() =>
      this.admin.listConsumerGroupOffsets({ groups: [{ groupId: group, topics }] }),
    )
    for (const topic of groups.flatMap((described) => described.topics)) {
      for (const { partitionIndex, committedOffset } of topic.partitions) {
        if (committedOffset < 0n) continue
        offsets.set(partitionKey({ topic: topic.name, partition: partitionIndex }), Number(committedOffset))
      }
    }
    return offsets
  }

  /** What is needed to decide where to start each partition. */
  async describePartitions(
    group: string,
    partitions: readonly (TopicPartition & { topicId: string })[],
  ): Promise<AssignedPartition[]> {
    const [earliest, end, committed] = await Promise.all([
      this.offsets(partitions, EARLIEST),
      this.offsets(partitions, LATEST),
      this.committed(group, partitions),
    ])
    return partitions.map(({ topic, partition, topicId }) => {
      const key = partitionKey({ topic, partition })
      return {
        topic,
        partition,
        topicId,
        committedOffset: committed.get(key) ?? null,
        earliestOffset: earliest.get(key) ?? 0,
        endOffset: end.get(key) ?? 0,
      }
    })
  }

  /** The group as its coordinator describes it; one that never existed has no members. */
  async group(group: string): Promise<Group | undefined> {
    const groups = await withCoordinator(() => this.admin.describeGroups({ groups: [group] }))
    return groups.get(group)
  }

  async memberCount(group: string): Promise<number> {
    return (await this.group(group))?.members.size ?? 0
  }

  async setCommitted(group: string, positions: readonly Position[]): Promise<void> {
    const topics = [...Map.groupBy(positions, ({ topic }) => topic)].map(([name, own]) => ({
      name,
      partitionOffsets: own.map(({ partition, offset }) => ({ partition, offset: BigInt(offset) })),
    }))
    await withCoordinator(() => this.admin.alterConsumerGroupOffsets({ groupId: group, topics }))
  }

  /** Highest version of the Fetch request that the cluster speaks. */
  async fetchVersion(): Promise<number> {
    const apis = await this.admin.listApis()
    return apis.find(({ name }) => name === 'Fetch')?.maxVersion ?? 0
  }

  async close(): Promise<void> {
    await this.admin.close()
  }
}

function isMissingTopic(error: unknown): boolean {
  // A topic that was just created has no leaders yet; it counts as missing until it can be read.
  return isUnknownTopic(error) || hasApiId(error, 'LEADER_NOT_AVAILABLE')
}

/**
 * A cluster creates its table of groups at the first request for a group; until then the error is
 * COORDINATOR_NOT_AVAILABLE.
 */
async function withCoordinator<T>(request: () => Promise<T>): Promise<T> {
  const startedMs = performance.now()
  for (;;) {
    try {
      return await request()
    } catch (error) {
      const mayPass = hasApiId(error, 'COORDINATOR_NOT_AVAILABLE', 'COORDINATOR_LOAD_IN_PROGRESS', 'NOT_COORDINATOR')
      if (!mayPass || performance.now() - startedMs > COORDINATOR_LIMIT_MS) throw error
      await sleep(COORDINATOR_RETRY_MS)
    }
  }
}
