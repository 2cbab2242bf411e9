// What is wrong with a subscription right now, for /health, and its log lines: one when a problem begins or changes, one
// when it is over, none for each retry in between. A broker that is away for a night makes two lines, not ten thousand.

import type { LogProblem } from '../event-log.ts'
import type { KafkaLogger } from './kafka-options.ts'

export class Problems {
  readonly #log: KafkaLogger
  readonly #group: string
  readonly #current = new Map<LogProblem['code'], string>()

  constructor(log: KafkaLogger, group: string) {
    this.#log = log
    this.#group = group
  }

  get list(): LogProblem[] {
    return [...this.#current].map(([code, message]) => ({ code, message }))
  }

  set(code: LogProblem['code'], message: string): void {
    const before = this.#current.get(code)
    this.#current.set(code, message)
    // Whether a broker refuses or does not answer may alternate while it restarts: that is one state.
    if (before === message || (before !== undefined && code === 'unreachable')) return
    const details = { group: this.#group, problem: code }
    if (code === 'position_invalid') this.#log.error(details, message)
    else this.#log.warn(details, message)
  }

  clear(code: LogProblem['code']): void {
    if (this.#current.delete(code)) this.#log.info({ group: this.#group, problem: code }, `Problem is over: ${code}`)
  }

  clearAll(): void {
    this.#current.clear()
  }
}
