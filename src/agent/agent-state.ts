// An agent's counters for /metrics and its current faults for /health, with one log line when a fault begins and one
// when it is over, none for each repetition.

import type { Logger } from '../runtime/logger.ts'

/** What a fault is in. */
export type Component = 'source' | 'clock' | 'spool' | 'spool-full' | 'sink'

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
  /** Epoch milliseconds; null before the first. */
  lastReadMs: number | null
  lastSentMs: number | null
  readonly faults: readonly Fault[]
  /** Replaces the faults of one component; an empty list when it has none. */
  report(part: Component, messages: readonly string[], level?: 'warn' | 'error'): void
}

/** The same line is not logged again within this time, even if the fault was over in between. */
const QUIET_MS = 60_000

export function createState(logger: Logger, nowMs: () => number = Date.now): AgentState {
  const faults = new Map<string, Fault>()
  const loggedAtMs = new Map<string, number>()
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
    },
    gpus: 0,
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
  }
}
