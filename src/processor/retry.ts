// Repeats what failed for a passing reason, for ever, with back-off, until it succeeds or the signal aborts. The state
// (failing since when, with which error) is kept for /health and logged once per change, not once per attempt.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../runtime/logger.ts'

const FIRST_DELAY_MS = 50
const MAX_DELAY_MS = 2000

/** Thrown when the signal aborts before the work succeeded. */
export class GaveUp extends Error {
  constructor(what: string, cause: unknown) {
    super(`Gave up while stopping: ${what} still failed`, { cause })
    this.name = 'GaveUp'
  }
}

export class Retrier {
  readonly #log: Logger
  readonly #failing = new Map<string, { message: string; sinceMs: number }>()
  readonly #now: () => number

  constructor(log: Logger, now: () => number) {
    this.#log = log
    this.#now = now
  }

  /** What fails right now, for /health. */
  get failing(): { what: string; message: string; sinceMs: number }[] {
    return [...this.#failing].map(([what, state]) => ({ what, ...state }))
  }

  /** Runs `work` until it succeeds; `what` names it in messages. Throws only GaveUp. */
  async run<T>(what: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    for (let delayMs = FIRST_DELAY_MS; ; delayMs = Math.min(delayMs * 2, MAX_DELAY_MS)) {
      try {
        const result = await work()
        if (this.#failing.delete(what)) this.#log.info({ what }, `Works again: ${what}`)
        return result
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error)
        const known = this.#failing.get(what)
        if (known === undefined) this.#log.warn({ what, error: message }, `Failed, will be repeated: ${what}`)
        this.#failing.set(what, { message, sinceMs: known?.sinceMs ?? this.#now() })
        if (signal.aborted) throw new GaveUp(what, error)
        // Half to whole of the delay, so that several processors do not retry in step.
        await sleep(delayMs * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => {})
        if (signal.aborted) throw new GaveUp(what, error)
      }
    }
  }
}
