// What the live window keeps of one slot (host + GPU index): token sums in panes of one second of event time, for the
// slot and for each model on it, and the newest sample. An event that sums over an interval is spread over its seconds,
// as far back as the panes reach: the window gets its share of an hour's tokens, not the hour.

import type { GpuDocument } from '../events/event.ts'
import { intervalMs, madeWithin } from '../events/event-interval.ts'

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

/** What of a token event states when its tokens were made. */
interface EventTime {
  ts: Date
  interval_s?: number
}

/** The second of an event: the one that its `ts` lies in, or the last one that it sums over. */
export function lastSecond(event: EventTime): number {
  return Math.floor((event.ts.getTime() - (intervalMs(event) > 0 ? 1 : 0)) / 1000)
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

  /** Adds an event's tokens to the seconds that it sums over; `newest` is the newest second of the slot. */
  addOver(event: EventTime, newest: number, tokens: { prompt: number; completion: number }): void {
    const lengthMs = intervalMs(event)
    const last = lastSecond(event)
    if (lengthMs === 0) {
      this.add(last, tokens.prompt, tokens.completion)
      return
    }
    const fromMs = event.ts.getTime() - lengthMs
    // The place of an older second belongs to a newer one.
    const first = Math.max(Math.floor(fromMs / 1000), newest - this.#stamps.length + 1)
    for (let second = first; second <= last; second++) {
      const startMs = Math.max(0, second * 1000 - fromMs)
      const endMs = Math.min(lengthMs, (second + 1) * 1000 - fromMs)
      const made = (count: number) => madeWithin(count, endMs, lengthMs) - madeWithin(count, startMs, lengthMs)
      this.add(second, made(tokens.prompt), made(tokens.completion))
    }
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
