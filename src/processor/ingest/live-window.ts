// The live window of a processor, rebuilt from the store: after a start and after each assignment the window is read back
// from the last documents of the store, so that a restart leaves no hole in the live figures. Records between the stored
// position and the crash come again and are in the store already; they are remembered by id and not counted twice.

import type { TokenDocument } from '../../domain/events/documents.ts'
import { SlidingWindow, type SlidingWindowOptions } from '../../domain/live/sliding-window.ts'
import type { EventStore } from '../../store/event-store.ts'

/** How long a host counts as having a GPU after its last event; what a token event without host is matched against. */
export const HOST_MEMORY_MS = 600_000
/** Most ids that are remembered after a rebuild: only the newest documents can come again. */
const MAX_REMEMBERED_IDS = 200_000
/** Most slots whose last sample is read back. */
const MAX_SLOTS = 10_000

export class LiveWindow {
  readonly #options: SlidingWindowOptions
  #window: SlidingWindow
  #rebuiltIds = new Set<string>()

  constructor(options: SlidingWindowOptions) {
    this.#options = options
    this.#window = new SlidingWindow(options)
  }

  get window(): SlidingWindow {
    return this.#window
  }

  /** Reads the window back from the store. Throws a StoreError. */
  async rebuild(store: EventStore): Promise<void> {
    const window = new SlidingWindow(this.#options)
    const ids = new Set<string>()
    const newestSampleMs = await store.newestMs('gpu')
    if (newestSampleMs !== null) {
      for (const sample of await store.latestSamplePerSlot(newestSampleMs - HOST_MEMORY_MS, MAX_SLOTS))
        window.observe(sample)
    }
    const newestTokenMs = await store.newestMs('token')
    if (newestTokenMs !== null) {
      const spanMs = (this.#options.windowSeconds + this.#options.allowedLatenessSeconds) * 1000
      const fromMs = Math.floor((newestTokenMs - spanMs) / 1000) * 1000
      window.knownFrom(fromMs)
      for await (const token of store.readEvents('token', fromMs, newestTokenMs + 1)) {
        ids.add(token._id)
        if (ids.size > MAX_REMEMBERED_IDS) ids.delete(ids.values().next().value!)
        if (!token.late) window.price(token, token.ts.getTime())
      }
    }
    this.#window = window
    this.#rebuiltIds = ids
  }

  /** Prices a token event unless the rebuild counted it already; then its document is in the store and stays as it is. */
  price(event: TokenDocument, nowMs: number): void {
    if (this.#rebuiltIds.size > 0 && this.#rebuiltIds.delete(event._id)) return
    this.#window.price(event, nowMs)
  }

  /** Forgets the ids of the rebuild: everything that could come again has come. */
  caughtUp(): void {
    this.#rebuiltIds = new Set()
  }
}
