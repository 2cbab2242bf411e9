// The effect of a price change in money: before and after, by model and tenant, and in total. Shown by `prices set`
// (what the last day would have cost) and by `reprice` (what the past costs from now on).

import { usd } from '../domain/prices/money.ts'
import type { MoneyChange, PriceChange } from '../processor/recompute/price-change.ts'
import { textTable } from '../report/table.ts'

/** Text for a terminal. */
export function priceChangeText(change: PriceChange): string {
  const rows = change.by.map((row) => [row.model ?? '-', row.tenant ?? '-', ...moneyCells(row)])
  const header = ['model', 'tenant', 'before $', 'after $', 'difference $']
  const table = textTable(header, [...rows, ['total', '', ...moneyCells(change)]], [false, false, true, true, true])
  const uncovered = uncoveredText(change)
  const skipped =
    change.skipped_days.length === 0 ? '' : `Frozen days stay as they are: ${change.skipped_days.join(', ')}\n`
  return `${table}${uncovered}${skipped}`
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
