// What an agent has done and what is wrong with it right now: counters for /metrics, faults for /health, and a log line
// when a fault begins and when it is over, none for each repeat in between.

import type { Logger } from '../runtime/logger.ts'

/** Where faults come from. */
export type Component = 'source' | 'clock' | 'spool' | 'spool-full' | 'sink'

export interface AgentCounters {
  /** GPU readings that a source gave. */
  read: number
  /** Readings as a whole that failed: no GPU answered. */
  readFailures: number
  /** Samples that the spool has taken; from here on they are not lost. */
  spooled: number
  /** Samples that the spool did not take: the disk is full or broken. */
  unspooled: number
  /** Samples that the other side has confirmed. */
  sent: number
  /** Samples that a full spool has dropped, oldest first. */
  dropped: number
  /** Samples that the other side called wrong; they are given up. */
  refused: number
  /** Tries to send that failed and were repeated. */
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
  /** Says what is wrong with a part now, all of it; nothing when it is well. */
  report(part: Component, messages: readonly string[], level?: 'warn' | 'error'): void
}

/** The same line is not logged again within this time, even if it was over in between. */
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
