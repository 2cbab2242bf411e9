// The agent's spool: events that the sink has not confirmed yet, on disk, so that neither an outage nor a kill -9
// loses them. It is the embedded log with one reader. The log enforces its bound: when full, the oldest GPU samples are
// dropped, and counted (a gap of old samples costs little, as a sample covers up to 90 s, and new ones are worth more).
// Token events are never dropped: they are refused, and their tokens stay in the engine's counters until there is room.
// With them, in one write, goes the state that they bring their reader to: neither is ever without the other. Topics
// have names of their own here, so that renaming a topic strands no records.

import type { EventKind } from '../domain/events/event.ts'
import type { EventLog, NewRecord } from '../log/event-log.ts'
import { Notifier } from '../runtime/waiting.ts'

/** A spooled record; `offset` is its position in the spool. */
export interface SpoolRecord {
  offset: number
  key: Buffer | null
  value: Buffer
}

/** Consecutive records of one kind, oldest first, never empty. */
export interface SpoolRun {
  kind: EventKind
  records: readonly SpoolRecord[]
  /** Offset after the last. */
  nextOffset: number
}

/** Filled by the sampler, emptied by the forwarder; memory-spool.ts is another implementation. */
export interface Spool {
  /** Resolves when the records are stored. Rejects when they cannot be: the disk is full or broken. */
  add(kind: EventKind, records: readonly NewRecord[]): Promise<void>
  /** Stores token events, none as well, and the state that they lead to, in one write. Rejects as `add` does. */
  addTokens(records: readonly NewRecord[], state: Buffer): Promise<void>
  /** The state of the last `addTokens`; null: there was none. */
  lastState(): Promise<Buffer | null>
  /** The next run; null when there is none within a second, and at once when the signal aborts. */
  next(signal: AbortSignal): Promise<SpoolRun | null>
  /** Marks the records of the run before this offset as confirmed. */
  done(run: SpoolRun, offset: number): Promise<void>
  status(): Promise<SpoolStatus>
  close(): Promise<void>
}

export interface SpoolStatus {
  /** Records that are not confirmed. */
  records: number
  /** Bytes that the spool holds, including confirmed records that are not yet deleted. */
  bytes: number
}

/** Topics of the spool by kind. */
const SPOOL_TOPICS: Readonly<Record<EventKind, string>> = { gpu: 'gpu', token: 'token' }
/** Topics that a full spool drops the oldest records of. */
export const DROPPED_TOPICS: readonly string[] = [SPOOL_TOPICS.gpu]
const STATE_TOPIC = 'engine-state'

const GROUP = 'agent'
const IDLE_MS = 1000
/** Maximum of bytes per read. */
const READ_BYTES = 1024 * 1024

/** The part of the embedded log that a spool needs. */
export interface SpoolLog extends EventLog {
  appendReplacing(
    topic: string,
    records: readonly NewRecord[],
    replacement: { topic: string; value: Buffer },
  ): Promise<void>
  lastValue(topic: string): Promise<Buffer | null>
  /** Bytes that it holds. */
  heldBytes(): number
}

/** Opens the spool in a log of its own; throws a LogError when that log cannot be used. */
export async function openSpool(log: SpoolLog): Promise<Spool> {
  const kinds = Object.entries(SPOOL_TOPICS) as [EventKind, string][]
  const names = kinds.map(([, name]) => name)
  await log.ensureTopics([...names, STATE_TOPIC].map((name) => ({ name, partitions: 1 })))
  const closing = new AbortController()
  const subscription = log.subscribe({
    group: GROUP,
    topics: names,
    onAssigned: async (partitions) =>
      partitions.map(({ committedOffset, earliestOffset }) => ({
        offset: Math.max(committedOffset ?? 0, earliestOffset),
      })),
    maxBytes: READ_BYTES,
    signal: closing.signal,
  })
  const waiting: SpoolRun[] = []
  const topicIds = new Map<EventKind, string>()
  const added = new Notifier()
  let mayHoldMore = true

  return {
    async add(kind, records) {
      await log.append(SPOOL_TOPICS[kind], records)
      mayHoldMore = true
      added.notify()
    },
    async addTokens(records, state) {
      await log.appendReplacing(SPOOL_TOPICS.token, records, { topic: STATE_TOPIC, value: state })
      mayHoldMore = true
      added.notify()
    },
    lastState: () => log.lastValue(STATE_TOPIC),
    async next(signal) {
      if (waiting.length === 0) {
        // Records are added in this process only, so the file need not be polled.
        if (!mayHoldMore) await added.wait(IDLE_MS, signal)
        if (!mayHoldMore) return null
        for (const { topic, topicId, records, nextOffset } of await subscription.next()) {
          if (records.length === 0) continue
          const kind = kinds.find(([, name]) => name === topic)![0]
          topicIds.set(kind, topicId)
          // Only `add` writes here, and its records have values.
          const plain = records.map(({ offset, key, value }) => ({ offset, key, value: value! }))
          waiting.push({ kind, records: plain, nextOffset })
        }
        const lag = subscription.lag()
        // Without partitions: another agent still has them, or one that was just killed.
        mayHoldMore = lag.length === 0 || lag.some(({ position, endOffset }) => (position ?? 0) < endOffset)
      }
      return waiting.shift() ?? null
    },
    async done({ kind }, offset) {
      await subscription.commit([{ topic: SPOOL_TOPICS[kind], topicId: topicIds.get(kind)!, partition: 0, offset }])
    },
    async status() {
      let records = 0
      for (const { partitions } of await log.describe(names, GROUP)) {
        for (const { endOffset, earliestOffset, committedOffset } of partitions)
          records += endOffset - Math.max(committedOffset ?? 0, earliestOffset)
      }
      return { records, bytes: log.heldBytes() }
    },
    async close() {
      closing.abort()
      await subscription.close()
      await log.close()
    },
  }
}
