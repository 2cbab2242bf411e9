// The log lines of a keeper that catches up: minutes done, minutes left, how many times real time.

import { CELL_MS } from '../../domain/ledger/buckets.ts'
import type { Logger } from '../../runtime/logger.ts'

const REPORT_INTERVAL_MS = 10_000
/** A pass with fewer minutes than this is everyday work. */
const BACKLOG_MINUTES = 30

/** Logs the progress of catching up: at most one line in ten seconds, and one at its end; none while keeping up. */
export class CatchUp {
  readonly #log: Logger
  #sinceMs: number | null = null
  #done = 0
  #lastLoggedMs = 0

  constructor(log: Logger) {
    this.#log = log
  }

  /** Reports a run of minutes that is done, and how many are left that are due. */
  report({ minutes, left, nowMs }: { minutes: number; left: number; nowMs: number }): void {
    if (this.#sinceMs === null) {
      if (left < BACKLOG_MINUTES) return
      this.#sinceMs = nowMs
      this.#lastLoggedMs = nowMs
      this.#done = 0
    }
    this.#done += minutes
    const elapsedMs = nowMs - this.#sinceMs
    const speed = elapsedMs <= 0 ? null : Math.round((this.#done * CELL_MS) / elapsedMs)
    const fields = { minutes_done: this.#done, minutes_left: left, times_real_time: speed }
    if (left === 0) {
      this.#log.info(fields, 'Caught up with the ledger')
      this.#sinceMs = null
    } else if (nowMs >= this.#lastLoggedMs + REPORT_INTERVAL_MS) {
      this.#lastLoggedMs = nowMs
      this.#log.info(fields, 'Catching up with the ledger')
    }
  }
}
