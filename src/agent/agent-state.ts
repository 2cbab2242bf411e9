// An agent's counters for /metrics, its current faults and notices for /health, with one log line when a fault begins
// and one when it is over, none for each repetition. A notice is odd but costs nothing: it is logged and shown, and
// /health stays ok.

import type { Logger } from '../runtime/logger.ts'

/** What a fault is in. */
export type Component = 'source' | 'clock' | 'spool' | 'spool-full' | 'sink' | 'engine'

export interface AgentCounters {
  /** GPU readings that the source returned. */
  read: number
  /** Readings that failed as a whole: no GPU was read. */
  readFailures: number
  /** Samples that the spool has stored; these are not lost. */
  spooled: number
  /** Samples that the spool could not store: the disk is full or broken. */
  unspooled: number
  /** Samples that the sink has confirmed. */
  sent: number
  /** Samples that a full spool dropped, oldest first. */
  dropped: number
  /** Samples that the sink rejected as invalid; they are discarded. */
  refused: number
  /** Failed attempts to send, each of which was retried. */
  sendFailures: number
  /** How often the clock was set back. */
  clockSteps: number
  /** Token events of engines that the spool has stored, the sink has confirmed, the sink rejected. */
  tokenEventsSpooled: number
  tokenEventsSent: number
  tokenEventsRefused: number
}

export interface Fault {
  part: Component
  message: string
  sinceMs: number
}

export interface AgentState {
  readonly counters: AgentCounters
  /** GPUs of the last reading. */
  gpus: number
  /** Their indexes. */
  gpuIndexes: readonly number[]
  /** Epoch milliseconds; null before the first. */
  lastReadMs: number | null
  lastSentMs: number | null
  readonly faults: readonly Fault[]
  /** Replaces the faults of one component; an empty list when it has none. */
  report(part: Component, messages: readonly string[], level?: 'warn' | 'error'): void
  readonly notices: readonly string[]
  /** Replaces the notices of the GPU source, or of the engines. */
  note(messages: readonly string[], part?: 'source' | 'engine'): void
}

/** The same line is not logged again within this time, even if the fault was over in between. */
const QUIET_MS = 60_000

export function createState(logger: Logger, nowMs: () => number = Date.now): AgentState {
  const faults = new Map<string, Fault>()
  const loggedAtMs = new Map<string, number>()
  const notices = new Map<string, { messages: readonly string[]; keys: ReadonlySet<string> }>()
  const once = (line: string, write: () => void) => {
    const atMs = nowMs()
    for (const [old, thenMs] of loggedAtMs) if (Math.abs(atMs - thenMs) >= QUIET_MS) loggedAtMs.delete(old)
    if (loggedAtMs.has(line)) return
    loggedAtMs.set(line, atMs)
    write()
  }
  return {
    counters: {
      read: 0,
      readFailures: 0,
      spooled: 0,
      unspooled: 0,
      sent: 0,
      dropped: 0,
      refused: 0,
      sendFailures: 0,
      clockSteps: 0,
      tokenEventsSpooled: 0,
      tokenEventsSent: 0,
      tokenEventsRefused: 0,
    },
    gpus: 0,
    gpuIndexes: [],
    lastReadMs: null,
    lastSentMs: null,
    get faults() {
      return [...faults.values()]
    },
    report(part, messages, level = 'warn') {
      const keys = new Set(messages.map((message) => `${part}: ${message}`))
      for (const message of messages) {
        const key = `${part}: ${message}`
        if (faults.has(key)) continue
        faults.set(key, { part, message, sinceMs: nowMs() })
        once(key, () => logger[level]({ part }, message))
      }
      for (const [key, fault] of faults) {
        if (fault.part !== part || keys.has(key)) continue
        faults.delete(key)
        if (messages.length === 0) once(`over: ${key}`, () => logger.info({ part }, `Over: ${fault.message}`))
      }
    },
    get notices() {
      return [...notices.values()].flatMap(({ messages }) => messages)
    },
    note(messages, part = 'source') {
      const noted = notices.get(part)?.keys
      const keys = new Set<string>()
      for (const message of messages) {
        const key = noticeKey(message, keys)
        keys.add(key)
        if (noted?.has(key) !== true) once(`note: ${part} ${key}`, () => logger.warn({ part }, message))
      }
      notices.set(part, { messages, keys })
    },
  }
}

/**
 * What two notices have in common that differ by numbers only: a preloaded library prints its process id with each
 * line, which would be a new line of the log each second. The n-th such notice of one reading is its own.
 */
function noticeKey(message: string, others: ReadonlySet<string>): string {
  const text = message.replaceAll(/0x[\da-f]+|\d+/gi, '#')
  for (let count = 1; ; count++) if (!others.has(`${count} ${text}`)) return `${count} ${text}`
}
