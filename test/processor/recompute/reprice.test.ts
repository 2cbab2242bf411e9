// Repricing: totals move by the price difference and by nothing else, old revisions stay reportable, a crash after the
// revision was inserted is finished by a keeper, and a keeper that was in the middle of a cell cannot undo it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type BucketLevel, DAY_MS, HOUR_MS } from '../../../src/domain/ledger/buckets.ts'
import { totalNanoUsd } from '../../../src/domain/ledger/rows.ts'
import { Keeper } from '../../../src/processor/ledger/keeper.ts'
import { PriceBookVersions, setBook } from '../../../src/processor/prices/price-book-versions.ts'
import { FrozenDaysError, ledgerAsOf } from '../../../src/processor/recompute/ledger-as-of.ts'
import { priceChange } from '../../../src/processor/recompute/price-change.ts'
import { reprice } from '../../../src/processor/recompute/reprice.ts'
import { StoreError } from '../../../src/store/event-store.ts'
import type { LedgerStore } from '../../../src/store/ledger-store.ts'
import { LedgerPlace, MINUTE, openSqlite, sample, T0, token } from '../ledger/ledger-place.ts'

const doubled = { currency: 'USD', rules: [{ id: 'r', match: { host: 'a' }, kind: 'spot', usd_per_hour: 1.2 }] }

async function onPlace(run: (place: LedgerPlace) => Promise<void>): Promise<void> {
  const { store, dispose } = openSqlite()
  try {
    const place = await LedgerPlace.on(store)
    const samples = Array.from({ length: 240 }, (_, i) => sample(T0 + i * 30_000))
    const tokens = Array.from({ length: 120 }, (_, i) => token(T0 + i * 60_000, { model: i % 2 === 0 ? 'm1' : 'm2' }))
    await place.step(samples, tokens)
    await place.settle()
    await run(place)
  } finally {
    await dispose()
  }
}

async function total(place: LedgerPlace, level: BucketLevel = 'minute'): Promise<bigint> {
  let sum = 0n
  for (const rows of (await place.spans(level)).values()) for (const row of rows) sum += totalNanoUsd(row)
  return sum
}

async function totalAt(place: LedgerPlace, revision: number): Promise<bigint> {
  let sum = 0n
  for await (const { rows } of ledgerAsOf({ ledger: place.ledger, fromMs: T0 - DAY_MS, toMs: T0 + DAY_MS, revision })) {
    for (const row of rows) sum += totalNanoUsd(row)
  }
  return sum
}

async function setDoubled(place: LedgerPlace): Promise<number> {
  return (await setBook(place.ledger, doubled, { origin: 'test', nowMs: place.nowMs })).version.version
}

test('totals move by exactly the price difference, by model; old revisions can be asked', () =>
  onPlace(async (place) => {
    const bookVersion = await setDoubled(place)
    await place.settle()
    const before = await total(place)
    assert.equal(before, 1_200_000_000n)
    const range = { fromMs: T0 + 30 * MINUTE, toMs: T0 + 90 * MINUTE }
    const { revision, summary } = await reprice({ ledger: place.ledger, ...range, bookVersion, nowMs: place.nowMs })
    assert.deepEqual([revision, summary.done, summary.cells], [1, true, 60])
    assert.deepEqual([summary.before_nano_usd, summary.after_nano_usd], ['600000000', '1200000000'])
    assert.deepEqual(
      summary.by.map(({ model }) => model),
      ['m1', 'm2'],
    )
    const sides = summary.by.map((one) => [BigInt(one.before_nano_usd), BigInt(one.after_nano_usd)] as const)
    assert.equal(sides[0]![0] + sides[1]![0], 600_000_000n)
    // Rounded once a minute: twice the price is twice the money to 60 units.
    for (const [old, now] of sides) assert.ok(now - 2n * old <= 60n && 2n * old - now <= 60n)
    assert.equal((await place.verify()).pending > 0, true)
    await place.settle()
    for (const level of ['minute', 'hour', 'day'] as const)
      assert.equal(await total(place, level), 1_800_000_000n, level)
    assert.equal((await place.verify()).differenceCount, 0)
    assert.equal(await totalAt(place, 0), before)
    assert.equal(await totalAt(place, 1), 1_800_000_000n)
    await assert.rejects(totalAt(place, 2), RangeError)
    assert.deepEqual(
      (await place.ledger.readRevisions()).map((one) => (one.summary as { done: boolean }).done),
      [true],
    )
  }))

test('what a version would change is reported, and nothing is written; repricing to it changes just that', () =>
  onPlace(async (place) => {
    const range = { fromMs: T0 - HOUR_MS, toMs: T0 + HOUR_MS }
    const books = [
      // A default that is written alone counts from the version's start: the past keeps its own.
      [{ currency: 'USD', default_usd_per_hour: 1.2, rules: [] }, '600000000'],
      [{ currency: 'USD', defaults: [{ from_ms: null, usd_per_hour: 1.2 }], rules: [] }, '1200000000'],
      [{ ...doubled, weights: { output: 4 } }, '1200000000'],
    ] as const
    for (const [book, after] of books) {
      const { version } = await setBook(place.ledger, book, { origin: 'test', nowMs: place.nowMs })
      const asked = { ledger: place.ledger, ...range, bookVersion: version.version }
      const change = await priceChange(asked)
      assert.equal(change.after_nano_usd, after)
      assert.equal((await place.ledger.dirtyBuckets('minute', 10)).length, 0)
      const { summary } = await reprice({ ...asked, nowMs: place.nowMs })
      assert.deepEqual({ ...summary, done: undefined }, { ...change, done: undefined })
      await place.settle()
      const spans = await place.spans('minute', range.fromMs, range.toMs)
      const paid = [...spans.values()].flat().reduce((sum, row) => sum + totalNanoUsd(row), 0n)
      assert.equal(String(paid), after)
    }
  }))

test('a crash at any call of reprice leaves what a keeper finishes, or nothing', () =>
  onPlace(async (place) => {
    const bookVersion = await setDoubled(place)
    let repriced = 0
    for (let calls = 0; ; calls++) {
      const fromMs = T0 + (calls % 100) * MINUTE
      const range = { fromMs, toMs: fromMs + MINUTE }
      let left = calls
      const dying = new Proxy(place.ledger, {
        get:
          (target, method: keyof LedgerStore) =>
          (...args: unknown[]) => {
            if (--left < 0) throw new StoreError('died', { retriable: true })
            return (target[method] as (...all: unknown[]) => unknown)(...args)
          },
      })
      const known = (await place.ledger.readRevisions()).length
      const died = await reprice({ ledger: dying, ...range, bookVersion, nowMs: place.nowMs }).then(
        () => false,
        () => true,
      )
      if ((await place.ledger.readRevisions()).length > known) repriced++
      place.nowMs += 2 * MINUTE
      await place.settle()
      const { differenceCount, pending } = await place.verify()
      assert.deepEqual([differenceCount, pending], [0, 0], `died at call ${calls}`)
      if (!died) break
    }
    assert.ok(repriced >= 3, `${repriced} revisions were inserted before a crash`)
    assert.ok((await place.ledger.readRevisions()).every((one) => (one.summary as { done: boolean }).done))
  }))

test('a keeper that read the old prices and makes a new cell after a reprice leaves it dirty', () =>
  onPlace(async (place) => {
    const bookVersion = await setDoubled(place)
    const late = T0 + 5 * HOUR_MS
    await place.step([], [token(late, { host: 'a' })])
    const slow = new Proxy(place.ledger, {
      get:
        (target, method: keyof LedgerStore) =>
        async (...args: unknown[]) => {
          if (method === 'replaceBuckets') {
            const range = { fromMs: T0, toMs: T0 + 6 * HOUR_MS }
            if ((await target.readRevisions()).length === 0)
              await reprice({ ledger: target, ...range, bookVersion, nowMs: place.nowMs })
          }
          return (target[method] as (...all: unknown[]) => unknown)(...args)
        },
    })
    const plain = new Proxy(place.ledger, {
      get: (target, method: keyof LedgerStore) =>
        method === 'readBuckets' || method === 'readLedgerSamples'
          ? (target[method] as (...all: unknown[]) => unknown).bind(target)
          : Reflect.get(slow, method),
    })
    const eager = { settleMs: 0, maxWaitMs: 0, jitterMs: 0, rollupSettleMs: 0, rollupMaxWaitMs: 0 }
    const keeper = new Keeper(plain, new PriceBookVersions(plain), { ...eager, log: place.log, now: place.now })
    await keeper.pass()
    const versions: number[] = []
    for await (const cell of place.ledger.readBuckets('minute', late, late + 1)) versions.push(...cell.bookVersions)
    assert.deepEqual(versions, [1], 'the fault did not happen')
    assert.ok((await place.ledger.readMarks('minute', late)).length > 0, 'its marks were deleted')
    await place.settle()
    assert.equal((await place.verify()).differenceCount, 0)
  }))

test('frozen days are skipped by name, and old revisions of them cannot be asked', () =>
  onPlace(async (place) => {
    const bookVersion = await setDoubled(place)
    const day = T0 - 12 * HOUR_MS
    for (const state of ['closing', 'frozen'] as const)
      await place.ledger.advanceDay({ startMs: day, state, sinceMs: 1 })
    const range = { fromMs: day - DAY_MS, toMs: day + 2 * DAY_MS }
    const { summary } = await reprice({ ledger: place.ledger, ...range, bookVersion, nowMs: place.nowMs })
    assert.deepEqual([summary.cells, summary.skipped_days], [0, ['2026-03-31']])
    assert.equal(await total(place), 1_200_000_000n)
    assert.deepEqual((await place.verify()).skippedDays, ['2026-03-31'])
    await assert.rejects(totalAt(place, 0), FrozenDaysError)
  }))

test('a range or version that makes no sense is refused', () =>
  onPlace(async (place) => {
    const base = { ledger: place.ledger, fromMs: T0, toMs: T0 + MINUTE, bookVersion: 1, nowMs: place.nowMs }
    await assert.rejects(reprice({ ...base, toMs: T0 }), RangeError)
    await assert.rejects(reprice({ ...base, fromMs: T0 + 1 }), RangeError)
    await assert.rejects(reprice({ ...base, bookVersion: 9 }), RangeError)
    assert.deepEqual(await place.ledger.readRevisions(), [])
  }))
