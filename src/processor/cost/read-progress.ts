// How far the whole group has read the log, whichever of its members did: what `final` in an answer about cost rests
// on. A snapshot notes the ends of all partitions and its time; once the group's committed offsets have passed these
// ends, every record that existed at that time is stored and marked, since offsets are committed after that. So it
// needs no record times, holds under constant traffic, and does not depend on which member owns which partition.

import { setTimeout as sleep } from 'node:timers/promises'
import type { EventLog } from '../../log/event-log.ts'
import type { Progress } from './cost-reading.ts'

/** Pause between two snapshots, milliseconds. */
const INTERVAL_MS = 2000
/** Snapshots that wait to be passed; a group that lags further behind is simply not up to date. */
const MAX_SNAPSHOTS = 300

interface Snapshot {
  atMs: number
  /** End offset of each partition, by topic id and number. */
  ends: Map<string, number>
}

interface ReadProgressOptions {
  group: string
  topics: readonly string[]
  now?: () => number
  /** What the keeper of this process knows of unreported commitments, see Progress. */
  isSwept?: (fromMs: number, toMs: number) => boolean
}

export class ReadProgress implements Progress {
  readonly #log: EventLog
  readonly #group: string
  readonly #topics: readonly string[]
  readonly #now: () => number
  readonly #isSwept: (fromMs: number, toMs: number) => boolean
  #snapshots: Snapshot[] = []
  #readUpToMs: number | null = null

  constructor(log: EventLog, options: ReadProgressOptions) {
    this.#log = log
    this.#group = options.group
    this.#topics = options.topics
    this.#now = options.now ?? Date.now
    this.#isSwept = options.isSwept ?? (() => true)
  }

  isSwept(fromMs: number, toMs: number): boolean {
    return this.#isSwept(fromMs, toMs)
  }

  readUpToMs(): number | null {
    return this.#readUpToMs
  }

  /** Takes snapshots until the signal aborts; never rejects. While the log is away, the last known progress stands. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.takeSnapshot().catch(() => {})
      await sleep(INTERVAL_MS, undefined, { signal }).catch(() => {})
    }
  }

  /** Rejects with a LogError. */
  async takeSnapshot(): Promise<void> {
    const atMs = this.#now()
    const described = await this.#log.describe(this.#topics, this.#group)
    if (described.length < this.#topics.length) return
    const ends = new Map<string, number>()
    const read = new Map<string, number>()
    for (const { topicId, partitions } of described) {
      for (const { partition, earliestOffset, endOffset, committedOffset } of partitions) {
        ends.set(`${topicId}/${partition}`, endOffset)
        // A partition that never had a record has no committed offset.
        read.set(`${topicId}/${partition}`, committedOffset ?? (endOffset === 0 ? 0 : earliestOffset))
      }
    }
    this.#snapshots.push({ atMs, ends })
    const passed = this.#snapshots.findLastIndex((snapshot) =>
      [...snapshot.ends].every(([key, end]) => (read.get(key) ?? 0) >= end),
    )
    if (passed >= 0) {
      this.#readUpToMs = this.#snapshots[passed]!.atMs
      this.#snapshots = this.#snapshots.slice(passed + 1)
    }
    // The oldest stay: a group that catches up passes them first.
    if (this.#snapshots.length > MAX_SNAPSHOTS) this.#snapshots.pop()
  }
}
