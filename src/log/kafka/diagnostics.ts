// What a person wants to know of a Kafka cluster when something is wrong, beside the records: whether each broker can be
// reached at the address that it tells clients, who is in a group and how they share partitions, how full the brokers'
// disks are, and the newest record's time. Read only. Throws LogErrors; what a broker does not tell about disks and times
// (an old one, or no right to ask) is left out.

import { setTimeout as sleep } from 'node:timers/promises'
import type { GroupMember } from '@platformatic/kafka'
import { KafkaCluster } from './cluster.ts'
import { toLogError } from './errors.ts'
import { KafkaLog } from './kafka-log.ts'
import { COLOCATED } from './membership/colocated-assigner.ts'
import { type KafkaLogOptions, kafkaSettings } from './options.ts'

/** Broker's answer to "the largest record time", KIP-734: Kafka 3.0 and later. */
const MAX_TIMESTAMP = -3n
const SETTLED_LIMIT_MS = 3_000
const SETTLED_POLL_MS = 200

export interface BrokerFacts {
  /** host:port, as the broker advertises it. */
  address: string
  node: number
  /** Why it cannot be used at that address; null when it can. */
  problem: string | null
}

export interface GroupFacts {
  members: number
  /** Members that share partitions in another way than ours do, as `client at host (assignor)`. */
  others: string[]
}

export interface KafkaDisk {
  node: number
  directory: string
  freeBytes: number
  totalBytes: number
}

/** Asks the bootstrap servers for all brokers, and each of them whether it answers at its own address. */
export async function probeBrokers(options: KafkaLogOptions): Promise<BrokerFacts[]> {
  const brokers = await withCluster(options, async (cluster) => (await cluster.facts([])).brokers)
  return Promise.all(
    [...brokers].map(async ([node, { host, port }]) => {
      const address = `${host.includes(':') ? `[${host}]` : host}:${port}`
      return { address, node, problem: await problemAt({ ...options, bootstrap: address }) }
    }),
  )
}

async function problemAt(options: KafkaLogOptions): Promise<string | null> {
  const log = new KafkaLog(options)
  try {
    await log.ping()
    return null
  } catch (error) {
    return (error as Error).message.replace(/^Cannot reach Kafka(?: at \S+)?: /, '')
  } finally {
    await log.close()
  }
}

/** A group names how it shares partitions only while it is not just sharing them out, so that is waited for, briefly. */
export async function probeGroup(options: KafkaLogOptions, group: string): Promise<GroupFacts> {
  return withCluster(options, async (cluster) => {
    for (const untilMs = performance.now() + SETTLED_LIMIT_MS; ; await sleep(SETTLED_POLL_MS)) {
      const found = await cluster.group(group)
      const { protocol = '', members = new Map<string, GroupMember>() } = found ?? {}
      if (protocol === '' && members.size > 0 && performance.now() < untilMs) continue
      const others = [...members.values()].filter((member) => isOther(member, protocol, options))
      return { members: members.size, others: others.map((member) => describe(member, protocol)) }
    }
  })
}

function isOther({ clientId }: GroupMember, protocol: string, options: KafkaLogOptions): boolean {
  return protocol === '' ? clientId !== kafkaSettings(options).clientId : protocol !== COLOCATED
}

function describe({ clientId, clientHost }: GroupMember, protocol: string): string {
  const shares = protocol === '' ? '' : ` (${protocol})`
  // The broker puts a slash before the address, as Java prints it.
  return `${clientId} at ${clientHost.replace(/^\//, '')}${shares}`
}

/** Disks of the brokers; empty where they do not tell (before Kafka 3.3, or no right to ask). */
export async function probeDisks(options: KafkaLogOptions, topics: readonly string[]): Promise<KafkaDisk[]> {
  try {
    return await withCluster(options, async (cluster) => {
      const asked = topics.map((name) => ({ name, partitions: [0] }))
      const answers = await cluster.admin.describeLogDirs({ topics: asked })
      return answers.flatMap(({ broker, results }) =>
        results
          .map(({ logDir, usableBytes, totalBytes }) => {
            return { node: broker, directory: logDir, freeBytes: Number(usableBytes), totalBytes: Number(totalBytes) }
          })
          .filter(({ totalBytes }) => totalBytes > 0),
      )
    })
  } catch {
    return []
  }
}

/** The largest record time of the topics, epoch milliseconds; null where there is none or the broker does not tell. */
export async function newestRecordMs(options: KafkaLogOptions, topics: readonly string[]): Promise<number | null> {
  try {
    return await withCluster(options, async (cluster) => {
      const { topics: there } = await cluster.facts(topics)
      const asked = [...there].map(([name, { leaders }]) => ({
        name,
        partitions: leaders.map((_, partitionIndex) => ({ partitionIndex, timestamp: MAX_TIMESTAMP })),
      }))
      if (asked.length === 0) return null
      const answers = await cluster.admin.listOffsets({ topics: asked })
      const times = answers.flatMap(({ partitions }) => partitions.map(({ timestamp }) => Number(timestamp)))
      const newest = Math.max(...times)
      return newest >= 0 ? newest : null
    })
  } catch {
    return null
  }
}

async function withCluster<T>(options: KafkaLogOptions, ask: (cluster: KafkaCluster) => Promise<T>): Promise<T> {
  const settings = kafkaSettings(options)
  const cluster = new KafkaCluster(settings)
  try {
    return await ask(cluster)
  } catch (error) {
    throw toLogError('Cannot look at Kafka', error, settings)
  } finally {
    await cluster.close()
  }
}
