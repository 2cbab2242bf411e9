// Asks a broker for records: Kafka's Fetch request over the library's public connections, with our own reading of the
// answer (record-batch.ts). Connections of its own, since a broker answers one request per connection at a time and a
// JoinGroup on the same one would hold up all reading for as long as a rebalance takes. No fetch sessions: a request
// names all that it wants, so nothing has to be unwound when partitions come and go.

import {
  type Broker,
  ConnectionPool,
  createAPI,
  fetchV12,
  fetchV13,
  fetchV14,
  fetchV15,
  fetchV16,
  fetchV17,
  type Reader,
} from '@platformatic/kafka'
import { LogError } from '../event-log.ts'
import { baseOptions, type KafkaSettings } from './options.ts'
import type { AbortedTransaction } from './record-batch.ts'

const FETCH = 1
const MAX_WAIT_MS = 250
const MIN_BYTES = 1
const READ_COMMITTED = 1
const REQUEST_TIMEOUT_MS = 10_000

export interface FetchWish {
  topic: string
  topicId: string
  partition: number
  fetchOffset: number
}

export interface FetchLimits {
  maxBytes: number
  maxBytesPerPartition: number
}

/** What a broker answered for one partition. */
export interface FetchedPartition {
  /** The topic's id, its name with Kafka before 3.1. */
  topicKey: string
  partition: number
  errorCode: number
  highWatermark: number
  /** Up to where transactions are decided; nothing beyond it is given out. */
  lastStableOffset: number
  aborted: AbortedTransaction[]
  records: Buffer | null
}

export interface FetchAnswer {
  errorCode: number
  partitions: FetchedPartition[]
}

type FetchApi = ReturnType<typeof createAPI<unknown[], FetchAnswer>>

export class Fetcher {
  readonly #settings: KafkaSettings
  #pool: ConnectionPool
  #api: FetchApi | null = null
  #closed = false

  constructor(settings: KafkaSettings) {
    this.#settings = settings
    this.#pool = this.#newPool()
  }

  /** Picks the protocol version from what the brokers say that they speak. */
  useVersion(maxVersion: number): void {
    const api = APIS.findLast((each) => each.version <= maxVersion)
    if (!api) {
      throw new LogError(`Cannot read from Kafka: it speaks Fetch v${maxVersion}, at least v12 (Kafka 2.7) is needed`, {
        retriable: false,
      })
    }
    this.#api = api
  }

  get ready(): boolean {
    return this.#api !== null
  }

  /** How answers name a topic. */
  topicKeyOf(wish: { topic: string; topicId: string }): string {
    return (this.#api?.version ?? 13) >= 13 ? wish.topicId : wish.topic
  }

  async fetch(broker: Broker, wishes: readonly FetchWish[], limits: FetchLimits): Promise<FetchAnswer> {
    const api = this.#api
    if (!api) throw new LogError('Cannot read from Kafka: its protocol version is not known yet', { retriable: true })
    const topics = new Map<string, { topicId: string; partitions: object[] }>()
    for (const wish of wishes) {
      const topicId = this.topicKeyOf(wish)
      const topic = topics.get(topicId) ?? { topicId, partitions: [] }
      topics.set(topicId, topic)
      topic.partitions.push({
        partition: wish.partition,
        currentLeaderEpoch: -1,
        fetchOffset: BigInt(wish.fetchOffset),
        lastFetchedEpoch: -1,
        partitionMaxBytes: limits.maxBytesPerPartition,
      })
    }
    const connection = await this.#pool.get(broker)
    const noSession = [0, -1] as const
    return await api.async(
      connection,
      MAX_WAIT_MS,
      MIN_BYTES,
      limits.maxBytes,
      READ_COMMITTED,
      ...noSession,
      [...topics.values()],
      [],
      '',
    )
  }

  /** Starts with new connections: after a time-out the library's connection is out of step with its broker. */
  reset(): void {
    if (this.#closed) return
    const old = this.#pool
    this.#pool = this.#newPool()
    old.close().catch(() => {})
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#pool.close()
  }

  #newPool(): ConnectionPool {
    return new ConnectionPool(this.#settings.clientId, baseOptions(this.#settings, REQUEST_TIMEOUT_MS))
  }
}

// Versions 12 to 17 differ in what is asked and in tagged fields; the answers look alike except for the topic's name.
const APIS: FetchApi[] = [fetchV12, fetchV13, fetchV14, fetchV15, fetchV16, fetchV17].map(({ createRequest, api }) =>
  createAPI<unknown[], FetchAnswer>(FETCH, api.version, createRequest, (_correlationId, _apiKey, version, reader) =>
    readAnswer(reader, version),
  ),
)

function readAnswer(reader: Reader, version: number): FetchAnswer {
  reader.readInt32() // throttle time
  const errorCode = reader.readInt16()
  reader.readInt32() // session id
  const topics = reader.readArray((r) => {
    const topicKey = version >= 13 ? r.readUUID() : r.readString()
    return r.readArray((each) => readPartition(each, topicKey))
  })
  return { errorCode, partitions: topics.flat() }
}

function readPartition(r: Reader, topicKey: string): FetchedPartition {
  const head = {
    topicKey,
    partition: r.readInt32(),
    errorCode: r.readInt16(),
    highWatermark: Number(r.readInt64()),
    lastStableOffset: Number(r.readInt64()),
  }
  r.readInt64() // log start offset
  const aborted = r.readNullableArray((each) => ({ producerId: each.readInt64(), firstOffset: each.readInt64() })) ?? []
  r.readInt32() // preferred read replica
  return { ...head, aborted, records: r.readNullableBytes() }
}
