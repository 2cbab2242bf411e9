// Reads the assigned partitions: at most one request under way and one answer read ahead per broker, and none at all
// while nobody takes answers. It owns no decisions: what a position is, and what to do when a broker refuses one, is
// told to it or asked of its owner.
//
// An answer counts only for the very `PartitionState` that it was asked for, and only at the offset that was asked: the
// owner replaces the object when a partition is revoked or assigned anew, so a late answer falls on nothing.

import type { Broker } from '@platformatic/kafka'
import { Backoff } from '../../runtime/waiting.ts'
import type { RecordBatch } from '../event-log.ts'
import type { FetchAnswer, FetchedPartition, Fetcher } from './fetch-protocol.ts'
import { offsetAfter, RecordReader } from './record-batch.ts'

const MAX_BYTES_PER_PARTITION = 1 << 20

export interface PartitionState {
  readonly topic: string
  readonly partition: number
  readonly topicId: string
  leader: number
  phase: 'asking' | 'reading' | 'blocked'
  /** Why it is blocked. */
  reason: string
  /** Next offset to hand out. */
  position: number
  /** Next offset to ask a broker for: `position`, or after what is read ahead. */
  fetchOffset: number
  endOffset: number
  stableEndOffset: number
  askedAtMs: number
  movedAtMs: number
  /** Who was served longest ago is asked for first, since a broker fills its answer in the order asked. */
  servedTurn: number
}

export function newPartitionState(
  place: Pick<PartitionState, 'topic' | 'partition' | 'topicId' | 'leader'>,
): PartitionState {
  return {
    ...place,
    phase: 'asking',
    reason: '',
    position: 0,
    fetchOffset: 0,
    endOffset: 0,
    stableEndOffset: 0,
    askedAtMs: 0,
    movedAtMs: performance.now(),
    servedTurn: 0,
  }
}

export interface ReaderOwner {
  /** The states to read: those in phase `reading`, current as of now. */
  states(): Iterable<PartitionState>
  isCurrent(state: PartitionState): boolean
  broker(node: number): Broker | undefined
  /** The broker has no records at this position. */
  outOfRange(state: PartitionState): void
  /** What was read cannot be decoded. */
  undecodable(state: PartitionState, error: unknown): void
  /** The topics that the user may not read: told after an answer, whenever there are some, and once when there are none left. */
  notAllowed(topics: readonly string[]): void
  /** Leaders or topics have changed, or a broker cannot be reached: look again. */
  lookAgain(error: unknown): void
  /** An answer came. */
  answered(): void
}

interface Ready {
  state: PartitionState
  reader: RecordReader
  highWatermark: number
}

interface Node {
  underWay: boolean
  ready: Ready[]
  /** The last answer refused a topic. */
  refused: boolean
  backoff: Backoff
  notBeforeMs: number
}

// All other error codes mean that leaders or topics have changed, or that a moment later will do.
const NO_ERROR = 0
const OFFSET_OUT_OF_RANGE = 1
const TOPIC_AUTHORIZATION_FAILED = 29

export class PartitionReader {
  readonly #fetcher: Fetcher
  readonly #owner: ReaderOwner
  readonly #maxBytes: number
  readonly #retry: { firstMs: number; maxMs: number }
  readonly #nodes = new Map<number, Node>()
  #turn = 0
  #closed = false

  constructor(
    fetcher: Fetcher,
    owner: ReaderOwner,
    { maxBytes, retryMs, retryMaxMs }: { maxBytes: number; retryMs: number; retryMaxMs: number },
  ) {
    this.#fetcher = fetcher
    this.#owner = owner
    this.#maxBytes = maxBytes
    this.#retry = { firstMs: retryMs, maxMs: retryMaxMs }
  }

  /**
   * Takes what is ready, about `maxBytes` of it when unpacked. The next requests go out as soon as a broker's answer is
   * used up; where nothing is packed that is known before decoding, so that brokers work meanwhile.
   */
  take(): RecordBatch[] {
    const batches: RecordBatch[] = []
    let leftBytes = this.#maxBytes
    for (const node of this.#nodes.values()) {
      if (node.ready.length === 0) continue
      const taken = node.ready
      const whole = !taken.some((ready) => ready.reader.packed)
      if (whole) {
        node.ready = []
        this.ask()
      }
      while (taken.length > 0 && (whole || leftBytes > 0)) {
        leftBytes -= this.#decode(taken[0]!, whole ? Number.POSITIVE_INFINITY : leftBytes, batches)
        if (taken[0]!.reader.done) taken.shift()
      }
    }
    if (batches.length > 0) this.ask()
    return batches
  }

  /** Sends requests to brokers that have none under way and whose last answer was taken. */
  ask(): void {
    if (this.#closed || !this.#fetcher.ready) return
    const byNode = Map.groupBy(this.#owner.states(), (state) => state.leader)
    for (const [nodeId, states] of byNode) {
      const broker = this.#owner.broker(nodeId)
      const node = this.#nodeOf(nodeId)
      if (!broker || node.underWay || node.ready.length > 0 || performance.now() < node.notBeforeMs) continue
      node.underWay = true
      void this.#fetch(node, broker, states, Math.ceil(this.#maxBytes / byNode.size))
    }
  }

  close(): void {
    this.#closed = true
    this.#nodes.clear()
  }

  #nodeOf(nodeId: number): Node {
    let node = this.#nodes.get(nodeId)
    if (!node) {
      const backoff = new Backoff(this.#retry.firstMs, this.#retry.maxMs)
      node = { underWay: false, ready: [], refused: false, backoff, notBeforeMs: 0 }
      this.#nodes.set(nodeId, node)
    }
    return node
  }

  async #fetch(node: Node, broker: Broker, states: PartitionState[], maxBytes: number): Promise<void> {
    states.sort((a, b) => a.servedTurn - b.servedTurn)
    const asked = new Map<string, { state: PartitionState; offset: number }>()
    for (const state of states) {
      asked.set(`${this.#fetcher.topicKeyOf(state)} ${state.partition}`, { state, offset: state.fetchOffset })
    }
    try {
      const limits = { maxBytes, maxBytesPerPartition: Math.min(MAX_BYTES_PER_PARTITION, maxBytes) }
      const answer = await this.#fetcher.fetch(broker, states, limits)
      if (this.#closed) return
      if (this.#accept(node, answer, asked)) node.backoff.reset()
      else node.notBeforeMs = performance.now() + node.backoff.next()
    } catch (error) {
      if (this.#closed) return
      node.notBeforeMs = performance.now() + node.backoff.next()
      // The library leaves a connection out of step after a time-out.
      if (error instanceof Error && error.message.includes('timed out')) this.#fetcher.reset()
      this.#owner.lookAgain(error)
    } finally {
      node.underWay = false
      if (!this.#closed) this.#owner.answered()
    }
  }

  /** Says whether the answer was without errors. */
  #accept(node: Node, answer: FetchAnswer, asked: Map<string, { state: PartitionState; offset: number }>): boolean {
    let good = answer.errorCode === NO_ERROR
    const refused = new Set<string>()
    if (!good) this.#owner.lookAgain(new Error(`broker answered a fetch with error code ${answer.errorCode}`))
    for (const part of answer.partitions) {
      const wish = asked.get(`${part.topicKey} ${part.partition}`)
      if (!wish || !this.#isUnchanged(wish.state, wish.offset)) continue
      if (part.errorCode === NO_ERROR) this.#acceptPart(node, wish.state, part)
      else if (part.errorCode === OFFSET_OUT_OF_RANGE) this.#owner.outOfRange(wish.state)
      else if (part.errorCode === TOPIC_AUTHORIZATION_FAILED) refused.add(wish.state.topic)
      else {
        good = false
        this.#owner.lookAgain(new Error(`broker answered a fetch of partition with error code ${part.errorCode}`))
      }
    }
    if (refused.size > 0 || node.refused) this.#owner.notAllowed([...refused])
    node.refused = refused.size > 0
    return good && !node.refused
  }

  #isUnchanged(state: PartitionState, offset: number): boolean {
    return state.phase === 'reading' && state.fetchOffset === offset && this.#owner.isCurrent(state)
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

  /** Answers how many bytes it took. */
  #decode({ state, reader, highWatermark }: Ready, maxBytes: number, into: RecordBatch[]): number {
    const from = reader.next
    if (state.phase !== 'reading' || state.position !== from || !this.#owner.isCurrent(state)) return reader.skip()
    const { topic, topicId, partition } = state
    try {
      const { records, bytes } = reader.read(maxBytes)
      state.position = reader.next
      state.movedAtMs = performance.now()
      into.push({ topic, topicId, partition, records, fromOffset: from, nextOffset: state.position, highWatermark })
      return bytes
    } catch (error) {
      this.#owner.undecodable(state, error)
      return reader.skip()
    }
  }
}
