// Commitments before the first sample and while a slot is unreported, as tests that run over both stores: what a rule
// that names a slot costs from its `from` on, to the last unit, in minutes, hours, days, answers and old revisions;
// and that `verify` and `final` know what a keeper has yet to do.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type BucketLevel, CELL_MS, DAY_MS, floorTo, HOUR_MS } from '../../../src/domain/ledger/buckets.ts'
import { CostReading, costPage, storedProgress } from '../../../src/processor/cost/cost-reading.ts'
import type { Keeper } from '../../../src/processor/ledger/keeper.ts'
import { MAX_COMMITTED_DAYS, PriceBookVersions, setBook } from '../../../src/processor/prices/price-book-versions.ts'
import { ledgerAsOf } from '../../../src/processor/recompute/ledger-as-of.ts'
import { reprice } from '../../../src/processor/recompute/reprice.ts'
import { verify } from '../../../src/processor/recompute/verify.ts'
import { type CostQuery, costQuery } from '../../../src/report/cost-query.ts'
import type { OpenStore } from './keeper.contract.ts'
import { LedgerPlace, MINUTE, type Store, sample, T0 } from './ledger-place.ts'

/** 10⁻⁹ USD of a minute at 3.6 USD/h. */
const MINUTE_NANO = 60_000_000n
const LAG_MS = 150_000
const iso = (ms: number) => new Date(ms).toISOString()
const rule = (match: object, fromMs: number, more: object = {}) => ({
  ...{ id: `r${JSON.stringify(match)}${fromMs}`, match, from: iso(fromMs), kind: 'reserved', usd_per_hour: 3.6 },
  ...more,
})
const queryOf = (fromMs: number, toMs: number) =>
  costQuery({ fromMs, toMs, step: '1d', by: ['gpu'], idle: 'own' }) as CostQuery
const slot = { host: 'd', gpu_index: 0 }

async function sumAt(place: LedgerPlace, level: BucketLevel, fromMs: number, toMs: number): Promise<bigint> {
  let sum = 0n
  for await (const { rows } of place.ledger.readBuckets(level, fromMs, toMs)) {
    for (const row of rows) sum += row.uncovered_nano_usd
  }
  return sum
}

async function sumAsOf(place: LedgerPlace, revision: number, fromMs: number, toMs: number): Promise<bigint> {
  let sum = 0n
  for await (const { rows } of ledgerAsOf({ ledger: place.ledger, fromMs, toMs, revision, nowMs: place.nowMs })) {
    for (const row of rows) sum += row.uncovered_nano_usd
  }
  return sum
}

/** Passes until nothing is left to sweep and to compute; a pass over uncommitted hours computes nothing. */
async function sweep(place: LedgerPlace, keeper: Keeper, fromMs: number): Promise<void> {
  for (let i = 0; i < 400; i++) {
    const { minutes, hours, days } = await keeper.pass()
    if (minutes + hours + days === 0 && keeper.isSwept(fromMs, floorTo(CELL_MS, place.nowMs - LAG_MS))) return
  }
  assert.fail('The keeper does not come to an end')
}

/** `days`: how long before the first sample the rule begins. */
export function commitmentsContract(name: string, open: OpenStore, { days }: { days: number }): void {
  const onStore = (sentence: string, rules: object[], run: (place: LedgerPlace) => Promise<void>) =>
    test(`${name}: ${sentence}`, { timeout: 120_000 }, async () => {
      const { store, dispose } = await open()
      try {
        // The first book of the store, as PRICE_BOOK makes it on a clean first day.
        await store.prepare()
        const book = { currency: 'USD', default_usd_per_hour: 0.6, rules }
        await setBook(store.ledger, book, { origin: 'file', nowMs: T0 })
        const place = await LedgerPlace.on(store as Store)
        place.nowMs = T0
        await run(place)
      } finally {
        await dispose()
      }
    })

  const fromMs = T0 - days * DAY_MS
  onStore(`${days} days before the first sample are paid for, at each level`, [rule(slot, fromMs)], async (place) => {
    const keeper = place.keeper()
    await keeper.pass()
    // A sender with a backlog comes after the keeper has begun, with another host.
    await place.step([sample(T0 - HOUR_MS, { host: 'e' }), sample(T0 - HOUR_MS + MINUTE, { host: 'e' })], [])
    await sweep(place, keeper, fromMs)
    const endMs = T0 - LAG_MS - ((T0 - LAG_MS) % MINUTE)
    const minutes = BigInt((endMs - fromMs) / MINUTE)
    for (const level of ['minute', 'hour', 'day'] as const) {
      assert.equal(await sumAt(place, level, fromMs - DAY_MS, T0 + DAY_MS), minutes * MINUTE_NANO, level)
    }
    const [firstDayMs, todayMs] = [floorTo(DAY_MS, fromMs), floorTo(DAY_MS, T0)]
    const query = queryOf(firstDayMs, todayMs)
    const source = { ledger: place.ledger, progress: await storedProgress(place.store, T0), latenessMs: 0 }
    const { rows, totals } = await costPage(new CostReading(source, query), { limit: 100, after: null })
    assert.equal(rows.length, days)
    assert.equal(Number(totals.uncovered_usd), (((todayMs - fromMs) / HOUR_MS) * 3600) / 1000)
    assert.equal(await sumAsOf(place, 0, fromMs - DAY_MS, T0), minutes * MINUTE_NANO)
    const checked = await place.verify({ fromMs: firstDayMs, toMs: T0, nowMs: T0 })
    assert.deepEqual([checked.differences, checked.differenceCount, checked.pending], [[], 0, 0])
    // Nothing is computed again, and nothing is marked without an end.
    const { cellsComputed } = keeper.counters
    await keeper.pass()
    assert.equal(keeper.counters.cellsComputed, cellsComputed)
  })

  onStore('repricing to and from a commitment, and old revisions', [], async (place) => {
    const samples = [sample(T0 - HOUR_MS, { host: 'e' }), sample(T0 - HOUR_MS + MINUTE, { host: 'e' })]
    await place.step(samples, [])
    const keeper = place.keeper()
    await place.settle(keeper)
    const book = { currency: 'USD', rules: [rule(slot, T0 - 2 * DAY_MS)] }
    const { version } = await setBook(place.ledger, book, { origin: 'test', nowMs: T0 })
    const range = { fromMs: T0 - 2 * DAY_MS, toMs: T0 - DAY_MS }
    const expected = 1440n * MINUTE_NANO
    const made = await reprice({ ledger: place.ledger, ...range, bookVersion: version.version, nowMs: T0 })
    assert.equal(made.summary.before_uncovered_nano_usd, '0')
    assert.equal(made.summary.after_uncovered_nano_usd, String(expected))
    await sweep(place, keeper, range.fromMs)
    for (const level of ['minute', 'hour', 'day'] as const) {
      assert.equal(await sumAt(place, level, range.fromMs - DAY_MS, T0 + DAY_MS), expected, level)
    }
    assert.equal(await sumAsOf(place, 1, range.fromMs - DAY_MS, T0), expected)
    assert.equal(await sumAsOf(place, 0, range.fromMs - DAY_MS, T0), 0n)
  })

  const both = { uuid: 'GPU-2', ...slot }
  onStore('the silence of a GPU that is named with its slot shows, as one row', [rule(both, T0)], async (place) => {
    const samples = [0, 1, 2, 3, 4].map((i) => sample(T0 + i * MINUTE, { host: 'd', uuid: 'GPU-2', name: 'H100' }))
    await place.step(samples, [])
    place.nowMs = T0 + HOUR_MS + LAG_MS
    const keeper = place.keeper()
    await sweep(place, keeper, T0)
    assert.equal(await sumAt(place, 'hour', T0, T0 + HOUR_MS), 56n * MINUTE_NANO)
    const keys = new Set<string>()
    for await (const { rows } of place.ledger.readBuckets('hour', T0, T0 + HOUR_MS)) {
      for (const row of rows) keys.add(`${row.gpu_index} ${row.gpu_uuid} ${row.price_kind}`)
    }
    assert.deepEqual([...keys], ['0 GPU-2 reserved'])
  })

  onStore('a slot that is unreported now is no difference at any moment', [rule(slot, T0)], async (place) => {
    place.nowMs = T0 + HOUR_MS
    await place.step([sample(T0, { host: 'd' }), sample(T0 + MINUTE, { host: 'd' })], [])
    const keeper = place.keeper()
    await sweep(place, keeper, T0)
    for (let i = 0; i < 40; i++) {
      place.nowMs += 7000
      // The newest minutes, after the keeper's pass and before it.
      if (i % 3 === 0) await keeper.pass()
      const { differenceCount } = await verify({
        ledger: place.ledger,
        fromMs: T0,
        toMs: T0 + DAY_MS,
        nowMs: place.nowMs,
      })
      assert.equal(differenceCount, 0, String(i))
    }
  })

  onStore('what is missing is found, and repaired at each level', [rule(slot, T0)], async (place) => {
    place.nowMs = T0 + 3 * HOUR_MS
    const ask = { ledger: place.ledger, fromMs: T0 - 12 * HOUR_MS, toMs: T0 + DAY_MS }
    // No keeper has come: a young version is about to be swept, an old one is not.
    const { version } = (await place.ledger.readBooks())[0]!
    assert.equal(version, 1)
    const missing = await verify({ ...ask, nowMs: place.nowMs, repair: true })
    assert.ok(missing.differenceCount > 150)
    assert.equal(missing.repaired, missing.differenceCount)
    place.nowMs += MINUTE
    const keeper = place.keeper()
    await sweep(place, keeper, T0)
    const after = await verify({ ...ask, nowMs: place.nowMs })
    assert.deepEqual([after.differenceCount, after.pending], [0, 0])
    assert.equal(await sumAt(place, 'hour', T0, T0 + 2 * HOUR_MS), 120n * MINUTE_NANO)
    const young = await verify({ ...ask, toMs: T0 + 2 * HOUR_MS, nowMs: place.nowMs, repair: true })
    assert.equal(young.repaired, 0)
  })

  onStore('an answer is not final while commitments wait', [rule(slot, fromMs)], async (place) => {
    const keeper = place.keeper()
    const query = queryOf(T0 - 2 * HOUR_MS, T0 - HOUR_MS)
    const isFinal = async () => {
      const ofKeeper = { readUpToMs: () => T0, isSwept: (from: number, to: number) => keeper.isSwept(from, to) }
      const finals: boolean[] = []
      for (const progress of [ofKeeper, { ...(await storedProgress(place.store, T0)), readUpToMs: () => T0 }]) {
        const reading = new CostReading({ ledger: place.ledger, progress, latenessMs: 0 }, query)
        finals.push((await costPage(reading, { limit: 10, after: null })).final)
      }
      return finals
    }
    assert.deepEqual(await isFinal(), [false, false])
    await sweep(place, keeper, fromMs)
    assert.deepEqual(await isFinal(), [true, true])
    // A repricing that died before it marked anything.
    const range = { fromMs: T0 - 2 * HOUR_MS, toMs: T0 - HOUR_MS, bookVersion: 1, atMs: T0 }
    await place.ledger.insertRevision({ revision: 1, ...range, summary: { done: false } })
    assert.deepEqual(await isFinal(), [false, false])
    place.nowMs += 2 * MINUTE
    await sweep(place, keeper, fromMs)
    assert.deepEqual(await isFinal(), [true, true])
  })

  const longAgoMs = Date.UTC(2015, 0, 1)
  const floorMs = floorTo(DAY_MS, T0) - MAX_COMMITTED_DAYS * DAY_MS
  const ended = { ...rule(slot, longAgoMs), to: iso(floorMs + DAY_MS) }
  onStore('a rule of long ago reaches a bounded time back', [ended], async (place) => {
    const books = new PriceBookVersions(place.ledger)
    await books.refresh()
    assert.equal(books.committedFromMs, floorMs)
    const keeper = place.keeper()
    await sweep(place, keeper, longAgoMs)
    assert.equal(keeper.counters.cellsComputed, 1440)
    assert.equal(await sumAsOf(place, 0, longAgoMs, floorMs + 2 * DAY_MS), 1440n * MINUTE_NANO)
    const set = { currency: 'USD', rules: [{ ...ended, id: 'again' }] }
    const { warnings } = await setBook(place.ledger, set, { origin: 'test', nowMs: T0 })
    assert.deepEqual(
      warnings.map(({ path }) => path),
      ['/rules/0/from'],
    )
  })

  onStore('a pass goes back a bounded part', [rule(slot, longAgoMs)], async (place) => {
    const keeper = place.keeper()
    await keeper.pass()
    assert.ok(keeper.counters.cellsComputed > 0 && keeper.counters.cellsComputed <= 1440)
  })
}
