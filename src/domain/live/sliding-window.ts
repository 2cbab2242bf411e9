// The live window: what a token costs right now on each GPU. State in memory, in panes of one second of event time per
// slot (host + GPU index); it prices each token event as it passes and feeds the live view, and is rebuilt from the
// store after a restart. It is never the record: the ledger is.
//
//   cost_per_token = Σ price per hour of the slots × window / 3600 ÷ tokens on the slots in the window that ends at the
//   event's second, the event included — always the full window's cost, so that the figure can be rebuilt.
//
// Late is one comparison, per slot: the event's second is more than the allowed lateness behind the newest one of its
// slot. A host whose clock runs ahead makes nobody else late. Memory is bounded by `maxRings`, about 1.3 KB each, one for
// each slot and for each model on it: the slots that were seen longest ago make room. The panes stay in this file: they mean
// nothing without the window.

import { type GpuDocument, gpuIndexesOf, type TokenDocument } from '../events/documents.ts'

/** Price of a slot at an instant, USD per hour; `sample` is its newest sample, if any. */
export type PriceOfSlot = (
  slot: { host: string | null; gpuIndex: number },
  sample: GpuDocument | null,
  atMs: number,
) => number

export interface SlidingWindowOptions {
  /** Length of the window, seconds. */
  windowSeconds: number
  /** How far behind its slot's newest second an event may be and still be priced, seconds. */
  allowedLatenessSeconds: number
  priceOf: PriceOfSlot
  maxRings?: number
}

/** The live figures of one slot or model, over the window that ends now. */
export interface LiveSlot {
  host: string | null
  gpu_index: number
  gpu_uuid: string | null
  name: string | null
  utilization: number | null
  price_per_hour_usd: number
  tokens_per_second: number
  cost_per_token: number | null
  last_sample: string | null
}

export interface LiveModel {
  model: string
  tokens_per_second: number
  prompt_tokens_per_second: number
  completion_tokens_per_second: number
  /** USD per token; null without tokens. */
  cost_per_token: number | null
  usd_per_million_tokens: number | null
}

/** Token sums of the seconds of a ring, cleared lazily when a second's place is used again. */
class PaneRing {
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

interface Slot {
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

export class SlidingWindow {
  readonly #options: Required<SlidingWindowOptions>
  readonly #slots = new Map<string | null, Map<number, Slot>>()
  readonly #ringSize: number
  #slotCount = 0
  #ringCount = 0
  #clock = 0
  /** Nothing before this second is known, -Infinity when all is: set by a rebuild. */
  #knownFromSecond = Number.NEGATIVE_INFINITY

  constructor(options: SlidingWindowOptions) {
    this.#options = { maxRings: 20_000, ...options }
    this.#ringSize = options.windowSeconds + options.allowedLatenessSeconds + 1
  }

  /** Says that token events before this instant were not replayed into the window; figures that need them are partial. */
  knownFrom(atMs: number): void {
    this.#knownFromSecond = Math.floor(atMs / 1000)
  }

  /** Takes in a GPU sample: the newest one by event time gives the slot its price, name and utilisation. */
  observe(sample: GpuDocument): void {
    const slot = this.#slot(sample.host, sample.gpu_index)
    if (slot.sample === null || sample.ts.getTime() >= slot.sample.ts.getTime()) slot.sample = sample
  }

  /**
   * Takes in a token event and writes its live figures onto it: cost_per_token, tokens_per_second, price_per_hour_usd,
   * window_s, and `late` or `partial` where they apply. `nowMs` is the wall clock.
   */
  price(event: TokenDocument, nowMs: number): void {
    const tsMs = event.ts.getTime()
    const second = Math.floor(tsMs / 1000)
    const { windowSeconds } = this.#options
    let hourlyUsd = 0
    let tokens = 0
    let late = false
    if (event.gpus === undefined) {
      const slot = this.#slot(event.host, event.gpu_index!)
      late = this.#count(slot, event, second, event.prompt_tokens, event.completion_tokens, nowMs)
      hourlyUsd = this.#options.priceOf(slot, slot.sample, tsMs)
      tokens = slot.total.sum(second, windowSeconds)
    } else {
      const indexes = gpuIndexesOf(event)
      const share = shares(event, indexes.length)
      indexes.forEach((gpuIndex, i) => {
        const slot = this.#slot(event.host, gpuIndex)
        late = this.#count(slot, event, second, share.prompt[i]!, share.completion[i]!, nowMs) || late
        hourlyUsd += this.#options.priceOf(slot, slot.sample, tsMs)
        tokens += slot.total.sum(second, windowSeconds)
      })
    }
    event.cost_per_token = late || tokens === 0 ? null : (hourlyUsd * windowSeconds) / 3600 / tokens
    event.tokens_per_second = late ? null : tokens / windowSeconds
    event.price_per_hour_usd = hourlyUsd
    event.window_s = windowSeconds
    if (late) event.late = true
    else if (second - windowSeconds + 1 < this.#knownFromSecond) event.partial = true
  }

  /** The only host with a slot of this index among those whose newest event is within `withinMs` before `tsMs`, else null. */
  onlyHostWith(gpuIndex: number, tsMs: number, withinMs: number): string | null {
    let found: string | null = null
    for (const [host, slots] of this.#slots) {
      if (host === null) continue
      const slot = slots.get(gpuIndex)
      if (slot === undefined || newestMs(slot) < tsMs - withinMs) continue
      if (found !== null) return null
      found = host
    }
    return found
  }

  /** Live figures at a wall-clock instant. A slot's event time goes on with the wall clock after its last event. */
  live(nowMs: number): { models: LiveModel[]; slots: LiveSlot[] } {
    const { windowSeconds, priceOf } = this.#options
    const models = new Map<string, { prompt: number; completion: number; usd: number }>()
    const slots: LiveSlot[] = []
    for (const hostSlots of this.#slots.values()) {
      for (const slot of hostSlots.values()) {
        const last = slot.newestSecond + Math.max(0, Math.floor((nowMs - slot.newestSeenMs) / 1000))
        const tokens = slot.newestSecond < 0 ? 0 : slot.total.sum(last, windowSeconds)
        const hourlyUsd = priceOf(slot, slot.sample, nowMs)
        const windowUsd = (hourlyUsd * windowSeconds) / 3600
        slots.push(describe(slot, hourlyUsd, tokens / windowSeconds, tokens === 0 ? null : windowUsd / tokens))
        if (tokens === 0) continue
        for (const [model, ring] of slot.models) {
          const all = ring.sum(last, windowSeconds)
          if (all === 0) continue
          const prompt = ring.sumPrompt(last, windowSeconds)
          const completion = all - prompt
          const sum = models.get(model) ?? { prompt: 0, completion: 0, usd: 0 }
          sum.prompt += prompt
          sum.completion += completion
          sum.usd += (windowUsd * (prompt + completion)) / tokens
          models.set(model, sum)
        }
      }
    }
    return { models: [...models].map(([model, sum]) => liveModel(model, sum, windowSeconds)), slots }
  }

  /** Number of slots that are kept, for /metrics. */
  get slotCount(): number {
    return this.#slotCount
  }

  /** Adds an event's tokens to a slot; true when the event is late, and then nothing is added. */
  #count(slot: Slot, event: TokenDocument, second: number, prompt: number, completion: number, nowMs: number): boolean {
    if (second < slot.newestSecond - this.#options.allowedLatenessSeconds) return true
    if (second >= slot.newestSecond) {
      slot.newestSecond = second
      slot.newestSeenMs = nowMs
    }
    slot.total.add(second, prompt, completion)
    let ring = slot.models.get(event.model)
    if (ring === undefined) {
      ring = new PaneRing(this.#ringSize)
      slot.models.set(event.model, ring)
      this.#ringCount++
      this.#makeRoom(slot)
    }
    ring.add(second, prompt, completion)
    return false
  }

  #slot(host: string | null, gpuIndex: number): Slot {
    let hostSlots = this.#slots.get(host)
    if (hostSlots === undefined) {
      hostSlots = new Map()
      this.#slots.set(host, hostSlots)
    }
    let slot = hostSlots.get(gpuIndex)
    if (slot === undefined) {
      slot = {
        host,
        gpuIndex,
        total: new PaneRing(this.#ringSize),
        models: new Map(),
        newestSecond: -1,
        newestSeenMs: 0,
        sample: null,
        touched: 0,
      }
      hostSlots.set(gpuIndex, slot)
      this.#slotCount++
      this.#ringCount++
      this.#makeRoom(slot)
    }
    slot.touched = ++this.#clock
    return slot
  }

  /** Drops the tenth of the slots that was seen longest ago once there are too many rings; their sort is paid for once in a while. */
  #makeRoom(keep: Slot): void {
    if (this.#ringCount <= this.#options.maxRings) return
    const all = [...this.#slots.values()].flatMap((slots) => [...slots.values()]).filter((slot) => slot !== keep)
    all.sort((a, b) => a.touched - b.touched)
    for (const slot of all.slice(0, Math.ceil(all.length / 10))) {
      const hostSlots = this.#slots.get(slot.host)!
      hostSlots.delete(slot.gpuIndex)
      if (hostSlots.size === 0) this.#slots.delete(slot.host)
      this.#slotCount--
      this.#ringCount -= 1 + slot.models.size
    }
    if (all.length === 0) {
      this.#ringCount -= keep.models.size
      keep.models.clear()
    }
  }
}

/** An event's tokens spread over its GPUs as integers; the remainder goes to the lowest index. */
function shares(event: TokenDocument, gpus: number): { prompt: number[]; completion: number[] } {
  return { prompt: spread(event.prompt_tokens, gpus), completion: spread(event.completion_tokens, gpus) }
}

/** Splits a count into `parts` integers: equal ones, the remainder on the first. */
export function spread(count: number, parts: number): number[] {
  const each = Math.floor(count / parts)
  const result = new Array<number>(parts).fill(each)
  result[0]! += count - each * parts
  return result
}

function newestMs(slot: Slot): number {
  const sampleMs = slot.sample?.ts.getTime() ?? Number.NEGATIVE_INFINITY
  return Math.max(sampleMs, slot.newestSecond < 0 ? Number.NEGATIVE_INFINITY : slot.newestSecond * 1000)
}

function describe(slot: Slot, hourlyUsd: number, tokensPerSecond: number, costPerToken: number | null): LiveSlot {
  const sample = slot.sample
  return {
    host: slot.host,
    gpu_index: slot.gpuIndex,
    gpu_uuid: sample?.uuid ?? null,
    name: sample?.name ?? null,
    utilization: sample?.utilization ?? null,
    price_per_hour_usd: hourlyUsd,
    tokens_per_second: tokensPerSecond,
    cost_per_token: costPerToken,
    last_sample: sample === null ? null : sample.ts.toISOString(),
  }
}

function liveModel(
  model: string,
  sum: { prompt: number; completion: number; usd: number },
  seconds: number,
): LiveModel {
  const tokens = sum.prompt + sum.completion
  return {
    model,
    tokens_per_second: tokens / seconds,
    prompt_tokens_per_second: sum.prompt / seconds,
    completion_tokens_per_second: sum.completion / seconds,
    cost_per_token: sum.usd / tokens,
    usd_per_million_tokens: (sum.usd / tokens) * 1e6,
  }
}
