// The live price of GPUs that follow their power: the same figure on a token event, in the live view and from
// `explain`, and stated where the power is not known.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DAY_MS } from '../../../src/domain/ledger/buckets.ts'
import { LivePrices } from '../../../src/processor/ingest/live-prices.ts'
import { PriceBookVersions, setBook } from '../../../src/processor/prices/price-book-versions.ts'
import { explainPrice } from '../../../src/processor/prices/price-explanation.ts'
import { LedgerPlace, openSqlite, sample, T0, token } from '../ledger/ledger-place.ts'

/** (33,120 − 6,840) ÷ 26,280 h = 1 USD/h, and 0.28 USD a kWh that is measured. */
const OWNED = { kind: 'owned', purchase_usd: 33_120, salvage_usd: 6840, life_years: 3, usd_per_kwh: 0.2, pue: 1.4 }
const RULES = [
  { id: 'own', match: { host: 'a', gpu_index: 0 }, ...OWNED },
  { id: 'other', match: { host: 'a', gpu_index: 1 }, ...OWNED },
  { id: 'free power', match: { host: 'a', gpu_index: 2 }, ...OWNED, usd_per_kwh: 0 },
  { id: 'rented', match: { host: 'a', gpu_index: 3 }, kind: 'on-demand', usd_per_hour: 2 },
]
const WINDOW = { windowSeconds: 30, allowedLatenessSeconds: 10, defaultHost: null, defaultUsdPerHour: 0.85 }

test('an owned GPU costs what it draws now, on page, event and explain alike; unknown power is stated', async (t) => {
  const { store, dispose } = openSqlite()
  t.after(dispose)
  const place = await LedgerPlace.on(store)
  await setBook(place.ledger, { currency: 'USD', rules: RULES }, { origin: 'test', nowMs: T0 - DAY_MS })
  const samples = [
    ...[100, 500].map((power_w, i) => sample(T0 + i * 10_000, { power_w })),
    sample(T0, { gpu_index: 1 }),
    ...[2, 3, 4].map((gpu_index) => sample(T0, { gpu_index, power_w: 500 })),
    sample(T0, { gpu_index: 5, price_per_hour_usd: 7 }),
  ]
  await place.step(samples, [])
  const live = new LivePrices(new PriceBookVersions(store.ledger), WINDOW)
  await live.rebuild(store)
  const event = token(T0 + 20_000, { prompt_tokens: 1000, completion_tokens: 0 })
  live.price(event, T0 + 20_000)
  assert.equal(event.price_per_hour_usd, 1.14)
  assert.equal(event.cost_per_token, (1.14 * 30) / 3600 / 1000)

  const pricesAt = (atMs: number) =>
    live
      .live(atMs)
      .slots.toSorted((a, b) => a.gpu_index - b.gpu_index)
      .map((slot) => [slot.gpu_index, slot.price_per_hour_usd, slot.price_basis])
  assert.deepEqual(pricesAt(T0 + 20_000), [
    [0, 1.14, 'rule_with_power'],
    [1, 1, 'rule_without_power'],
    [2, 1, 'rule'],
    [3, 2, 'rule'],
    [4, 0.6, 'default'],
    [5, 7, 'sample'],
  ])
  // 90 s after its newest sample a GPU is no longer known to draw anything.
  assert.deepEqual(pricesAt(T0 + 99_999)[0], [0, 1.14, 'rule_with_power'])
  assert.deepEqual(pricesAt(T0 + 100_000)[0], [0, 1, 'rule_without_power'])
  for (const atMs of [T0 + 20_000, T0 + 99_999, T0 + 100_000, T0 + 300_000]) {
    for (const [gpuIndex, price] of pricesAt(atMs) as [number, number][]) {
      const explained = await explainPrice(store, { host: 'a', gpuIndex, atMs, nowMs: atMs })
      assert.equal(explained.price_per_hour_usd, price, `GPU ${gpuIndex} at ${atMs - T0} ms: ${explained.note}`)
    }
  }
})
