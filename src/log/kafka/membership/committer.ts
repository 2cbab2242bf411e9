// Tells the group how far all is stored. Best effort, because the store's own position is the truth: one request at a
// time, what comes meanwhile replaces what waits (per partition), and no failure gets out of here.

import { settlesWithin } from '../../../runtime/waiting.ts'
import type { Position } from '../../event-log.ts'
import { partitionKey } from '../cluster.ts'

const WAIT_LIMIT_MS = 2_000

export class Committer {
  readonly #send: (positions: readonly Position[]) => Promise<void>
  readonly #failed: (error: unknown) => void
  #waiting = new Map<string, Position>()
  #underWay: Promise<void> | null = null

  constructor(send: (positions: readonly Position[]) => Promise<void>, failed: (error: unknown) => void) {
    this.#send = send
    this.#failed = failed
  }

  /** Resolves when these or newer positions were sent, whether taken or not; soon in any case. */
  async commit(positions: readonly Position[]): Promise<void> {
    for (const position of positions) this.#waiting.set(partitionKey(position), position)
    this.#underWay ??= this.#sendAll().finally(() => {
      this.#underWay = null
    })
    await settlesWithin(WAIT_LIMIT_MS, this.#underWay)
  }

  async #sendAll(): Promise<void> {
    while (this.#waiting.size > 0) {
      const positions = [...this.#waiting.values()]
      this.#waiting = new Map()
      try {
        await this.#send(positions)
      } catch (error) {
        this.#failed(error)
      }
    }
  }
}
