// Appends records, acknowledged by all replicas. Not idempotent in Kafka's sense on purpose: a caller repeats what
// failed and readers see the same ids, so producer ids would add a permission and a state to lose, and protect nothing.
// The library's retries are off: it would repeat whole requests, part of which was accepted. A broker limits the size
// of a batch per partition, so a call is cut into requests below the limit; a batch that is rejected as too large is
// halved until one record is left, and that record is named.

import { setTimeout as sleep } from 'node:timers/promises'
import { type MessageToProduce, ProduceAcks, Producer } from '@platformatic/kafka'
import { LogError, type NewRecord } from '../event-log.ts'
import { partitionForKey, StickyPartitioner } from '../partitioner.ts'
import { explain, toLogError } from './errors.ts'
import { baseOptions, type KafkaSettings } from './options.ts'

const REQUEST_TIMEOUT_MS = 15_000
// Kafka's default limit is 1 MiB for a batch.
const MAX_BYTES_PER_PARTITION = 900_000
const MAX_BYTES_PER_REQUEST = 8 << 20
const RECORD_OVERHEAD_BYTES = 24
// MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE
const TOO_LARGE_CODES = [10, 18]
// UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER: nothing was accepted, and the same records
// may be sent to another broker or a moment later. Some partitions of a new topic respond so while others accept their
// records.
const NO_LEADER_CODES = [3, 5, 6]
const NO_LEADER_LIMIT_MS = 5_000
const NO_LEADER_PAUSE_MS = 100

interface RoutedRecord {
  index: number
  partition: number
  bytes: number
  message: MessageToProduce<Buffer, Buffer, Buffer, Buffer>
}

export class KafkaProducer {
  readonly #producer: Producer<Buffer, Buffer, Buffer, Buffer>
  readonly #sticky = new StickyPartitioner()
  readonly #settings: KafkaSettings

  constructor(settings: KafkaSettings) {
    this.#settings = settings
    this.#producer = new Producer({
      ...baseOptions(settings, REQUEST_TIMEOUT_MS),
      acks: ProduceAcks.ALL,
      idempotent: false,
      // It would resend what other partitions of the same request have accepted.
      repeatOnStaleMetadata: false,
    })
  }

  async append(topic: string, records: readonly NewRecord[]): Promise<void> {
    if (records.length === 0) return
    try {
      const routed = this.#route(topic, records, await this.#partitionCount(topic))
      for (const request of requestsOf(routed)) await this.#send(topic, request)
    } catch (error) {
      throw toLogError(`Cannot append to topic "${topic}"`, error, this.#settings)
    }
  }

  async close(): Promise<void> {
    await this.#producer.close()
  }

  async #partitionCount(topic: string): Promise<number> {
    const metadata = await this.#producer.metadata({ topics: [topic] })
    return metadata.topics.get(topic)?.partitionsCount ?? 1
  }

  #route(topic: string, records: readonly NewRecord[], partitions: number): RoutedRecord[] {
    this.#sticky.nextPartition()
    return records.map((record, index) => {
      const key = typeof record.key === 'string' ? Buffer.from(record.key) : record.key
      const partition =
        record.partition ?? (key === null ? this.#sticky.partition(partitions) : partitionForKey(key, partitions))
      if (!(partition >= 0 && partition < partitions)) {
        throw new LogError(`Cannot append to topic "${topic}": it has no partition ${partition}, only ${partitions}`, {
          retriable: false,
        })
      }
      let bytes = (key?.length ?? 0) + (record.value?.length ?? 0) + RECORD_OVERHEAD_BYTES
      // To the library an absent field is null; its types do not allow null.
      const message: RoutedRecord['message'] = { topic, partition }
      if (key !== null) message.key = key
      if (record.value !== null) message.value = record.value
      if (record.headers !== undefined) {
        const headers = new Map<Buffer, Buffer>()
        for (const [name, value] of Object.entries(record.headers)) {
          const header = [Buffer.from(name), typeof value === 'string' ? Buffer.from(value) : value] as const
          bytes += header[0].length + header[1].length + 4
          headers.set(...header)
        }
        message.headers = headers
      }
      return { index, partition, bytes, message }
    })
  }

  async #send(topic: string, records: RoutedRecord[]): Promise<void> {
    const startedMs = performance.now()
    for (let pending = records; pending.length > 0; ) {
      try {
        await this.#producer.send({ messages: pending.map(({ message }) => message) })
        return
      } catch (error) {
        // Batches that were accepted are not sent again: a record without an id of its own would be in the log twice.
        const rejected = rejectedPartitions(error)
        if (rejected === null) throw error
        const byPartition = Map.groupBy(pending, ({ partition }) => partition)
        pending = []
        for (const [partition, batch] of byPartition) {
          const errorCode = rejected.get(partition) ?? 0
          if (TOO_LARGE_CODES.includes(errorCode)) await this.#sendHalves(topic, batch, error)
          else if (errorCode !== 0) pending.push(...batch)
        }
        const mayPass = pending.every(({ partition }) => NO_LEADER_CODES.includes(rejected.get(partition)!))
        if (!mayPass || performance.now() - startedMs > NO_LEADER_LIMIT_MS) throw error
        if (pending.length > 0) await sleep(NO_LEADER_PAUSE_MS)
        this.#producer.clearMetadata()
      }
    }
  }

  async #sendHalves(topic: string, records: RoutedRecord[], error: unknown): Promise<void> {
    if (records.length === 1) {
      const { index, bytes } = records[0]!
      throw new LogError(
        `Cannot append record ${index} to topic "${topic}": its ${bytes} bytes are over the limit of the broker (${explain(error, this.#settings)})`,
        { retriable: false, cause: error },
      )
    }
    const middle = Math.ceil(records.length / 2)
    await this.#send(topic, records.slice(0, middle))
    await this.#send(topic, records.slice(middle))
  }
}

/** Cuts a call so that no partition's batch, and no request, is over its limit. Order per partition is kept. */
function* requestsOf(records: readonly RoutedRecord[]): Generator<RoutedRecord[]> {
  let request: RoutedRecord[] = []
  let bytes = 0
  let bytesByPartition = new Map<number, number>()
  for (const record of records) {
    const batchBytes = (bytesByPartition.get(record.partition) ?? 0) + record.bytes
    const isFull = batchBytes > MAX_BYTES_PER_PARTITION || bytes + record.bytes > MAX_BYTES_PER_REQUEST
    if (request.length > 0 && isFull) {
      yield request
      request = []
      bytes = 0
      bytesByPartition = new Map()
    }
    request.push(record)
    bytes += record.bytes
    bytesByPartition.set(record.partition, (bytesByPartition.get(record.partition) ?? 0) + record.bytes)
  }
  if (request.length > 0) yield request
}

interface ProduceFailure {
  code?: string
  errors?: unknown[]
  response?: { responses?: { partitionResponses: { index: number; errorCode: number }[] }[] }
}

/** Error code of each partition whose batch was rejected; null when it is unknown what was accepted. */
function rejectedPartitions(error: unknown): Map<number, number> | null {
  const rejected = new Map<number, number>()
  for (const failure of perBroker(error as ProduceFailure)) {
    const topics = failure.code === 'PLT_KFK_RESPONSE' ? failure.response?.responses : undefined
    if (!topics) return null
    for (const { index, errorCode } of topics.flatMap(({ partitionResponses }) => partitionResponses)) {
      if (errorCode !== 0) rejected.set(index, errorCode)
    }
  }
  return rejected.size > 0 ? rejected : null
}

function perBroker(failure: ProduceFailure): ProduceFailure[] {
  if (failure.code !== 'PLT_KFK_MULTIPLE') return [failure]
  return (failure.errors ?? []).flatMap((error) => perBroker(error as ProduceFailure))
}
