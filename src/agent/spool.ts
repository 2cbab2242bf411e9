// The agent's spool: what was sampled and is not yet confirmed by the other side, on the disk, so that neither an outage nor a
// kill -9 loses it. It is the embedded log with one reader. Its bound is kept by the log: when full, the oldest GPU samples
// go first, counted (a gap of old samples costs little: the ledger assumes up to 90 s, and what comes now is worth more).
// Topics have names of their own here, so that renaming a topic strands nothing.

import type { EventKind } from '../domain/events/documents.ts'
import type { EventLog, NewRecord } from '../log/event-log.ts'
import { Notifier } from '../runtime/waiting.ts'

/** A record that waits; `offset` is its place in the spool. */
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

/** What the sampler fills and the forwarder empties; see also memory-spool.ts. */
export interface Spool {
  /** Resolves when the records are safe. Rejects when they are not: the disk is full or broken. */
  add(kind: EventKind, records: readonly NewRecord[]): Promise<void>
  /** The next run; null after about a second without any, and at once when the signal aborts. */
  next(signal: AbortSignal): Promise<SpoolRun | null>
  /** Everything of the run before this offset is confirmed and need not come again. */
  done(run: SpoolRun, offset: number): Promise<void>
  status(): Promise<SpoolStatus>
  close(): Promise<void>
}

export interface SpoolStatus {
  /** Records that wait. */
  records: number
  /** Bytes that the spool holds, with what it has not cleared away yet. */
  bytes: number
}

/** Topics of the spool by kind, in the order in which a full one drops them: token usage is money, and would come last. */
export const SPOOL_TOPICS: Readonly<Partial<Record<EventKind, string>>> = { gpu: 'gpu' }

const GROUP = 'agent'
const IDLE_MS = 1000
/** Most bytes of one read. */
const READ_BYTES = 1024 * 1024

/** The embedded log as a spool's owner makes it. */
export interface SpoolLog extends EventLog {
  /** Bytes that it holds. */
  heldBytes(): number
}

/** Opens the spool in a log that only it uses; throws a LogError when that log cannot be used. */
export async function openSpool(log: SpoolLog): Promise<Spool> {
  const kinds = Object.entries(SPOOL_TOPICS) as [EventKind, string][]
  const names = kinds.map(([, name]) => name)
  await log.ensureTopics(names.map((name) => ({ name, partitions: 1 })))
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
      await log.append(SPOOL_TOPICS[kind]!, records)
      mayHoldMore = true
      added.notify()
    },
    async next(signal) {
      if (waiting.length === 0) {
        // Whoever adds is in this process, so there is no need to look into the file again and again.
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
        // Without partitions: another agent has them still, or one that was just killed.
        mayHoldMore = lag.length === 0 || lag.some(({ position, endOffset }) => (position ?? 0) < endOffset)
      }
      return waiting.shift() ?? null
    },
    async done({ kind }, offset) {
      await subscription.commit([{ topic: SPOOL_TOPICS[kind]!, topicId: topicIds.get(kind)!, partition: 0, offset }])
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
