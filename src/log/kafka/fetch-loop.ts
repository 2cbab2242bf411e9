// Reads the partitions that are in phase `reading`: at most one request in flight and one response read ahead per
// broker, and none at all while nothing is taken, which is the back-pressure. It advances the states' offsets and
// decides nothing else: a position that a broker refuses goes back to phase `starting`, records that cannot be decoded
// block their partition, and stale metadata is reported to `refresh`. The subscription acts on these.
//
// A response counts only for the very `PartitionState` that was requested, and only at the offset that was requested:
// the subscription replaces the object when a partition is revoked or assigned again, so a late response counts for
// nothing. Connections of its own, since a broker answers one request per connection at a time and a JoinGroup on the
// same one would hold up all reading for as long as a rebalance takes.

import { type Broker, ConnectionPool } from '@platformatic/kafka'
import { Backoff, type Notifier } from '../../runtime/waiting.ts'
import type { RecordBatch } from '../event-log.ts'
import { partitionKey } from './cluster.ts'
import { explain } from './errors.ts'
import { type FetchedPartition, type FetchResponse, fetchApi, sendFetch, topicKeyOf } from './fetch-protocol.ts'
import { baseOptions, type KafkaSettings } from './options.ts'
import { block, type PartitionState } from './partition-state.ts'
import type { Problems } from './problems.ts'
import { offsetAfter, RecordReader } from './record-batch.ts'
import { TOPIC_RIGHT_MISSING } from './security-faults.ts'

const MAX_BYTES_PER_PARTITION = 1 << 20
const REQUEST_TIMEOUT_MS = 10_000

// Every other error code means that leaders or topics have changed, or passes within a moment.
const NO_ERROR = 0
const OFFSET_OUT_OF_RANGE = 1
const TOPIC_AUTHORIZATION_FAILED = 29

export interface FetchLoopOptions {
  settings: KafkaSettings
  group: string
  /** The assigned partitions by `partitionKey`; the subscription's map, read at each request. */
  states: ReadonlyMap<string, PartitionState>
  problems: Problems
  /** Bytes of one `take`. */
  maxBytes: number
  /** Notified when a response has arrived. */
  arrived: Notifier
  /** Notified when leaders or topics have changed, a broker cannot be reached, or a partition needs a decision. */
  refresh: Notifier
}

/** One partition's part of a response, not yet decoded. */
interface Ready {
  state: PartitionState
  reader: RecordReader
  highWatermark: number
}

interface Node {
  inFlight: boolean
  ready: Ready[]
  /** The last response refused a topic. */
  refused: boolean
  backoff: Backoff
  notBeforeMs: number
}

export class FetchLoop {
  readonly #options: FetchLoopOptions
  readonly #nodes = new Map<number, Node>()
  /** Brokers by node, as the newest metadata has them. */
  brokers: ReadonlyMap<number, Broker> = new Map()
  #pool: ConnectionPool
  #api: ReturnType<typeof fetchApi> | null = null
  #turn = 0
  #closed = false

  constructor(options: FetchLoopOptions) {
    this.#options = options
    this.#pool = this.#newPool()
  }

  /** Whether the protocol version is known; nothing is requested before. */
  get ready(): boolean {
    return this.#api !== null
  }

  /** Picks the protocol version from the highest that the brokers speak. Throws a LogError when there is none. */
  useVersion(maxVersion: number): void {
    this.#api = fetchApi(maxVersion)
  }

  /**
   * Takes what is ready, about `maxBytes` of it when unpacked. The next requests go out as soon as a broker's response
   * is used up; where nothing is packed that is known before decoding, so that brokers work meanwhile.
   */
  take(): RecordBatch[] {
    const batches: RecordBatch[] = []
    let leftBytes = this.#options.maxBytes
    for (const node of this.#nodes.values()) {
      if (node.ready.length === 0) continue
      const taken = node.ready
      const whole = !taken.some(({ reader }) => reader.packed)
      if (whole) {
        node.ready = []
        this.request()
      }
      while (taken.length > 0 && (whole || leftBytes > 0)) {
        leftBytes -= this.#decode(taken[0]!, whole ? Number.POSITIVE_INFINITY : leftBytes, batches)
        if (taken[0]!.reader.done) taken.shift()
      }
    }
    if (batches.length > 0) this.request()
    return batches
  }

  /** Sends requests to brokers that have none in flight and whose last response was taken. */
  request(): void {
    if (this.#closed || this.#api === null) return
    const reading = [...this.#options.states.values()].filter(({ phase }) => phase === 'reading')
    const byNode = Map.groupBy(reading, ({ leader }) => leader)
    for (const [nodeId, states] of byNode) {
      const broker = this.brokers.get(nodeId)
      const node = this.#nodeOf(nodeId)
      if (!broker || node.inFlight || node.ready.length > 0 || performance.now() < node.notBeforeMs) continue
      node.inFlight = true
      void this.#fetch(node, broker, states, Math.ceil(this.#options.maxBytes / byNode.size))
    }
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
    this.#nodes.clear()
    await this.#pool.close()
  }

  async #fetch(node: Node, broker: Broker, states: PartitionState[], maxBytes: number): Promise<void> {
    const api = this.#api!
    states.sort((a, b) => a.servedTurn - b.servedTurn)
    try {
      const connection = await this.#pool.get(broker)
      // Noted in the same turn as the request is built: offsets may move while the connection is opened.
      const requested = new Map<string, { state: PartitionState; offset: number }>()
      for (const state of states) {
        requested.set(`${topicKeyOf(api, state)} ${state.partition}`, { state, offset: state.fetchOffset })
      }
      const limits = { maxBytes, maxBytesPerPartition: Math.min(MAX_BYTES_PER_PARTITION, maxBytes) }
      const response = await sendFetch(api, connection, states, limits)
      if (this.#closed) return
      if (this.#accept(node, response, requested)) node.backoff.reset()
      else node.notBeforeMs = performance.now() + node.backoff.next()
    } catch (error) {
      if (this.#closed) return
      node.notBeforeMs = performance.now() + node.backoff.next()
      // The library leaves a connection out of step after a time-out.
      if (error instanceof Error && error.message.includes('timed out')) this.reset()
      this.#refresh(error)
    } finally {
      node.inFlight = false
      if (!this.#closed) this.#options.arrived.notify()
    }
  }

  /** Returns whether the response was without errors. */
  #accept(
    node: Node,
    response: FetchResponse,
    requested: ReadonlyMap<string, { state: PartitionState; offset: number }>,
  ): boolean {
    let good = response.errorCode === NO_ERROR
    const refused = new Set<string>()
    if (!good) this.#refresh(new Error(`broker answered a fetch with error code ${response.errorCode}`))
    for (const part of response.partitions) {
      const request = requested.get(`${part.topicKey} ${part.partition}`)
      if (!request || !this.#isUnchanged(request.state, request.offset)) continue
      if (part.errorCode === NO_ERROR) this.#acceptPart(node, request.state, part)
      else if (part.errorCode === OFFSET_OUT_OF_RANGE) {
        request.state.phase = 'starting'
        this.#options.refresh.notify()
      } else if (part.errorCode === TOPIC_AUTHORIZATION_FAILED) refused.add(request.state.topic)
      else {
        good = false
        this.#refresh(new Error(`broker answered a fetch of partition with error code ${part.errorCode}`))
      }
    }
    const { problems } = this.#options
    if (refused.size > 0)
      problems.set('security', `Cannot read ${[...refused].join(', ')}: ${TOPIC_RIGHT_MISSING}`, 'reader')
    else if (node.refused) problems.clear('security', 'reader')
    node.refused = refused.size > 0
    return good && !node.refused
  }

  #acceptPart(node: Node, state: PartitionState, part: FetchedPartition): void {
    state.endOffset = part.highWatermark
    state.stableEndOffset = part.lastStableOffset < 0 ? part.highWatermark : part.lastStableOffset
    if (!part.records || part.records.length === 0) return
    const next = offsetAfter(part.records, state.fetchOffset)
    if (next === state.fetchOffset) return
    this.#turn += 1
    state.servedTurn = this.#turn
    node.ready.push({
      state,
      reader: new RecordReader(part.records, state.fetchOffset, part.aborted),
      highWatermark: part.highWatermark,
    })
    state.fetchOffset = next
  }

  /** Decodes a part of a response. Returns how many bytes it took. */
  #decode({ state, reader, highWatermark }: Ready, maxBytes: number, into: RecordBatch[]): number {
    const from = reader.next
    if (state.position !== from || !this.#isCurrent(state)) return reader.skip()
    const { topic, topicId, partition } = state
    try {
      const { records, bytes } = reader.read(maxBytes)
      state.position = reader.next
      state.movedAtMs = performance.now()
      into.push({ topic, topicId, partition, records, fromOffset: from, nextOffset: state.position, highWatermark })
      return bytes
    } catch (error) {
      block(state, `record after offset ${state.position} cannot be read: ${explain(error, this.#options.settings)}`)
      this.#options.problems.reportBlocked(this.#options.states.values())
      return reader.skip()
    }
  }

  #isUnchanged(state: PartitionState, offset: number): boolean {
    return state.fetchOffset === offset && this.#isCurrent(state)
  }

  #isCurrent(state: PartitionState): boolean {
    return state.phase === 'reading' && this.#options.states.get(partitionKey(state)) === state
  }

  #refresh(error: unknown): void {
    const { group, settings } = this.#options
    settings.log.debug({ group, reason: explain(error, settings) }, 'Fetch failed')
    this.#options.refresh.notify()
  }

  #nodeOf(nodeId: number): Node {
    let node = this.#nodes.get(nodeId)
    if (!node) {
      const { retryMs, retryMaxMs } = this.#options.settings
      node = { inFlight: false, ready: [], refused: false, backoff: new Backoff(retryMs, retryMaxMs), notBeforeMs: 0 }
      this.#nodes.set(nodeId, node)
    }
    return node
  }

  #newPool(): ConnectionPool {
    const { settings } = this.#options
    return new ConnectionPool(settings.clientId, baseOptions(settings, REQUEST_TIMEOUT_MS))
  }
}
