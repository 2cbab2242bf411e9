// The versions of a store's price book: which one prices a minute, and how a new one comes about. Versions count from
// an instant on and never change the past; a revision pins a range of the past to a version, and the newest revision
// whose range holds a minute wins. So the book of a minute is a function of two lists that only grow, and all processes
// that have read both agree. A new book is checked as a whole and inserted under the next number; a process that finds
// the number taken reads again and tries the next, so two that start with the same default make one version.

import { parseInstantMs } from '../../domain/events/timestamp.ts'
import { CELL_MS, DAY_MS, floorTo } from '../../domain/ledger/buckets.ts'
import { defaultsOf, initialBook, succeed, withDefault } from '../../domain/prices/book-defaults.ts'
import { HostNames } from '../../domain/prices/host-names.ts'
import { PriceBook } from '../../domain/prices/price-book.ts'
import { checkPriceBook, problemText } from '../../domain/prices/price-book-check.ts'
import type { PriceBookDocument } from '../../domain/prices/price-book-schema.ts'
import type { Problem } from '../../domain/prices/schema-errors.ts'
import type { LedgerStore, PriceBookVersion, Revision } from '../../store/ledger-store.ts'

const NO_NAMES = new HostNames(undefined)

export class PriceBookVersions {
  readonly #ledger: LedgerStore
  /** Compiled on first use, and kept. */
  readonly #compiled = new Map<number, PriceBook>()
  #versions: PriceBookVersion[] = []
  #revisions: Revision[] = []
  /** Where commitments begin, as of that many versions. */
  #commitments: { versions: number; fromMs: number } | null = null

  /** Empty until the first `refresh`. */
  constructor(ledger: LedgerStore) {
    this.#ledger = ledger
  }

  /** Reads versions and revisions again; returns whether there are new ones. Rejects with a StoreError. */
  async refresh(): Promise<boolean> {
    const before = this.#versions.length + this.#revisions.length
    // Revisions first: a revision's version was inserted before it, so it is among the versions read after it.
    const revisions = await this.#ledger.readRevisions()
    const versions = await this.#ledger.readBooks()
    // Both only grow; of two reads that were under way at once, the older one must not win.
    if (versions.length >= this.#versions.length) this.#versions = versions.toSorted((a, b) => a.version - b.version)
    if (revisions.length >= this.#revisions.length) {
      this.#revisions = revisions.toSorted((a, b) => a.revision - b.revision)
    }
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
   * The book that prices the cell that starts at `minuteMs`: the pinned one of the newest revision whose range holds
   * the minute, else the newest version that counts from the minute or before. Of revisions only those up to
   * `upToRevision`. Throws a RangeError while there is no version at all.
   */
  bookFor(minuteMs: number, upToRevision = Number.POSITIVE_INFINITY): PriceBook {
    return this.bookByVersion(this.versionFor(minuteMs, upToRevision))
  }

  /** The number of the version that `bookFor` returns. */
  versionFor(minuteMs: number, upToRevision = Number.POSITIVE_INFINITY): number {
    const pinned = this.#revisions.findLast(
      ({ revision, fromMs, toMs }) => revision <= upToRevision && fromMs <= minuteMs && minuteMs < toMs,
    )
    if (pinned !== undefined) return pinned.bookVersion
    const effective = this.#versions.findLast(({ fromMs }) => fromMs === null || fromMs <= minuteMs)
    // The first version counts from the beginning; should it ever not, what is before it has no better price.
    const version = effective ?? this.#versions[0]
    if (version === undefined) throw new RangeError('No price book yet: none was set, and no default at start')
    return version.version
  }

  /** Which names stand for one host by the newest version: for what is live, not for the ledger. */
  get hosts(): HostNames {
    const newest = this.#versions.at(-1)
    return newest === undefined ? NO_NAMES : this.bookByVersion(newest.version).hosts
  }

  /** When the version or revision that prices a minute was made, epoch milliseconds. */
  pricedSinceMs(minuteMs: number): number {
    const pinned = this.#revisions.findLast(({ fromMs, toMs }) => fromMs <= minuteMs && minuteMs < toMs)
    const version = this.versionFor(minuteMs)
    return (pinned ?? this.#versions.find((one) => one.version === version)!).atMs
  }

  /** A version, compiled. Throws a RangeError when it was not among those that were read. */
  bookByVersion(version: number): PriceBook {
    const known = this.#compiled.get(version)
    if (known !== undefined) return known
    const found = this.#versions.find((candidate) => candidate.version === version)
    if (found === undefined) throw new RangeError(`Unknown version of the price book: ${version}`)
    const commitmentsFromMs = commitmentsReachMs(found)
    const book = new PriceBook(found.book as PriceBookDocument, version, { commitmentsFromMs })
    this.#compiled.set(version, book)
    return book
  }

  /** The first instant at which any version has commitments with a slot (`PriceBook.committedHosts`); else Infinity. */
  get committedFromMs(): number {
    if (this.#commitments?.versions !== this.#versions.length) {
      const starts = this.#versions.map((version) =>
        Math.max(firstCommitmentMs(version.book as PriceBookDocument), commitmentsReachMs(version)),
      )
      this.#commitments = { versions: this.#versions.length, fromMs: Math.min(Number.POSITIVE_INFINITY, ...starts) }
    }
    return this.#commitments.fromMs
  }
}

/**
 * Unreported GPUs that are paid for get cells at most this many days back from when their book was set. Each has 1,440
 * cells a day: a rule from 2015 would make five million. It is counted from the version's own time, not from now, so
 * that it is the same for every reader at any time.
 */
export const MAX_COMMITTED_DAYS = 400

/** Where the commitments of a version begin at the earliest: a whole day. */
function commitmentsReachMs({ atMs }: PriceBookVersion): number {
  return floorTo(DAY_MS, atMs) - MAX_COMMITTED_DAYS * DAY_MS
}

/** The commitments of a book that begin before its reach. */
function reachWarnings({ rules }: PriceBookDocument, version: PriceBookVersion): Problem[] {
  const reachMs = commitmentsReachMs(version)
  const expected = `at most ${MAX_COMMITTED_DAYS} days back: before ${new Date(reachMs).toISOString()} unreported time is not shown`
  return rules.flatMap((rule, i) =>
    firstCommitmentMs({ rules: [rule] }) < reachMs
      ? [{ path: `/rules/${i}/from`, line: null, field: 'from', value: JSON.stringify(rule.from), expected }]
      : [],
  )
}

/** Without compiling the book; Infinity where it has no commitment with a slot. */
function firstCommitmentMs({ rules }: Pick<PriceBookDocument, 'rules'>): number {
  let firstMs = Number.POSITIVE_INFINITY
  for (const { match, from } of rules) {
    if (match.host !== undefined && match.gpu_index !== undefined && from !== undefined) {
      firstMs = Math.min(firstMs, parseInstantMs(from))
    }
  }
  return firstMs
}

/** A price book that did not pass its check: the old one stays effective. */
export class InvalidPriceBook extends Error {
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[]) {
    super(`Price book is refused: ${problems.map(problemText).join('; ')}`)
    this.name = 'InvalidPriceBook'
    this.problems = problems
  }
}

export interface SetBookResult {
  /** The version with the content that was asked for. */
  version: PriceBookVersion
  /** False when the newest version had the same content already. */
  isNew: boolean
  /** What is odd in it, but allowed. */
  warnings: Problem[]
}

/**
 * Checks a price book of any origin and makes it the newest version, effective from the next whole minute after
 * `nowMs`; the very first one from the beginning. Cells that exist keep their price, and nothing has to be marked,
 * since a minute is computed only long after its end. A book without `default_usd_per_hour` keeps the effective
 * default. Rejects with InvalidPriceBook, which has all problems, or a StoreError.
 */
export async function setBook(
  ledger: LedgerStore,
  next: unknown,
  { origin, nowMs }: { origin: string; nowMs: number },
): Promise<SetBookResult> {
  const checked = checkPriceBook(next)
  if (checked.book === null) throw new InvalidPriceBook(checked.problems)
  const wanted = checked.book
  const { version, isNew } = await insertVersion(ledger, { origin, nowMs }, (newest, fromMs) => {
    if (newest === null) return wanted
    const book = succeed(newest, wanted, fromMs!)
    return canonical(book) === canonical(newest) ? null : book
  })
  return { version, isNew, warnings: [...checked.warnings, ...reachWarnings(wanted, version)] }
}

/**
 * `PRICE_PER_HOUR_USD` at start: the default of the first version, from the beginning; where it differs from the newest
 * version's default, the default from the next whole minute on, with a version. Null when nothing had to change.
 */
export async function ensureDefault(
  ledger: LedgerStore,
  usdPerHour: number,
  nowMs: number,
): Promise<PriceBookVersion | null> {
  const { version, isNew } = await insertVersion(ledger, { origin: 'environment', nowMs }, (newest, fromMs) =>
    newest === null ? initialBook(usdPerHour) : withDefault(newest, usdPerHour, fromMs!),
  )
  return isNew ? version : null
}

/** Inserts what `make` makes of the newest book; null: nothing to insert. `fromMs` is null for the first version. */
async function insertVersion(
  ledger: LedgerStore,
  { origin, nowMs }: { origin: string; nowMs: number },
  make: (newest: PriceBookDocument | null, fromMs: number | null) => PriceBookDocument | null,
): Promise<{ version: PriceBookVersion; isNew: boolean }> {
  for (;;) {
    const newest = newestOf(await ledger.readBooks())
    // Versions count in their order, whatever the clocks of the machines that made them.
    const nextMinuteMs = floorTo(CELL_MS, nowMs) + CELL_MS
    const fromMs = newest === null ? null : Math.max(nextMinuteMs, newest.fromMs ?? Number.NEGATIVE_INFINITY)
    const book = make(newest === null ? null : (newest.book as PriceBookDocument), fromMs)
    if (book === null) return { version: newest!, isNew: false }
    const version: PriceBookVersion = { version: (newest?.version ?? 0) + 1, fromMs, atMs: nowMs, origin, book }
    if (await ledger.insertBook(version)) return { version, isNew: true }
  }
}

function newestOf(versions: readonly PriceBookVersion[]): PriceBookVersion | null {
  return versions.reduce<PriceBookVersion | null>((a, b) => (a === null || b.version > a.version ? b : a), null)
}

/** The book as text in which the order of fields does not count; the default's history stands for a lone default. */
function canonical(book: PriceBookDocument): string {
  const { default_usd_per_hour: _, ...rest } = book
  return JSON.stringify({ ...rest, defaults: defaultsOf(book) }, (_key, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([x], [y]) => (x < y ? -1 : 1)))
      : value,
  )
}
