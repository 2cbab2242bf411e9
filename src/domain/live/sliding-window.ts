// The live window: what a token costs right now on each GPU. State in memory, in panes of one second of event time per
// slot (host + GPU index); it prices each token event as it passes, feeds the live view (live-figures.ts), and is
// rebuilt from the store after a restart. It is never the record: the ledger is.
//
//   cost_per_token = Σ price per hour of the slots × window / 3600 ÷ tokens on the slots in the window that ends at the
//   event's second, the event included — always the full window's cost, so that the figure can be rebuilt.
//
// Late is one comparison, per slot: the event's second is more than the allowed lateness behind the newest one of its
// slot. A host whose clock runs ahead makes no other host late. Memory is bounded by `maxRings`, about 1.3 KB each, one
// for each slot and for each model on it: the least recently used slots are evicted.

import { type GpuDocument, gpuIndexesOf, type TokenDocument } from '../events/event.ts'
import { type LiveFigures, liveFigures, type PriceOfSlot } from './live-figures.ts'
import { lastSecond, PaneRing, type Slot } from './panes.ts'

export interface SlidingWindowOptions {
  /** Length of the window, seconds. */
  windowSeconds: number
  /** How far behind its slot's newest second an event may be and still be priced, seconds. */
  allowedLatenessSeconds: number
  priceOf: PriceOfSlot
  /** The one name of a host that has several; each its own when absent. */
  nameOf?: (host: string | null) => string | null
  maxRings?: number
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
    this.#options = { maxRings: 20_000, nameOf: (host) => host, ...options }
    this.#ringSize = options.windowSeconds + options.allowedLatenessSeconds + 1
  }

  /** Token events before this instant were not replayed into the window: figures that need them are marked partial. */
  knownFrom(atMs: number): void {
    this.#knownFromSecond = Math.floor(atMs / 1000)
  }

  /** Adds a GPU sample: the newest one by event time gives the slot its price, name and utilisation. */
  observe(sample: GpuDocument): void {
    const slot = this.#slot(sample.host, sample.gpu_index)
    if (slot.sample === null || sample.ts.getTime() >= slot.sample.ts.getTime()) slot.sample = sample
  }

  /**
   * Adds a token event and writes its live figures onto it: cost_per_token, tokens_per_second, price_per_hour_usd,
   * window_s, and `late` or `partial` where they apply. `nowMs` is the wall clock.
   */
  price(event: TokenDocument, nowMs: number): void {
    const tsMs = event.ts.getTime()
    const second = lastSecond(event)
    const { windowSeconds } = this.#options
    let hourlyUsd = 0
    let tokens = 0
    let late = false
    if (event.gpus === undefined) {
      const slot = this.#slot(event.host, event.gpu_index!)
      late = this.#count(slot, event, second, event.prompt_tokens, event.completion_tokens, nowMs)
      hourlyUsd = this.#options.priceOf(slot, slot.sample, tsMs).usdPerHour
      tokens = slot.total.sum(second, windowSeconds)
    } else {
      const indexes = gpuIndexesOf(event)
      const share = shares(event, indexes.length)
      indexes.forEach((gpuIndex, i) => {
        const slot = this.#slot(event.host, gpuIndex)
        late = this.#count(slot, event, second, share.prompt[i]!, share.completion[i]!, nowMs) || late
        hourlyUsd += this.#options.priceOf(slot, slot.sample, tsMs).usdPerHour
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

  /**
   * The only host with a slot of this index among those whose newest event is within `withinMs` before `tsMs`, else
   * null.
   */
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

  /** Live figures at a wall-clock instant; a sample stands for its slot as long as the ledger lets it. */
  live(nowMs: number, maxSampleGapMs: number): LiveFigures {
    return liveFigures([...this.#allSlots()], { ...this.#options, maxSampleGapMs }, nowMs)
  }

  /** Forgets the slots of names that stand for another host from now on: their next events are that host's. */
  forgetJoined(): void {
    for (const slot of this.#allSlots()) if (this.#options.nameOf(slot.host) !== slot.host) this.#forget(slot)
  }

  /** Number of slots that are kept, for /metrics. */
  get slotCount(): number {
    return this.#slotCount
  }

  /** Adds an event's tokens to a slot. Returns whether the event is late; then nothing is added. */
  #count(slot: Slot, event: TokenDocument, second: number, prompt: number, completion: number, nowMs: number): boolean {
    if (second < slot.newestSecond - this.#options.allowedLatenessSeconds) return true
    if (second >= slot.newestSecond) {
      slot.newestSecond = second
      slot.newestSeenMs = nowMs
    }
    slot.total.addOver(event, slot.newestSecond, { prompt, completion })
    let ring = slot.models.get(event.model)
    if (ring === undefined) {
      ring = new PaneRing(this.#ringSize)
      slot.models.set(event.model, ring)
      this.#ringCount++
      this.#makeRoom(slot)
    }
    ring.addOver(event, slot.newestSecond, { prompt, completion })
    return false
  }

  #slot(name: string | null, gpuIndex: number): Slot {
    const host = this.#options.nameOf(name)
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

  *#allSlots(): Generator<Slot> {
    for (const hostSlots of this.#slots.values()) yield* hostSlots.values()
  }

  /** Evicts the least recently used tenth of the slots once there are too many rings, so that sorting them is rare. */
  #makeRoom(keep: Slot): void {
    if (this.#ringCount <= this.#options.maxRings) return
    const all = [...this.#allSlots()].filter((slot) => slot !== keep)
    all.sort((a, b) => a.touched - b.touched)
    for (const slot of all.slice(0, Math.ceil(all.length / 10))) this.#forget(slot)
    if (all.length === 0) {
      this.#ringCount -= keep.models.size
      keep.models.clear()
    }
  }

  #forget(slot: Slot): void {
    const hostSlots = this.#slots.get(slot.host)!
    hostSlots.delete(slot.gpuIndex)
    if (hostSlots.size === 0) this.#slots.delete(slot.host)
    this.#slotCount--
    this.#ringCount -= 1 + slot.models.size
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
