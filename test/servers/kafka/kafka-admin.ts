// What tests ask a Kafka broker for beside what they test: is it up, make and delete a topic, where does each partition
// end. A fresh client per call, closed at its end: nothing is cached over a broker's restart and nothing keeps the
// process alive. Creating a topic resolves when every partition's leader answers, so that a test may write at once.

import { pbkdf2Sync, randomBytes } from 'node:crypto'
import {
  AclOperations,
  AclPermissionTypes,
  Admin,
  alterUserScramCredentialsV0,
  ResourcePatternTypes,
  ResourceTypes,
  ScramMechanisms,
} from '@platformatic/kafka'
import { untilAnswered } from '../managed-server.ts'

export type TopicOptions = { partitions?: number; configs?: Readonly<Record<string, string>> }
/** First and next offset of a partition. */
export type PartitionRange = { partition: number; earliest: bigint; latest: bigint }

const LEADER_TIMEOUT_MS = 30_000

/** One metadata round trip: the cluster's id. Rejects unless the broker counts itself as part of the cluster. */
export async function askKafka(bootstrap: string): Promise<string> {
  return withAdmin(bootstrap, { retries: 0, timeout: 1_000 }, async (admin) => {
    const { brokers, id } = await admin.metadata({ topics: [], retries: 0 })
    if (brokers.size === 0) throw new Error(`Cannot use broker at "${bootstrap}": not registered yet`)
    return id
  })
}

export async function createTopic(bootstrap: string, topic: string, options: TopicOptions = {}): Promise<void> {
  const partitions = options.partitions ?? 1
  const configs = Object.entries(options.configs ?? {}).map(([name, value]) => ({ name, value }))
  await withAdmin(bootstrap, {}, (admin) => admin.createTopics({ topics: [topic], partitions, replicas: 1, configs }))
  // A leader that metadata names may not know of it yet and refuses; the client's own retry would take a second.
  await withAdmin(bootstrap, { retries: 0 }, (admin) =>
    untilAnswered(async () => {
      const ranges = await rangesOf(admin, topic)
      if (ranges.length !== partitions) throw new Error(`Cannot use topic "${topic}": ${ranges.length} partitions`)
    }, LEADER_TIMEOUT_MS),
  )
}

export async function deleteTopic(bootstrap: string, topic: string): Promise<void> {
  await withAdmin(bootstrap, {}, (admin) => admin.deleteTopics({ topics: [topic] }))
}

export async function listOffsets(bootstrap: string, topic: string): Promise<PartitionRange[]> {
  return withAdmin(bootstrap, {}, (admin) => rangesOf(admin, topic))
}

const SCRAM_ITERATIONS = 4096

/** Makes a user of SASL SCRAM, or gives it another password, or (null) removes it: for both hashes. */
export async function setScramUser(bootstrap: string, name: string, password: string | null): Promise<void> {
  const mechanisms = [
    [ScramMechanisms.SCRAM_SHA_256, 'sha256', 32],
    [ScramMechanisms.SCRAM_SHA_512, 'sha512', 64],
  ] as const
  const salt = randomBytes(16)
  const changes = mechanisms.map(([mechanism, hash, length]) => ({
    name,
    mechanism,
    iterations: SCRAM_ITERATIONS,
    salt,
    saltedPassword: pbkdf2Sync(password ?? '', salt, SCRAM_ITERATIONS, length, hash),
  }))
  await withAdmin(bootstrap, {}, async (admin) => {
    const [[, connection]] = (await admin.connectToBrokers()) as unknown as [[number, never]]
    const { async: change } = alterUserScramCredentialsV0.api
    // The broker takes one change of a user in a request.
    for (const each of changes)
      await (password === null ? change(connection, [each], []) : change(connection, [], [each]))
  })
}

export type KafkaRight = {
  resource: 'TOPIC' | 'GROUP'
  /** `*` for all. */
  name: string
  operation: 'READ' | 'WRITE' | 'CREATE' | 'DESCRIBE'
}

/** Grants rights to a user, from any host. */
export async function allow(bootstrap: string, user: string, rights: readonly KafkaRight[]): Promise<void> {
  const creations = rights.map(({ resource, name, operation }) => ({
    resourceType: ResourceTypes[resource],
    resourceName: name,
    resourcePatternType: ResourcePatternTypes.LITERAL,
    principal: `User:${user}`,
    host: '*',
    operation: AclOperations[operation],
    permissionType: AclPermissionTypes.ALLOW,
  }))
  await withAdmin(bootstrap, {}, (admin) => admin.createAcls({ creations }))
}

async function rangesOf(admin: Admin, topic: string): Promise<PartitionRange[]> {
  const { topics } = await admin.metadata({ topics: [topic], forceUpdate: true })
  const count = topics.get(topic)?.partitionsCount ?? 0
  const ask = async (timestamp: bigint) => {
    const partitions = Array.from({ length: count }, (_, partitionIndex) => ({ partitionIndex, timestamp }))
    const listed = await admin.listOffsets({ topics: [{ name: topic, partitions }] })
    return new Map(
      listed.flatMap((found) => found.partitions.map((partition) => [partition.partitionIndex, partition.offset])),
    )
  }
  // The protocol's names for the first and the next offset.
  const [earliest, latest] = [await ask(-2n), await ask(-1n)]
  return Array.from({ length: count }, (_, partition) => {
    const range = { partition, earliest: earliest.get(partition), latest: latest.get(partition) }
    if (range.earliest === undefined || range.latest === undefined) {
      throw new Error(`Cannot list offsets of "${topic}": no answer for partition ${partition}`)
    }
    return range as PartitionRange
  })
}

type AdminTuning = { retries?: number; timeout?: number }

async function withAdmin<T>(bootstrap: string, tuning: AdminTuning, use: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = new Admin({
    clientId: 'pertoken-test-admin',
    bootstrapBrokers: [bootstrap],
    connectTimeout: 2_000,
    ...tuning,
  })
  try {
    return await use(admin)
  } finally {
    await admin.close()
  }
}
