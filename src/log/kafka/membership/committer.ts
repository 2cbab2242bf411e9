// Commits to the group how far all is stored. Best effort, because the store's own position is the truth: one request
// at a time, newer positions replace those that wait (per partition), and no failure reaches the caller.

import { settlesWithin } from '../../../runtime/waiting.ts'
import type { Position } from '../../event-log.ts'
import { partitionKey } from '../cluster.ts'

const WAIT_LIMIT_MS = 2_000

export class Committer {
  readonly #send: (positions: readonly Position[]) => Promise<void>
  readonly #failed: (error: unknown) => void
  #pending = new Map<string, Position>()
  #inFlight: Promise<void> | null = null

  constructor(send: (positions: readonly Position[]) => Promise<void>, failed: (error: unknown) => void) {
    this.#send = send
    this.#failed = failed
  }

  /** Resolves when these or newer positions were sent, successfully or not, and after WAIT_LIMIT_MS at the latest. */
  async commit(positions: readonly Position[]): Promise<void> {
    for (const position of positions) this.#pending.set(partitionKey(position), position)
    this.#inFlight ??= this.#sendAll().finally(() => {
      this.#inFlight = null
    })
    await settlesWithin(WAIT_LIMIT_MS, this.#inFlight)
  }

  async #sendAll(): Promise<void> {
    while (this.#pending.size > 0) {
      const positions = [...this.#pending.values()]
      this.#pending = new Map()
      try {
        await this.#send(positions)
      } catch (error) {
        this.#failed(error)
      }
    }
  }
}
