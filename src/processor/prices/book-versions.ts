// How a version of the price book comes about: checked as a whole, made the successor of the newest version, and inserted
// under the next number; who finds that number taken reads again and tries the next, so two processors that start with
// the same default make one version. A version counts from the next whole minute on: cells that exist keep their price,
// and nothing has to be marked, since a minute is computed only long after its end.

import { defaultsOf, initialBook, succeed, withDefault } from '../../domain/prices/price-book.ts'
import { checkPriceBook, problemText } from '../../domain/prices/price-book-check.ts'
import type { PriceBookDocument } from '../../domain/prices/price-book-schema.ts'
import type { Problem } from '../../domain/prices/schema-errors.ts'
import type { LedgerStore, PriceBookVersion } from '../../store/ledger-store.ts'
import { nextMinuteMs } from './price-book-versions.ts'

/** A price book that did not pass its check: the old one stays in force. */
export class InvalidPriceBook extends Error {
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[]) {
    super(`Price book is refused: ${problems.map(problemText).join('; ')}`)
    this.name = 'InvalidPriceBook'
    this.problems = problems
  }
}

export interface SetBookResult {
  /** The version that says what was asked for. */
  version: PriceBookVersion
  /** False when the newest version said the same already. */
  isNew: boolean
  /** What is odd in it, but allowed. */
  warnings: Problem[]
}

/**
 * Checks a price book of any origin and makes it the newest version, in force from the next whole minute after `nowMs`;
 * the very first one from the beginning. A book without `default_usd_per_hour` keeps the default in force. Throws
 * InvalidPriceBook with all problems, or a StoreError.
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
    return sameBook(book, newest) ? null : book
  })
  return { version, isNew, warnings: checked.warnings }
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

/** Inserts what `make` makes of the newest book; null: nothing to insert. `fromMs` is null for the first version only. */
async function insertVersion(
  ledger: LedgerStore,
  { origin, nowMs }: { origin: string; nowMs: number },
  make: (newest: PriceBookDocument | null, fromMs: number | null) => PriceBookDocument | null,
): Promise<{ version: PriceBookVersion; isNew: boolean }> {
  for (;;) {
    const newest = newestOf(await ledger.readBooks())
    const fromMs = countsFromMs(newest, nowMs)
    const book = make(newest === null ? null : (newest.book as PriceBookDocument), fromMs)
    if (book === null) return { version: newest!, isNew: false }
    const version: PriceBookVersion = { version: (newest?.version ?? 0) + 1, fromMs, atMs: nowMs, origin, book }
    if (await ledger.insertBook(version)) return { version, isNew: true }
  }
}

/** Versions count in their order, whatever the clocks of those who made them said. */
function countsFromMs(newest: PriceBookVersion | null, nowMs: number): number | null {
  return newest === null ? null : Math.max(nextMinuteMs(nowMs), newest.fromMs ?? Number.NEGATIVE_INFINITY)
}

function newestOf(versions: readonly PriceBookVersion[]): PriceBookVersion | null {
  return versions.reduce<PriceBookVersion | null>((a, b) => (a === null || b.version > a.version ? b : a), null)
}

function sameBook(a: PriceBookDocument, b: PriceBookDocument): boolean {
  return canonical(a) === canonical(b)
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
