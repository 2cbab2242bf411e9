// Kafka's Fetch request in the versions that brokers of 2.7 and later speak, over the library's public connections,
// with our own reading of the response (record-batch.ts). No fetch sessions: a request names all that it wants, so
// nothing has to be undone when partitions come and go.
// Format: https://kafka.apache.org/39/protocol.html#The_Messages_Fetch

import {
  type Connection,
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
import type { PartitionState } from './partition-state.ts'
import type { AbortedTransaction } from './record-batch.ts'

const FETCH = 1
const MAX_WAIT_MS = 250
const MIN_BYTES = 1
const READ_COMMITTED = 1
const NO_SESSION = [0, -1] as const

/** What a broker returned for one partition. */
export interface FetchedPartition {
  /** The topic's id, its name with Kafka before 3.1. */
  topicKey: string
  partition: number
  errorCode: number
  highWatermark: number
  /** Up to where transactions are decided; nothing beyond it is returned. */
  lastStableOffset: number
  aborted: AbortedTransaction[]
  records: Buffer | null
}

export interface FetchResponse {
  errorCode: number
  partitions: FetchedPartition[]
}

type FetchApi = ReturnType<typeof createAPI<unknown[], FetchResponse>>

// Versions 12 to 17 differ in what is requested and in tagged fields; the responses look alike except for the topic's
// name.
const APIS: FetchApi[] = [fetchV12, fetchV13, fetchV14, fetchV15, fetchV16, fetchV17].map(({ createRequest, api }) =>
  createAPI<unknown[], FetchResponse>(FETCH, api.version, createRequest, (_correlationId, _apiKey, version, reader) =>
    readResponse(reader, version),
  ),
)

/** The newest version that both sides speak. Throws a LogError when there is none. */
export function fetchApi(maxVersion: number): FetchApi {
  const api = APIS.findLast(({ version }) => version <= maxVersion)
  if (api) return api
  throw new LogError(`Cannot read from Kafka: it speaks Fetch v${maxVersion}, at least v12 (Kafka 2.7) is needed`, {
    retriable: false,
  })
}

/** How responses of a version name a topic. */
export function topicKeyOf(api: FetchApi, { topic, topicId }: { topic: string; topicId: string }): string {
  return (api.version ?? 13) >= 13 ? topicId : topic
}

/** Sends one request for these partitions from their `fetchOffset` on. */
export function sendFetch(
  api: FetchApi,
  connection: Connection,
  states: readonly PartitionState[],
  limits: { maxBytes: number; maxBytesPerPartition: number },
): Promise<FetchResponse> {
  const topics = [...Map.groupBy(states, (state) => topicKeyOf(api, state))].map(([topicId, own]) => ({
    topicId,
    partitions: own.map(({ partition, fetchOffset }) => ({
      partition,
      currentLeaderEpoch: -1,
      fetchOffset: BigInt(fetchOffset),
      lastFetchedEpoch: -1,
      partitionMaxBytes: limits.maxBytesPerPartition,
    })),
  }))
  const { maxBytes } = limits
  return api.async(connection, MAX_WAIT_MS, MIN_BYTES, maxBytes, READ_COMMITTED, ...NO_SESSION, topics, [], '')
}

function readResponse(reader: Reader, version: number): FetchResponse {
  reader.readInt32() // throttle time
  const errorCode = reader.readInt16()
  reader.readInt32() // session id
  const topics = reader.readArray((topic) => {
    const topicKey = version >= 13 ? topic.readUUID() : topic.readString()
    return topic.readArray((partition) => readPartition(partition, topicKey))
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
  const aborted =
    r.readNullableArray((entry) => ({ producerId: entry.readInt64(), firstOffset: entry.readInt64() })) ?? []
  r.readInt32() // preferred read replica
  return { ...head, aborted, records: r.readNullableBytes() }
}
