// What the live window keeps of one slot (host + GPU index): token sums in panes of one second of event time, for the
// slot and for each model on it, and the newest sample.

import type { GpuDocument } from '../events/event.ts'

/** State of one slot of the live window. */
export interface Slot {
  readonly host: string | null
  readonly gpuIndex: number
  readonly total: PaneRing
  readonly models: Map<string, PaneRing>
  /** Newest second with a token event. */
  newestSecond: number
  /** Wall clock when that second came, so that an idle slot's window runs empty. */
  newestSeenMs: number
  sample: GpuDocument | null
  touched: number
}

/** Token sums of the seconds of a ring, cleared lazily when a second's place is used again. */
export class PaneRing {
  readonly #prompt: Float64Array
  readonly #completion: Float64Array
  readonly #stamps: Float64Array

  constructor(size: number) {
    this.#prompt = new Float64Array(size)
    this.#completion = new Float64Array(size)
    this.#stamps = new Float64Array(size).fill(-1)
  }

  add(second: number, prompt: number, completion: number): void {
    const at = second % this.#stamps.length
    if (this.#stamps[at] !== second) {
      this.#stamps[at] = second
      this.#prompt[at] = 0
      this.#completion[at] = 0
    }
    this.#prompt[at]! += prompt
    this.#completion[at]! += completion
  }

  /** All tokens of the `length` seconds that end with `last`. */
  sum(last: number, length: number): number {
    const size = this.#stamps.length
    let total = 0
    let at = last % size
    for (let second = last; second > last - length; second--) {
      if (this.#stamps[at] === second) total += this.#prompt[at]! + this.#completion[at]!
      at = at === 0 ? size - 1 : at - 1
    }
    return total
  }

  /** The prompt part of `sum`. */
  sumPrompt(last: number, length: number): number {
    let total = 0
    for (let second = last; second > last - length; second--) {
      const at = second % this.#stamps.length
      if (this.#stamps[at] === second) total += this.#prompt[at]!
    }
    return total
  }
}
