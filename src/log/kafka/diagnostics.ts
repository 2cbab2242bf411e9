// Kafka for `doctor` and the disk check, besides the records: whether each broker is reachable at the address that it
// advertises, who is in a group and how they share partitions, how full the brokers' disks are, and the newest record's
// time. Read only. Throws LogErrors; what a broker does not report about disks and times (an old one, or no right to
// request it) is left out.

import { setTimeout as sleep } from 'node:timers/promises'
import type { GroupMember } from '@platformatic/kafka'
import { KafkaCluster } from './cluster.ts'
import { toLogError } from './errors.ts'
import { KafkaLog } from './kafka-log.ts'
import { COLOCATED } from './membership/membership.ts'
import { type KafkaLogOptions, kafkaSettings } from './options.ts'

/** The timestamp that requests the largest record time, KIP-734: Kafka 3.0 and later. */
const MAX_TIMESTAMP = -3n
const SETTLED_LIMIT_MS = 3_000
const SETTLED_POLL_MS = 200

export interface BrokerStatus {
  /** host:port, as the broker advertises it. */
  address: string
  node: number
  /** Why it cannot be used at that address; null when it can. */
  fault: string | null
}

export interface GroupStatus {
  members: number
  /** Members whose assignor is not ours, as `client at host (assignor)`. */
  incompatible: string[]
}

export interface KafkaDisk {
  node: number
  directory: string
  freeBytes: number
  totalBytes: number
}

/** Requests all brokers from the bootstrap servers, and pings each at its advertised address. */
export async function probeBrokers(options: KafkaLogOptions): Promise<BrokerStatus[]> {
  const brokers = await withCluster(options, async (cluster) => (await cluster.metadata([])).brokers)
  return Promise.all(
    [...brokers].map(async ([node, { host, port }]) => {
      const address = `${host.includes(':') ? `[${host}]` : host}:${port}`
      return { address, node, fault: await faultAt({ ...options, bootstrap: address }) }
    }),
  )
}

async function faultAt(options: KafkaLogOptions): Promise<string | null> {
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

/** A group has no assignor while it rebalances, so the end of a rebalance is awaited, briefly. */
export async function probeGroup(options: KafkaLogOptions, group: string): Promise<GroupStatus> {
  return withCluster(options, async (cluster) => {
    for (const untilMs = performance.now() + SETTLED_LIMIT_MS; ; await sleep(SETTLED_POLL_MS)) {
      const described = await cluster.group(group)
      const { protocol = '', members = new Map<string, GroupMember>() } = described ?? {}
      if (protocol === '' && members.size > 0 && performance.now() < untilMs) continue
      const incompatible = [...members.values()].filter((member) => isIncompatible(member, protocol, options))
      return { members: members.size, incompatible: incompatible.map((member) => describe(member, protocol)) }
    }
  })
}

function isIncompatible({ clientId }: GroupMember, protocol: string, options: KafkaLogOptions): boolean {
  return protocol === '' ? clientId !== kafkaSettings(options).clientId : protocol !== COLOCATED
}

function describe({ clientId, clientHost }: GroupMember, protocol: string): string {
  const assignor = protocol === '' ? '' : ` (${protocol})`
  // The broker puts a slash before the address, as Java prints it.
  return `${clientId} at ${clientHost.replace(/^\//, '')}${assignor}`
}

/** Disks of the brokers; empty where they are not reported (before Kafka 3.3, or no right to request them). */
export async function probeDisks(options: KafkaLogOptions, topics: readonly string[]): Promise<KafkaDisk[]> {
  try {
    return await withCluster(options, async (cluster) => {
      const requested = topics.map((name) => ({ name, partitions: [0] }))
      const responses = await cluster.admin.describeLogDirs({ topics: requested })
      return responses.flatMap(({ broker, results }) =>
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

/** The largest record time of the topics, epoch milliseconds; null where there is none or it is not reported. */
export async function newestRecordMs(options: KafkaLogOptions, topics: readonly string[]): Promise<number | null> {
  try {
    return await withCluster(options, async (cluster) => {
      const metadata = await cluster.metadata(topics)
      const requested = [...metadata.topics].map(([name, { leaders }]) => ({
        name,
        partitions: leaders.map((_, partitionIndex) => ({ partitionIndex, timestamp: MAX_TIMESTAMP })),
      }))
      if (requested.length === 0) return null
      const responses = await cluster.admin.listOffsets({ topics: requested })
      const times = responses.flatMap(({ partitions }) => partitions.map(({ timestamp }) => Number(timestamp)))
      const newest = Math.max(...times)
      return newest >= 0 ? newest : null
    })
  } catch {
    return null
  }
}

async function withCluster<T>(options: KafkaLogOptions, request: (cluster: KafkaCluster) => Promise<T>): Promise<T> {
  const settings = kafkaSettings(options)
  const cluster = new KafkaCluster(settings)
  try {
    return await request(cluster)
  } catch (error) {
    throw toLogError('Cannot query Kafka', error, settings)
  } finally {
    await cluster.close()
  }
}
