// The price of a slot for the live window: the rule in force, else the sample's own price, else the book's default. Until
// the price book has been read the default of the settings counts. The common case, a book without rules, must cost a token
// event nothing, so it makes no BigInt of a sample's price.

import type { GpuDocument } from '../../domain/events/documents.ts'
import { CELL_MS } from '../../domain/ledger/buckets.ts'
import { usd } from '../../domain/prices/money.ts'
import type { PriceBook } from '../../domain/prices/price-book.ts'
import type { PriceBookVersions } from '../prices/price-book-versions.ts'

export class LivePrice {
  readonly #books: PriceBookVersions
  readonly #defaultUsdPerHour: number
  #minute = Number.NaN
  #minuteBook: PriceBook | null = null
  #minuteDefaultUsdPerHour: number

  constructor(books: PriceBookVersions, defaultUsdPerHour: number) {
    this.#books = books
    this.#defaultUsdPerHour = defaultUsdPerHour
    this.#minuteDefaultUsdPerHour = defaultUsdPerHour
  }

  /** Says that the books were read again. */
  refreshed(): void {
    this.#minute = Number.NaN
  }

  /** USD per hour of a slot at an instant. Without energy: what a GPU draws is known only afterwards. */
  priceOf = (slot: { host: string | null; gpuIndex: number }, sample: GpuDocument | null, atMs: number): number => {
    const minute = Math.floor(atMs / CELL_MS)
    if (minute !== this.#minute) this.#turnTo(minute)
    const book = this.#minuteBook
    if (book !== null && book.rules.length > 0) {
      const { host, gpuIndex } = slot
      const rule = book.ruleAt({ host, gpuIndex, uuid: sample?.uuid ?? null, name: sample?.name ?? null }, atMs)
      if (rule !== null) return usd(rule.nanoUsdPerHour)
    }
    return sample?.price_per_hour_usd ?? this.#minuteDefaultUsdPerHour
  }

  #turnTo(minute: number): void {
    this.#minute = minute
    this.#minuteBook = this.#books.versions.length === 0 ? null : this.#books.bookFor(minute * CELL_MS)
    const book = this.#minuteBook
    this.#minuteDefaultUsdPerHour = book === null ? this.#defaultUsdPerHour : usd(book.defaultAt(minute * CELL_MS))
  }
}
