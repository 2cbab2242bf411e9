// The effect of a price change in money: before and after, by model and tenant, and in total. Shown by `prices set`
// (what repricing the last day would change) and by `reprice` (what the past costs from now on). Also what to do where
// a version cannot correct the past, because it keeps the older default for it.

import { defaultsOf } from '../domain/prices/book-defaults.ts'
import { usd } from '../domain/prices/money.ts'
import type { PriceBookDocument } from '../domain/prices/price-book-schema.ts'
import type { MoneyChange, PriceChange } from '../processor/recompute/price-change.ts'
import { textTable } from '../report/table.ts'

/** Text for a terminal. */
export function priceChangeText(change: PriceChange): string {
  const rows = change.by.map((row) => [row.model ?? '(none)', row.tenant ?? '(none)', ...moneyCells(row)])
  const header = ['model', 'tenant', 'before $', 'after $', 'difference $']
  const table = textTable(header, [...rows, ['total', '', ...moneyCells(change)]], [false, false, true, true, true])
  const uncovered = uncoveredText(change)
  const skipped =
    change.skipped_days.length === 0 ? '' : `Frozen days stay as they are: ${change.skipped_days.join(', ')}\n`
  return `${table}${uncovered}${skipped}`
}

/** Whether any money is another. */
export function hasChange(change: PriceChange): boolean {
  return [change, ...change.by].some(
    (money) =>
      money.before_nano_usd !== money.after_nano_usd ||
      money.before_uncovered_nano_usd !== money.after_uncovered_nano_usd,
  )
}

/** The remedy where a book has an older default for the time from `fromMs` on; '' where it has its newest. */
export function keptDefaultText(book: PriceBookDocument, fromMs: number): string {
  const defaults = defaultsOf(book)
  const newest = defaults.at(-1)!
  const kept = defaults.findLast((entry) => entry.from_ms === null || entry.from_ms <= fromMs)!
  if (kept === newest) return ''
  return (
    `\nThe default of ${newest.usd_per_hour} USD/h counts from ${new Date(newest.from_ms!).toISOString()} on: the past ` +
    `keeps ${kept.usd_per_hour} USD/h, also when it is repriced to this version.\n` +
    'Where that was wrong, write this in place of default_usd_per_hour, set the book, and reprice to the new version:\n' +
    `  defaults: [{ from_ms: null, usd_per_hour: ${newest.usd_per_hour} }]\n`
  )
}

function moneyCells({ before_nano_usd: before, after_nano_usd: after }: MoneyChange): string[] {
  const difference = BigInt(after) - BigInt(before)
  return [money(BigInt(before)), money(BigInt(after)), `${difference > 0n ? '+' : ''}${money(difference)}`]
}

function uncoveredText({ before_uncovered_nano_usd: before, after_uncovered_nano_usd: after }: MoneyChange): string {
  if (before === '0' && after === '0') return ''
  return `Beside it, paid for and not monitored: ${money(BigInt(before))} before, ${money(BigInt(after))} after\n`
}

function money(nanoUsd: bigint): string {
  return usd(nanoUsd).toLocaleString('en-US', { minimumFractionDigits: 4, maximumFractionDigits: 9 })
}
