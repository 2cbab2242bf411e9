// Appends records, acknowledged by all replicas. Not idempotent in Kafka's sense on purpose: a caller repeats what failed
// and readers see the same ids, so producer ids would add a permission and a state to lose, and protect nothing; and the
// library does not repeat a request by itself here: it would repeat whole requests, of which a part was taken.
// A broker takes batches up to a limit per partition, so a call is cut into rounds below it; a batch that is refused as
// too large is halved until one record is left, and that record is named.

import { type MessageToProduce, ProduceAcks, Producer } from '@platformatic/kafka'
import { LogError, type NewRecord } from '../event-log.ts'
import { partitionForKey, StickyTurns } from '../partitioner.ts'
import { explain, toLogError } from './errors.ts'
import { baseOptions, type KafkaSettings } from './options.ts'

const REQUEST_TIMEOUT_MS = 15_000
// Kafka's default limit is 1 MiB for a batch.
const MAX_BYTES_PER_PARTITION = 900_000
const MAX_BYTES_PER_ROUND = 8 << 20
const RECORD_OVERHEAD_BYTES = 24
// MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE
const TOO_LARGE_CODES = [10, 18]
// UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER: nothing was taken, another broker or a
// moment later will do. A new topic answers so for some of its partitions while others take their records.
const NOT_TAKEN_CODES = [3, 5, 6]
const NOT_TAKEN_LIMIT_MS = 5_000
const NOT_TAKEN_PAUSE_MS = 100

interface Placed {
  index: number
  partition: number
  bytes: number
  message: MessageToProduce<Buffer, Buffer, Buffer, Buffer>
}

export class KafkaProducer {
  readonly #producer: Producer<Buffer, Buffer, Buffer, Buffer>
  readonly #turns = new StickyTurns()
  readonly #settings: KafkaSettings

  constructor(settings: KafkaSettings) {
    this.#settings = settings
    this.#producer = new Producer({
      ...baseOptions(settings, REQUEST_TIMEOUT_MS),
      acks: ProduceAcks.ALL,
      idempotent: false,
      // It would send again what other partitions of the same request have taken.
      repeatOnStaleMetadata: false,
    })
  }

  async append(topic: string, records: readonly NewRecord[]): Promise<void> {
    if (records.length === 0) return
    try {
      const placed = this.#place(topic, records, await this.#partitionCount(topic))
      for (const round of rounds(placed)) await this.#send(topic, round)
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

  #place(topic: string, records: readonly NewRecord[], partitions: number): Placed[] {
    this.#turns.nextRun()
    return records.map((record, index) => {
      const key = typeof record.key === 'string' ? Buffer.from(record.key) : record.key
      const partition =
        record.partition ?? (key === null ? this.#turns.partition(partitions) : partitionForKey(key, partitions))
      if (!(partition >= 0 && partition < partitions)) {
        throw new LogError(`Cannot append to topic "${topic}": it has no partition ${partition}, only ${partitions}`, {
          retriable: false,
        })
      }
      let bytes = (key?.length ?? 0) + (record.value?.length ?? 0) + RECORD_OVERHEAD_BYTES
      // The library takes what is left out as null; its types do not know null.
      const message: Placed['message'] = { topic, partition }
      if (key !== null) message.key = key
      if (record.value !== null) message.value = record.value
      if (record.headers !== undefined) {
        const headers = new Map<Buffer, Buffer>()
        for (const [name, value] of Object.entries(record.headers)) {
          const pair = [Buffer.from(name), typeof value === 'string' ? Buffer.from(value) : value] as const
          bytes += pair[0].length + pair[1].length + 4
          headers.set(...pair)
        }
        message.headers = headers
      }
      return { index, partition, bytes, message }
    })
  }

  async #send(topic: string, placed: Placed[]): Promise<void> {
    const startedMs = performance.now()
    for (let left = placed; left.length > 0; ) {
      try {
        await this.#producer.send({ messages: left.map((each) => each.message) })
        return
      } catch (error) {
        // Partitions that took their batch are not sent again: a record without an id of its own would be there twice.
        const refused = refusedPartitions(error)
        if (refused === null) throw error
        const byPartition = Map.groupBy(left, (each) => each.partition)
        left = []
        for (const [partition, own] of byPartition) {
          const errorCode = refused.get(partition) ?? 0
          if (TOO_LARGE_CODES.includes(errorCode)) await this.#sendHalves(topic, own, error)
          else if (errorCode !== 0) left.push(...own)
        }
        const elsewhere = left.every((each) => NOT_TAKEN_CODES.includes(refused.get(each.partition)!))
        if (!elsewhere || performance.now() - startedMs > NOT_TAKEN_LIMIT_MS) throw error
        if (left.length > 0) await new Promise((resolve) => setTimeout(resolve, NOT_TAKEN_PAUSE_MS))
        this.#producer.clearMetadata()
      }
    }
  }

  async #sendHalves(topic: string, placed: Placed[], error: unknown): Promise<void> {
    if (placed.length === 1) {
      const { index, bytes } = placed[0]!
      throw new LogError(
        `Cannot append record ${index} to topic "${topic}": its ${bytes} bytes are over the limit of the broker (${explain(error, this.#settings)})`,
        { retriable: false, cause: error },
      )
    }
    const middle = Math.ceil(placed.length / 2)
    await this.#send(topic, placed.slice(0, middle))
    await this.#send(topic, placed.slice(middle))
  }
}

/** Cuts a call so that no partition's batch, and no request, is over its limit. Order per partition stays. */
function* rounds(placed: readonly Placed[]): Generator<Placed[]> {
  let round: Placed[] = []
  let bytes = 0
  let bytesOf = new Map<number, number>()
  for (const each of placed) {
    const own = (bytesOf.get(each.partition) ?? 0) + each.bytes
    if (round.length > 0 && (own > MAX_BYTES_PER_PARTITION || bytes + each.bytes > MAX_BYTES_PER_ROUND)) {
      yield round
      round = []
      bytes = 0
      bytesOf = new Map()
    }
    round.push(each)
    bytes += each.bytes
    bytesOf.set(each.partition, (bytesOf.get(each.partition) ?? 0) + each.bytes)
  }
  if (round.length > 0) yield round
}

interface ProduceFailure {
  code?: string
  errors?: unknown[]
  response?: { responses?: { partitionResponses: { index: number; errorCode: number }[] }[] }
}

/** Error code of each partition that a broker refused; null when it is not known what was taken. */
function refusedPartitions(error: unknown): Map<number, number> | null {
  const refused = new Map<number, number>()
  for (const failure of perBroker(error as ProduceFailure)) {
    const answers = failure.code === 'PLT_KFK_RESPONSE' ? failure.response?.responses : undefined
    if (!answers) return null
    for (const { index, errorCode } of answers.flatMap((each) => each.partitionResponses)) {
      if (errorCode !== 0) refused.set(index, errorCode)
    }
  }
  return refused.size > 0 ? refused : null
}

function perBroker(failure: ProduceFailure): ProduceFailure[] {
  if (failure.code !== 'PLT_KFK_MULTIPLE') return [failure]
  return (failure.errors ?? []).flatMap((each) => perBroker(each as ProduceFailure))
}
