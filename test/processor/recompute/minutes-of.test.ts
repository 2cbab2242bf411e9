// A token event that sums over time is counted before its ts. Whoever works on a range of events must not begin at the
// first one's ts: reprice and old revisions include the minutes before it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HOUR_MS } from '../../../src/domain/ledger/buckets.ts'
import { totalNanoUsd } from '../../../src/domain/ledger/rows.ts'
import type { CellRow } from '../../../src/domain/ledger/types.ts'
import { setBook } from '../../../src/processor/prices/price-book-versions.ts'
import { ledgerAsOf } from '../../../src/processor/recompute/ledger-as-of.ts'
import { reprice } from '../../../src/processor/recompute/reprice.ts'
import { LedgerPlace, MINUTE, openSqlite, T0, token } from '../ledger/ledger-place.ts'

const doubled = { currency: 'USD', rules: [{ id: 'r', match: { host: 'a' }, kind: 'spot', usd_per_hour: 1.2 }] }

function totalOf(cells: Iterable<readonly CellRow[]>): bigint {
  return [...cells].flat().reduce((sum, row) => sum + totalNanoUsd(row), 0n)
}

test('the minutes before the first event that it sums over are repriced and reported too', async () => {
  const { store, dispose } = openSqlite()
  try {
    const place = await LedgerPlace.on(store)
    await place.step([], [token(T0 + 50 * MINUTE, { interval_s: 2400, prompt_tokens: 10_000 })])
    await place.settle()
    const before = await place.spans('minute')
    assert.deepEqual([before.size, totalOf(before.values())], [40, 400_000_000n])
    const { version } = (await setBook(place.ledger, doubled, { origin: 'test', nowMs: place.nowMs })).version
    const range = { fromMs: T0, toMs: T0 + HOUR_MS }
    const { summary } = await reprice({ ledger: place.ledger, ...range, bookVersion: version, nowMs: place.nowMs })
    assert.deepEqual([summary.before_nano_usd, summary.after_nano_usd], ['400000000', '800000000'])
    await place.settle()
    assert.equal(totalOf((await place.spans('minute')).values()), 800_000_000n)
    const asOf: CellRow[][] = []
    for await (const { rows } of ledgerAsOf({ ledger: place.ledger, ...range, revision: 0 })) asOf.push(rows)
    assert.deepEqual(asOf, [...before.values()])
  } finally {
    await dispose()
  }
})
