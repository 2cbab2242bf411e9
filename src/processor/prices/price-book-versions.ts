// The price books of a store: which version prices a minute. Versions count from an instant on and never change the past;
// a revision pins a range of the past to a version, and the newest revision whose range holds a minute wins. So the book
// of a minute is a function of two lists that only ever grow, and any process that has read both says the same. PriceBookVersions are
// compiled when they are first asked for, and kept. How a new version comes about is in book-versions.ts.

import { CELL_MS, floorTo } from '../../domain/ledger/buckets.ts'
import { PriceBook } from '../../domain/prices/price-book.ts'
import type { PriceBookDocument } from '../../domain/prices/price-book-schema.ts'
import type { LedgerStore, PriceBookVersion, Revision } from '../../store/ledger-store.ts'

export class PriceBookVersions {
  readonly #ledger: LedgerStore
  readonly #compiled = new Map<number, PriceBook>()
  #versions: PriceBookVersion[] = []
  #revisions: Revision[] = []
  /** Whether there are claims, as of that many versions. */
  #claims: { versions: number; any: boolean } | null = null

  /** Empty until the first `refresh`. */
  constructor(ledger: LedgerStore) {
    this.#ledger = ledger
  }

  /** PriceBookVersions with these lists, for questions of the kind "what if". */
  static of(
    ledger: LedgerStore,
    versions: readonly PriceBookVersion[],
    revisions: readonly Revision[],
  ): PriceBookVersions {
    const books = new PriceBookVersions(ledger)
    books.#take(versions, revisions)
    return books
  }

  /** Reads versions and revisions again; whether there are new ones. Throws a StoreError. */
  async refresh(): Promise<boolean> {
    const before = this.#versions.length + this.#revisions.length
    // Revisions first: a revision's version was inserted before it, so it is among the versions read after it.
    const revisions = await this.#ledger.readRevisions()
    this.#take(await this.#ledger.readBooks(), revisions)
    return this.#versions.length + this.#revisions.length !== before
  }

  /** All versions that were read, ascending. */
  get versions(): readonly PriceBookVersion[] {
    return this.#versions
  }

  /** All revisions that were read, ascending. */
  get revisions(): readonly Revision[] {
    return this.#revisions
  }

  /**
   * The book that prices the cell that starts at `minuteMs`: the pinned one of the newest revision whose range holds the
   * minute, else the newest version that counts from the minute or before. Of revisions only those up to `upToRevision`.
   * Throws a RangeError while there is no version at all.
   */
  bookFor(minuteMs: number, upToRevision = Number.POSITIVE_INFINITY): PriceBook {
    return this.bookByVersion(this.versionFor(minuteMs, upToRevision))
  }

  /** The number of the version that `bookFor` compiles. */
  versionFor(minuteMs: number, upToRevision = Number.POSITIVE_INFINITY): number {
    const pinned = this.#revisions.findLast(
      ({ revision, fromMs, toMs }) => revision <= upToRevision && fromMs <= minuteMs && minuteMs < toMs,
    )
    if (pinned !== undefined) return pinned.bookVersion
    const inForce = this.#versions.findLast(({ fromMs }) => fromMs === null || fromMs <= minuteMs)
    // The first version counts from the beginning; should it ever not, what is before it has no better price.
    const version = inForce ?? this.#versions[0]
    if (version === undefined) throw new RangeError('No price book yet: none was set, and no default at start')
    return version.version
  }

  /** A version, compiled. Throws a RangeError when it was not among those that were read. */
  bookByVersion(version: number): PriceBook {
    const known = this.#compiled.get(version)
    if (known !== undefined) return known
    const found = this.#versions.find((one) => one.version === version)
    if (found === undefined) throw new RangeError(`Unknown version of the price book: ${version}`)
    const book = new PriceBook(found.book as PriceBookDocument, version)
    this.#compiled.set(version, book)
    return book
  }

  /** Whether any version claims GPUs (`PriceBook.claimedHosts`) at any time. */
  get hasClaims(): boolean {
    if (this.#claims?.versions !== this.#versions.length) {
      const any = this.#versions.some(({ book }) => claims(book as PriceBookDocument))
      this.#claims = { versions: this.#versions.length, any }
    }
    return this.#claims.any
  }

  #take(versions: readonly PriceBookVersion[], revisions: readonly Revision[]): void {
    // Both only grow; of two reads that were under way at once, the older one must not win.
    if (versions.length >= this.#versions.length) this.#versions = versions.toSorted((a, b) => a.version - b.version)
    if (revisions.length < this.#revisions.length) return
    this.#revisions = revisions.toSorted((a, b) => a.revision - b.revision)
  }
}

/** The first whole minute after an instant: from when on a change that is made now counts. */
export function nextMinuteMs(nowMs: number): number {
  return floorTo(CELL_MS, nowMs) + CELL_MS
}

function claims({ rules }: PriceBookDocument): boolean {
  return rules.some(
    ({ match, from }) => match.host !== undefined && match.gpu_index !== undefined && from !== undefined,
  )
}
