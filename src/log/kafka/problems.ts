// What is wrong with a subscription right now, for /health, and its log lines: one when a problem begins or changes, one
// when it is over, none for each retry in between. A broker that is away for a night makes two lines, not ten thousand.
// Several parts of a subscription may find the same wrong; it is over when none of them does.

import type { Logger } from '../../runtime/logger.ts'
import type { LogProblem } from '../event-log.ts'
import type { PartitionState } from './partition-state.ts'

interface Current {
  /** By who found it. */
  messages: Map<string, string>
  /** What need not be said again while it lasts. */
  said: Set<string>
}

export class Problems {
  readonly #log: Logger
  readonly #group: string
  readonly #current = new Map<LogProblem['code'], Current>()

  constructor(log: Logger, group: string) {
    this.#log = log
    this.#group = group
  }

  get list(): LogProblem[] {
    return [...this.#current].flatMap(([code, { messages }]) =>
      [...new Set(messages.values())].map((message) => ({ code, message })),
    )
  }

  set(code: LogProblem['code'], message: string, finder = ''): void {
    const current = this.#current.get(code) ?? { messages: new Map(), said: new Set() }
    const { messages, said } = current
    this.#current.set(code, current)
    messages.set(finder, message)
    // Whether a broker refuses or does not answer may alternate while it restarts: that is one state.
    if (said.has(message) || (code === 'unreachable' && said.size > 0)) return
    // Several brokers may refuse us in turn, each for a reason of its own.
    if (code !== 'security') said.clear()
    said.add(message)
    const details = { group: this.#group, problem: code }
    if (code === 'position_invalid' || code === 'security') this.#log.error(details, message)
    else this.#log.warn(details, message)
  }

  clear(code: LogProblem['code'], finder = ''): void {
    const messages = this.#current.get(code)?.messages
    if (!messages?.delete(finder) || messages.size > 0) return
    this.#current.delete(code)
    this.#log.info({ group: this.#group, problem: code }, `Problem is over: ${code}`)
  }

  /** Reports the partitions that are not read until an operator decides, with their reasons; clears the problem otherwise. */
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
    this.#current.clear()
  }
}
