// Current problems of a subscription, for /health, and their log lines: one when a problem begins or changes, one when
// it is over, none for each retry in between. A broker that is away for a night is two lines, not ten thousand. Several
// parts of a subscription may report the same problem; it is over when all of them have cleared it.

import type { Logger } from '../../runtime/logger.ts'
import type { LogProblem } from '../event-log.ts'
import type { PartitionState } from './partition-state.ts'

interface ActiveProblem {
  /** By the part that reported it. */
  messages: Map<string, string>
  /** Messages that are not logged again while the problem lasts. */
  logged: Set<string>
}

export class Problems {
  readonly #log: Logger
  readonly #group: string
  readonly #active = new Map<LogProblem['code'], ActiveProblem>()

  constructor(log: Logger, group: string) {
    this.#log = log
    this.#group = group
  }

  get list(): LogProblem[] {
    return [...this.#active].flatMap(([code, { messages }]) =>
      [...new Set(messages.values())].map((message) => ({ code, message })),
    )
  }

  set(code: LogProblem['code'], message: string, reporter = ''): void {
    const problem = this.#active.get(code) ?? { messages: new Map(), logged: new Set() }
    const { messages, logged } = problem
    this.#active.set(code, problem)
    messages.set(reporter, message)
    // A broker that restarts may alternate between refusing connections and not responding: that is one state.
    if (logged.has(message) || (code === 'unreachable' && logged.size > 0)) return
    // Several brokers may refuse us in turn, each for a reason of its own.
    if (code !== 'security') logged.clear()
    logged.add(message)
    const details = { group: this.#group, problem: code }
    if (code === 'position_invalid' || code === 'security') this.#log.error(details, message)
    else this.#log.warn(details, message)
  }

  clear(code: LogProblem['code'], reporter = ''): void {
    const messages = this.#active.get(code)?.messages
    if (!messages?.delete(reporter) || messages.size > 0) return
    this.#active.delete(code)
    this.#log.info({ group: this.#group, problem: code }, `Problem is over: ${code}`)
  }

  /** Reports the partitions that are not read until an operator decides, with their reasons, or that there are none. */
  reportBlocked(states: Iterable<PartitionState>): void {
    const blocked = [...states].filter(({ reason, phase }) => reason !== '' && phase !== 'reading')
    if (blocked.length === 0) {
      this.clear('position_invalid')
      return
    }
    const named = blocked.slice(0, 3).map(({ topic, partition, reason }) => `${topic}-${partition}: ${reason}`)
    const more = blocked.length > 3 ? `; and ${blocked.length - 3} more` : ''
    this.set('position_invalid', `Partitions are not read: ${named.join('; ')}${more}`)
  }

  clearAll(): void {
    this.#active.clear()
  }
}
