// What we ask a cluster about besides records: its topics with their ids and leaders, offsets by time, a group's
// committed offsets and members. One connection per broker, shared by the log and its subscriptions. The library
// refuses a whole metadata answer when one topic in it does not exist; here such a topic is simply not in the answer.

import { Admin, type Broker, type Group } from '@platformatic/kafka'
import type { AssignedPartition, Position, TopicPartition } from '../event-log.ts'
import { hasApiId, isUnknownTopic } from './errors.ts'
import { baseOptions, type KafkaSettings } from './options.ts'

const REQUEST_TIMEOUT_MS = 6_000
const COORDINATOR_LIMIT_MS = 6_000
const COORDINATOR_RETRY_MS = 200
export const EARLIEST = -2
export const LATEST = -1

export interface TopicFacts {
  topicId: string
  /** Node that leads each partition; -1 while there is none. */
  leaders: number[]
}

export interface ClusterMetadata {
  topics: Map<string, TopicFacts>
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

  /** Fresh facts about those of the topics that exist. */
  async facts(names: readonly string[]): Promise<ClusterMetadata> {
    const facts: ClusterMetadata = { topics: new Map(), brokers: new Map() }
    try {
      await this.#factsInto(facts, [...names])
    } catch (error) {
      if (!isNotThere(error)) throw error
      facts.topics.clear()
      for (const name of names) {
        await this.#factsInto(facts, [name]).catch((each) => {
          if (!isNotThere(each)) throw each
        })
      }
    }
    return facts
  }

  async #factsInto(facts: ClusterMetadata, names: string[]): Promise<void> {
    const metadata = await this.admin.metadata({ topics: names, forceUpdate: true, retries: 0 })
    facts.brokers = metadata.brokers
    for (const name of names) {
      const topic = metadata.topics.get(name)
      if (topic) facts.topics.set(name, { topicId: topic.id, leaders: topic.partitions.map((each) => each.leader) })
    }
  }

  /** Offset per `partitionKey`: EARLIEST, LATEST or the first at or after an instant; -1 when there is none after it. */
  async offsets(partitions: readonly TopicPartition[], timestampMs: number): Promise<Map<string, number>> {
    const offsets = new Map<string, number>()
    if (partitions.length === 0) return offsets
    const topics = [...Map.groupBy(partitions, (each) => each.topic)].map(([name, own]) => ({
      name,
      partitions: own.map((each) => ({ partitionIndex: each.partition, timestamp: BigInt(timestampMs) })),
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
    const topics = [...Map.groupBy(partitions, (each) => each.topic)].map(([name, own]) => ({
      name,
      partitionIndexes: own.map((each) => each.partition),
    }))
    const answer = await whileCoordinatorComes(() =>
      this.admin.listConsumerGroupOffsets({ groups: [{ groupId: group, topics }] }),
    )
    for (const topic of answer.flatMap((each) => each.topics)) {
      for (const { partitionIndex, committedOffset } of topic.partitions) {
        if (committedOffset < 0n) continue
        offsets.set(partitionKey({ topic: topic.name, partition: partitionIndex }), Number(committedOffset))
      }
    }
    return offsets
  }

  /** What is needed to decide where to start each partition. */
  async describe(
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

  /** The group as its coordinator describes it; one that never was has no members. */
  async group(group: string): Promise<Group | undefined> {
    const groups = await whileCoordinatorComes(() => this.admin.describeGroups({ groups: [group] }))
    return groups.get(group)
  }

  async memberCount(group: string): Promise<number> {
    return (await this.group(group))?.members.size ?? 0
  }

  async setCommitted(group: string, positions: readonly Position[]): Promise<void> {
    const topics = [...Map.groupBy(positions, (each) => each.topic)].map(([name, own]) => ({
      name,
      partitionOffsets: own.map(({ partition, offset }) => ({ partition, offset: BigInt(offset) })),
    }))
    await whileCoordinatorComes(() => this.admin.alterConsumerGroupOffsets({ groupId: group, topics }))
  }

  /** Highest version of the Fetch request that the cluster speaks. */
  async fetchVersion(): Promise<number> {
    const apis = await this.admin.listApis()
    return apis.find((each) => each.name === 'Fetch')?.maxVersion ?? 0
  }

  async close(): Promise<void> {
    await this.admin.close()
  }
}

function isNotThere(error: unknown): boolean {
  // A topic that was made a moment ago has no leaders yet; it is there for us when it can be read.
  return isUnknownTopic(error) || hasApiId(error, 'LEADER_NOT_AVAILABLE')
}

/** A cluster makes its table of groups when it is first asked for one; until then it says to come back. */
async function whileCoordinatorComes<T>(ask: () => Promise<T>): Promise<T> {
  const startedMs = performance.now()
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      const coming = hasApiId(error, 'COORDINATOR_NOT_AVAILABLE', 'COORDINATOR_LOAD_IN_PROGRESS', 'NOT_COORDINATOR')
      if (!coming || performance.now() - startedMs > COORDINATOR_LIMIT_MS) throw error
      await new Promise((resolve) => setTimeout(resolve, COORDINATOR_RETRY_MS))
    }
  }
}
