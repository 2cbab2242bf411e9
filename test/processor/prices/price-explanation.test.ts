// What `explain` answers for each kind of time: the price that the ledger takes there, and which kind it is. Whether it
// is the ledger's over random histories is in test/processor/same-answer.test.ts.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DAY_MS, HOUR_MS } from '../../../src/domain/ledger/buckets.ts'
import { setBook } from '../../../src/processor/prices/price-book-versions.ts'
import { explainPrice, type PriceExplanation } from '../../../src/processor/prices/price-explanation.ts'
import { LedgerPlace, MINUTE, openSqlite, sample, T0, token } from '../ledger/ledger-place.ts'

type Explain = (atMs: number, place?: { host?: string; gpuIndex?: number; nowMs?: number }) => Promise<PriceExplanation>

async function onPlace(run: (place: LedgerPlace, explain: Explain) => Promise<void>): Promise<void> {
  const { store, dispose } = openSqlite()
  try {
    const place = await LedgerPlace.on(store)
    const explain: Explain = (atMs, { host = 'a', gpuIndex = 0, nowMs = place.nowMs } = {}) =>
      explainPrice(store, { host, gpuIndex, atMs, nowMs })
    await run(place, explain)
  } finally {
    await dispose()
  }
}

const priced = ({ time, price_per_hour_usd: price, price_kind: kind }: PriceExplanation) => [time, price, kind]

test('between two samples the price is that of the one that closes the time, as in the ledger', () =>
  onPlace(async (place, explain) => {
    const prices = [1, 5, 1]
    await place.step(
      prices.map((usd, i) => sample(T0 + i * 30_000, { price_per_hour_usd: usd, uuid: `GPU-${i}`, utilization: 1 })),
      [],
    )
    await place.settle()
    const rows = [...(await place.spans('minute', T0, T0 + MINUTE)).values()].flat()
    // 30 s at 5 and 30 s at 1 USD/h.
    assert.equal(
      rows.reduce((sum, row) => sum + row.busy_nano_usd, 0n),
      50_000_000n,
    )
    for (const [atMs, price, uuid] of [
      [T0, 5, 'GPU-1'],
      [T0 + 29_999, 5, 'GPU-1'],
      [T0 + 30_000, 1, 'GPU-2'],
    ] as const) {
      const found = await explain(atMs)
      assert.deepEqual([...priced(found), found.gpu_uuid], ['covered', price, 'sample', uuid])
    }
  }))

test('time that no sample covers is assumed beside tokens, uncovered by a commitment, else nothing', () =>
  onPlace(async (place, explain) => {
    const book = {
      currency: 'USD',
      rules: [
        {
          id: 'reserved',
          match: { host: 'b', gpu_index: 0 },
          kind: 'reserved',
          usd_per_hour: 3,
          from: new Date(T0 + MINUTE + 30_000).toISOString(),
        },
      ],
    }
    const { version } = await setBook(place.ledger, book, { origin: 'test', nowMs: T0 - DAY_MS })
    assert.equal(version.version, 2)
    await place.step(
      [sample(T0 + 20_000, { price_per_hour_usd: 2 }), sample(T0 + 30_000, { price_per_hour_usd: 4 })],
      [token(T0 + 3 * MINUTE, { host: 'a', gpu_index: 1 }), token(T0 + 70_000)],
    )
    const at = async (atMs: number, slot?: Parameters<Explain>[1]) => priced(await explain(atMs, slot))
    // Before the first sample, between them, and after the last one beside tokens: the nearest sample's price.
    assert.deepEqual(await at(T0 + 10_000), ['none', 2, 'sample'])
    assert.deepEqual(await at(T0 + 25_000), ['covered', 4, 'sample'])
    assert.deepEqual(await at(T0 + 90_000), ['assumed', 4, 'sample'])
    // Without any sample.
    assert.deepEqual(await at(T0 + 3 * MINUTE, { gpuIndex: 1 }), ['assumed', 0.6, 'default'])
    assert.deepEqual(await at(T0 + 4 * MINUTE, { gpuIndex: 1 }), ['none', 0.6, 'default'])
    assert.deepEqual(await at(T0 + MINUTE, { host: 'b' }), ['none', 0.6, 'default'])
    assert.deepEqual(await at(T0 + 2 * MINUTE, { host: 'b' }), ['uncovered', 3, 'reserved'])
    // Long after the last sample nothing is charged; the price is that of the sample of the last day.
    const late = await explain(T0 + 5 * HOUR_MS)
    assert.deepEqual(priced(late), ['none', 4, 'sample'])
    assert.match(late.note, /^nothing is charged: .*; known by the sample of 2026-03-31T12:00:30.000Z$/)
  }))

test('the newest time is that of the latest known sample while its closing one may still come', () =>
  onPlace(async (place, explain) => {
    await place.step([sample(T0, { price_per_hour_usd: 1 }), sample(T0 + 30_000, { price_per_hour_usd: 5 })], [])
    const at = async (atMs: number, nowMs: number) => (await explain(atMs, { nowMs })).time
    assert.equal(await at(T0 + 40_000, T0 + 50_000), 'open')
    // Beyond G no sample can close it any more, and an hour later none will.
    assert.equal(await at(T0 + 121_000, T0 + 125_000), 'none')
    assert.equal(await at(T0 + 40_000, T0 + HOUR_MS), 'none')
    assert.equal(await at(T0 + 2 * HOUR_MS, T0 + HOUR_MS), 'open')
  }))

test('a frozen day is explained with the book of its cells, and a purged one by name', () =>
  onPlace(async (place, explain) => {
    await place.step([sample(T0), sample(T0 + 30_000)], [])
    await place.settle()
    const doubled = { currency: 'USD', rules: [{ id: 'r', match: { host: 'a' }, kind: 'spot', usd_per_hour: 1.2 }] }
    await setBook(place.ledger, doubled, { origin: 'test', nowMs: T0 - DAY_MS })
    const day = Math.floor(T0 / DAY_MS) * DAY_MS
    assert.equal((await explain(T0)).price_per_hour_usd, 1.2)
    for (const state of ['closing', 'frozen'] as const)
      await place.ledger.advanceDay({ startMs: day, state, sinceMs: 1 })
    assert.deepEqual(priced(await explain(T0)), ['covered', 0.6, 'default'])
    await place.ledger.advanceDay({ startMs: day, state: 'purged', sinceMs: 1 })
    await place.ledger.purge(day, day + DAY_MS)
    assert.equal((await explain(T0)).time, 'purged')
  }))
