// Says how catching up goes: minutes done, minutes left, how many times real time. Nothing is said while the keeper keeps
// up; at most one line in ten seconds otherwise, and one when it is done.

import type { Logger } from '../../runtime/logger.ts'

const INTERVAL_MS = 10_000
/** A pass with fewer minutes than this is everyday work. */
const BACKLOG_MINUTES = 30

export class CatchUp {
  readonly #log: Logger
  #sinceMs: number | null = null
  #done = 0
  #saidMs = 0

  constructor(log: Logger) {
    this.#log = log
  }

  /** Tells of a run of minutes that is done, and of how many are left that are due. */
  tell({ minutes, left, nowMs }: { minutes: number; left: number; nowMs: number }): void {
    if (this.#sinceMs === null) {
      if (left < BACKLOG_MINUTES) return
      this.#sinceMs = nowMs
      this.#saidMs = nowMs
      this.#done = 0
    }
    this.#done += minutes
    const fields = () => ({ minutes_done: this.#done, minutes_left: left, times_real_time: this.#speed(nowMs) })
    if (left === 0) {
      this.#log.info(fields(), 'Caught up with the ledger')
      this.#sinceMs = null
    } else if (nowMs >= this.#saidMs + INTERVAL_MS) {
      this.#saidMs = nowMs
      this.#log.info(fields(), 'Catching up with the ledger')
    }
  }

  #speed(nowMs: number): number | null {
    const elapsedMs = nowMs - this.#sinceMs!
    return elapsedMs <= 0 ? null : Math.round((this.#done * 60_000) / elapsedMs)
  }
}
