// The live price of each token event as it passes, and the host of events that name none. Joins the live window with
// the price book; rebuilt from the store's last documents after a start and after each assignment, so that a restart
// leaves no hole in the live figures. Records between the stored position and a crash are delivered again and are in
// the store already: they are remembered by id and not counted twice. The record is the ledger, never these figures.

import type { GpuDocument, TokenDocument } from '../../domain/events/event.ts'
import { CELL_MS, MAX_SAMPLE_GAP_MS } from '../../domain/ledger/buckets.ts'
import type { LiveFigures, LivePrice } from '../../domain/live/live-figures.ts'
import { SlidingWindow } from '../../domain/live/sliding-window.ts'
import type { HostNames } from '../../domain/prices/host-names.ts'
import { nanoUsd, usd } from '../../domain/prices/money.ts'
import type { PriceBook } from '../../domain/prices/price-book.ts'
import { effectivePrice } from '../../domain/prices/price-rule.ts'
import type { EventStore } from '../../store/event-store.ts'
import type { PriceBookVersion } from '../../store/ledger-store.ts'
import type { PriceBookVersions } from '../prices/price-book-versions.ts'

export interface LivePricesOptions {
  /** Length of the live window, seconds. */
  windowSeconds: number
  /** How far behind its slot's newest second an event may be and still be priced, seconds. */
  allowedLatenessSeconds: number
  /** Host of events that name none; null: inferred where possible. */
  defaultHost: string | null
  /** Price of a slot without sample price until a price book has been read, USD per hour. */
  defaultUsdPerHour: number
}

/** How long a host counts as having a GPU after its last event, milliseconds. */
const HOST_MEMORY_MS = 600_000
/** Most ids that are remembered after a rebuild: only the newest documents can be delivered again. */
const MAX_REMEMBERED_IDS = 200_000
/** Most slots whose last sample is read back. */
const MAX_SLOTS = 10_000

export class LivePrices {
  readonly #books: PriceBookVersions
  readonly #options: LivePricesOptions
  #window: SlidingWindow
  #rebuiltIds = new Set<string>()
  /** The book of one minute, and the versions that it was chosen from. */
  #minute = Number.NaN
  #versions: readonly PriceBookVersion[] = []
  #book: PriceBook | null = null
  /** By which names are joined. */
  #hosts: HostNames
  #defaultNanoUsdPerHour: bigint

  /** `books` may be unread; a refresh of it takes effect with the next event. */
  constructor(books: PriceBookVersions, options: LivePricesOptions) {
    this.#books = books
    this.#options = options
    this.#hosts = books.hosts
    this.#defaultNanoUsdPerHour = nanoUsd(options.defaultUsdPerHour)
    this.#window = this.#emptyWindow()
  }

  /** Adds a sample to the window, with the default host where it names none. */
  observe(sample: GpuDocument): void {
    this.#followNames()
    if (sample.host === null) setHost(sample, this.#options.defaultHost)
    this.#window.observe(sample)
  }

  /**
   * Writes host and live price onto a token event; `nowMs` is the wall clock. One that the rebuild counted already has
   * its document in the store, which stays as it is.
   */
  price(event: TokenDocument, nowMs: number): void {
    this.#followNames()
    if (event.host === null) {
      const gpuIndex = event.gpus?.[0] ?? event.gpu_index!
      const { defaultHost } = this.#options
      setHost(event, defaultHost ?? this.#window.onlyHostWith(gpuIndex, event.ts.getTime(), HOST_MEMORY_MS))
    }
    if (this.#rebuiltIds.size > 0 && this.#rebuiltIds.delete(event._id)) return
    this.#window.price(event, nowMs)
  }

  /** Live figures of the fleet, by model and by slot at a wall-clock instant. */
  live(nowMs: number): LiveFigures & { window_s: number } {
    const maxSampleGapMs = this.#book?.maxSampleGapMs ?? MAX_SAMPLE_GAP_MS
    return { window_s: this.#options.windowSeconds, ...this.#window.live(nowMs, maxSampleGapMs) }
  }

  get slotCount(): number {
    return this.#window.slotCount
  }

  get windowSeconds(): number {
    return this.#options.windowSeconds
  }

  /** Reads the window back from the store. Throws a StoreError; then the window stays as it was. */
  async rebuild(store: EventStore): Promise<void> {
    // Prices and joined names are those of the book, which may not have been read yet.
    if (this.#books.versions.length === 0) await this.#books.refresh()
    const window = this.#emptyWindow()
    const ids = new Set<string>()
    const newestSampleMs = await store.newestMs('gpu')
    if (newestSampleMs !== null) {
      for (const sample of await store.latestSamplePerSlot(newestSampleMs - HOST_MEMORY_MS, MAX_SLOTS))
        window.observe(sample)
    }
    const newestTokenMs = await store.newestMs('token')
    if (newestTokenMs !== null) {
      const lengthMs = (this.#options.windowSeconds + this.#options.allowedLatenessSeconds) * 1000
      const fromMs = Math.floor((newestTokenMs - lengthMs) / 1000) * 1000
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

  /** Forgets the ids of the rebuild: everything that could be delivered again has been. */
  caughtUp(): void {
    this.#rebuiltIds = new Set()
  }

  /** A new book may join other names. */
  #followNames(): void {
    const { hosts } = this.#books
    if (hosts === this.#hosts) return
    this.#hosts = hosts
    this.#window.forgetJoined()
  }

  #emptyWindow(): SlidingWindow {
    const { windowSeconds, allowedLatenessSeconds } = this.#options
    const nameOf = (host: string | null) => this.#hosts.nameOf(host)
    return new SlidingWindow({ windowSeconds, allowedLatenessSeconds, nameOf, priceOf: this.#priceOf })
  }

  /**
   * Price of a slot at an instant: the effective rule, else the sample's own price, else the book's default. An owned
   * GPU costs its fixed part and what it draws by its newest sample, as long as that stands for the time after it. A
   * book without rules is the common case and makes no BigInt.
   */
  readonly #priceOf = (
    { host, gpuIndex }: { host: string | null; gpuIndex: number },
    sample: GpuDocument | null,
    atMs: number,
  ): LivePrice => {
    const minute = Math.floor(atMs / CELL_MS)
    if (minute !== this.#minute || this.#versions !== this.#books.versions) this.#selectBook(minute)
    const { uuid = null, name = null, price_per_hour_usd = null, power_w = null } = sample ?? {}
    const hasRules = this.#book !== null && this.#book.rules.length > 0
    const rule = hasRules ? this.#book!.ruleAt({ host, gpuIndex, uuid, name }, atMs) : null
    if (rule?.followsPower) {
      const isPresent = sample !== null && atMs < sample.ts.getTime() + this.#book!.maxSampleGapMs
      return isPresent && power_w !== null
        ? { usdPerHour: usd(rule.priceAtPower(power_w)), basis: 'rule_with_power' }
        : { usdPerHour: usd(rule.nanoUsdPerHour), basis: 'rule_without_power' }
    }
    const { kind, usdPerHour } = effectivePrice(rule, price_per_hour_usd, this.#defaultNanoUsdPerHour)
    return { usdPerHour, basis: kind === 'sample' || kind === 'default' ? kind : 'rule' }
  }

  #selectBook(minute: number): void {
    const atMs = minute * CELL_MS
    this.#minute = minute
    this.#versions = this.#books.versions
    this.#book = this.#versions.length === 0 ? null : this.#books.bookFor(atMs)
    this.#defaultNanoUsdPerHour = this.#book?.defaultAt(atMs) ?? nanoUsd(this.#options.defaultUsdPerHour)
  }
}

function setHost(document: GpuDocument | TokenDocument, host: string | null): void {
  if (host === null) return
  document.host = host
  document.host_inferred = true
}
