// The default price of a book over time, and what a new book takes over from the old one: the past keeps its default.

import { DEFAULT_USD_PER_HOUR, type DefaultPrice, type PriceBookDocument } from './price-book-schema.ts'

/** The default over time of a book, in order of time; the first entry has no start. */
export function defaultsOf(data: PriceBookDocument): DefaultPrice[] {
  if (data.defaults === undefined) {
    return [{ from_ms: null, usd_per_hour: data.default_usd_per_hour ?? DEFAULT_USD_PER_HOUR }]
  }
  return data.defaults.toSorted((a, b) => (a.from_ms ?? -1) - (b.from_ms ?? -1))
}

/** The book of a new store: no rules, and this default for all time. */
export function initialBook(usdPerHour: number): PriceBookDocument {
  return { currency: 'USD', default_usd_per_hour: usdPerHour, rules: [] }
}

/**
 * The book with another default from an instant on, or null when that is its default then already: the past keeps its
 * price. `PRICE_PER_HOUR_USD` at start is such a change. Changes planned for later instants are dropped.
 */
export function withDefault(data: PriceBookDocument, usdPerHour: number, fromMs: number): PriceBookDocument | null {
  const { default_usd_per_hour: _, ...rest } = data
  const kept = defaultsOf(data).filter((entry) => entry.from_ms === null || entry.from_ms <= fromMs)
  if (kept.at(-1)!.usd_per_hour === usdPerHour) return null
  const before = kept.filter((entry) => entry.from_ms !== fromMs)
  return { ...rest, defaults: [...before, { from_ms: fromMs, usd_per_hour: usdPerHour }] }
}

/** A new book in place of an old one: the default's history continues, a new default counts from `atMs`. */
export function succeed(old: PriceBookDocument, next: PriceBookDocument, atMs: number): PriceBookDocument {
  if (next.defaults !== undefined) return next
  const { default_usd_per_hour: usdPerHour, ...rest } = next
  const carried = { ...rest, defaults: defaultsOf(old) }
  return usdPerHour === undefined ? carried : (withDefault(carried, usdPerHour, atMs) ?? carried)
}
