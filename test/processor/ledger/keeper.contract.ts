// What the keeper must do on any store, as tests that run over both. The ledger that comes out must be what computeCell
// says over all events at once, whatever the order, the batches, the repetitions and the number of keepers.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { DAY_MS, HOUR_MS } from '../../../src/domain/ledger/buckets.ts'
import { totalNanoUsd } from '../../../src/domain/ledger/rows.ts'
import type { CellRow } from '../../../src/domain/ledger/types.ts'
import { initialBook } from '../../../src/domain/prices/book-defaults.ts'
import { PriceBook } from '../../../src/domain/prices/price-book.ts'
import { Keeper } from '../../../src/processor/ledger/keeper.ts'
import { PriceBookVersions, setBook } from '../../../src/processor/prices/price-book-versions.ts'
import { ledgerAsOf } from '../../../src/processor/recompute/ledger-as-of.ts'
import { reprice } from '../../../src/processor/recompute/reprice.ts'
import { StoreError } from '../../../src/store/event-store.ts'
import type { LedgerStore } from '../../../src/store/ledger-store.ts'
import { assertOracle, dyingLedger, type Event, edge, eventOf, scenario } from './keeper-scenario.ts'
import { DEFAULT_USD, LedgerPlace, MINUTE, type Store, sample, spanKey, T0, token } from './ledger-place.ts'

export type OpenStore = () => Promise<{ store: Store; dispose: () => Promise<void> }>

const book = new PriceBook(initialBook(DEFAULT_USD), 1)
export function keeperContract(name: string, open: OpenStore, { runs }: { runs: number }): void {
  const onPlace = (sentence: string, run: (place: LedgerPlace) => Promise<void>) =>
    test(`${name}: ${sentence}`, { timeout: 60_000 }, async () => {
      const { store, dispose } = await open()
      try {
        await run(await LedgerPlace.on(store))
      } finally {
        await dispose()
      }
    })

  test(`${name}: any order, batches and repetitions, two keepers stopped anywhere: the ledger equals the batch computation`, {
    timeout: 120_000,
  }, async () => {
    let crashes = 0
    await fc.assert(
      fc.asyncProperty(scenario, async ({ events: drawn, again, order }) => {
        const { store, dispose } = await open()
        try {
          const place = await LedgerPlace.on(store)
          const events: Event[] = drawn.map((one) => eventOf(one))
          const deliveries = [...events, ...again.map((n) => events[n % events.length]!)]
            .map((event) => ({ event, rank: order.next().value }))
            .sort((x, y) => x.rank - y.rank)
          place.nowMs = edge + DAY_MS
          let keepers = [0, 1].map(() => place.keeper())
          while (deliveries.length > 0) {
            const batch = deliveries.splice(0, 1 + (order.next().value % 8))
            await place.step(
              batch.flatMap(({ event }) => event.sample ?? []),
              batch.flatMap(({ event }) => event.token ?? []),
            )
            // After the last step a keeper always dies, early: left to chance alone, a few runs may see no death.
            const isLast = deliveries.length === 0
            const choice = isLast ? 1 : order.next().value % 4
            if (choice === 0) await Promise.all(keepers.map((keeper) => keeper.pass()))
            if (choice === 1) {
              // A keeper that dies in the middle of a pass, and another one started.
              const calls = 1 + (order.next().value % (isLast ? 2 : 25))
              const dying = dyingLedger(place.ledger, calls)
              await place
                .keeper({}, dying)
                .pass()
                .catch(() => crashes++)
              keepers = [keepers[0]!, place.keeper()]
            }
          }
          await place.settle(keepers[0])
          const samples = events.flatMap((event) => event.sample ?? [])
          const tokens = events.flatMap((event) => event.token ?? [])
          await place.assertLedger(samples, tokens, () => book)
          await assertOracle(place, samples, tokens)
          const { differences, pending } = await place.verify({ fromMs: edge - HOUR_MS, toMs: edge + HOUR_MS })
          assert.deepEqual([differences, pending], [[], 0])
        } finally {
          await dispose()
        }
      }),
      { numRuns: runs },
    )
    assert.ok(crashes > 0, 'no keeper died')
  })

  onPlace('1,000 late events change their cells, hours and days, and nothing else', async (place) => {
    const samples = Array.from({ length: 6 * 60 * 2 }, (_, i) => sample(T0 + i * 30_000))
    const tokens = Array.from({ length: 2000 }, (_, i) => token(T0 + i * 10_000, { host: i % 2 === 0 ? 'a' : 'b' }))
    await place.step(samples, tokens)
    await place.settle()
    const before = {
      minute: await place.spans('minute'),
      hour: await place.spans('hour'),
      day: await place.spans('day'),
    }
    const lateFrom = T0 + HOUR_MS
    const late = Array.from({ length: 1000 }, (_, i) => token(lateFrom + (i % 600) * 1000, { tenant: 'late' }))
    await place.step([], late)
    await place.settle()
    await place.assertLedger(samples, [...tokens, ...late], () => book)
    const touched = new Set(Array.from({ length: 10 }, (_, i) => spanKey(lateFrom + i * MINUTE, 'a')))
    const after = await place.spans('minute')
    for (const [key, rows] of after) if (!touched.has(key)) assert.deepEqual(rows, before.minute.get(key), key)
    for (const key of touched) assert.notDeepEqual(after.get(key), before.minute.get(key), key)
    for (const [key, rows] of await place.spans('hour')) {
      if (key !== spanKey(lateFrom, 'a')) assert.deepEqual(rows, before.hour.get(key), key)
    }
  })

  onPlace(
    'a late event that sums over an hour is counted in each of its minutes, once, at any price',
    async (place) => {
      const samples = Array.from({ length: 4 * 60 }, (_, i) => sample(T0 + i * 30_000))
      const tokens = Array.from({ length: 40 }, (_, i) => token(T0 + i * 150_000, { interval_s: 5, gpus: [0, 1] }))
      await place.step(samples, tokens)
      await place.settle()
      const before = await place.spans('minute')
      const counts = { prompt_tokens: 1_000_000, cached_prompt_tokens: 7, requests: 500 }
      const late = token(T0 + HOUR_MS + 30_000, { interval_s: 3600, tenant: 'late', ...counts })
      const hostless = token(T0 + 2 * HOUR_MS, { interval_s: 90.5, host: null })
      for (let delivery = 0; delivery < 2; delivery++) await place.step([], [late, hostless])
      await place.settle()
      await place.assertLedger(samples, [...tokens, late, hostless], () => book)
      const after = await place.spans('minute')
      const touched = new Set(Array.from({ length: 61 }, (_, i) => spanKey(T0 + i * MINUTE, 'a')))
      for (const [key, rows] of after) {
        if (touched.has(key))
          assert.ok(
            rows.some(({ tenant, model }) => tenant === 'late' && model === 'm1'),
            key,
          )
        else if (key.endsWith(' a')) assert.deepEqual(rows, before.get(key), key)
      }
      const rows = [...after].flatMap(([key, rows]) => rows.map((row) => ({ key, ...row })))
      const mine = rows.filter(({ tenant }) => tenant === 'late')
      const sum = (of: (row: (typeof rows)[number]) => bigint) => mine.reduce((all, row) => all + of(row), 0n)
      assert.deepEqual([sum((row) => row.requests), sum((row) => row.prompt_tokens)], [500n, 1_000_000n])
      assert.deepEqual([sum((row) => row.cached_prompt_tokens), sum((row) => row.completion_tokens)], [7n, 20n])
      assert.equal(rows.filter(({ key }) => key.endsWith(' -')).length, 2)
      // Verified in whole and in part, and repriced in part: old revisions show what was.
      assert.equal((await place.verify()).differenceCount, 0)
      const part = { fromMs: T0 + 20 * MINUTE, toMs: T0 + 50 * MINUTE }
      assert.equal((await place.verify(part)).differenceCount, 0)
      const rule = { id: 'r', match: { host: 'a' }, kind: 'spot', usd_per_hour: 2 * DEFAULT_USD }
      const twice = { currency: 'USD', rules: [rule] }
      const { version } = (await setBook(place.ledger, twice, { origin: 'test', nowMs: place.nowMs })).version
      const { summary } = await reprice({ ledger: place.ledger, ...part, bookVersion: version, nowMs: place.nowMs })
      await place.settle()
      const total = (spans: Map<string, CellRow[]>) =>
        [...spans.values()].flat().reduce((all, row) => all + totalNanoUsd(row), 0n)
      const repriced = await place.spans('minute')
      const change = BigInt(summary.after_nano_usd) - BigInt(summary.before_nano_usd)
      assert.equal(total(repriced) - total(after), change)
      assert.ok(change > 0n)
      assert.equal((await place.verify()).differenceCount, 0)
      const asOf = new Map<string, CellRow[]>()
      for await (const cell of ledgerAsOf({
        ledger: place.ledger,
        fromMs: T0 - HOUR_MS,
        toMs: T0 + 3 * HOUR_MS,
        revision: 0,
      }))
        asOf.set(spanKey(cell.startMs, cell.host), cell.rows)
      assert.deepEqual(asOf, after)
    },
  )

  onPlace('only dirty hosts are computed, a host that is null is one', async (place) => {
    await place.step([], [token(T0, { host: 'a' }), token(T0, { host: null })])
    const first = await place.settle()
    assert.equal(first.counters.cellsReplaced, 2)
    await place.step([], [token(T0, { host: null })])
    const second = await place.settle()
    assert.equal(second.counters.cellsComputed, 1)
    const revs = await place.ledger.readRevs('minute', T0, ['a', null, 'b'])
    assert.deepEqual([revs.get('a'), revs.get(null), revs.has('b')], [1, 2, false])
  })

  onPlace(
    'a minute waits for its end, its lag and its newest mark, but for its oldest mark not for ever',
    async (place) => {
      const keeper = place.keeper({ settleMs: 15_000, maxWaitMs: 60_000, lagMs: 105_000 })
      place.nowMs = T0 + 1000
      await place.step([], [token(T0)])
      const at = async (ms: number) => {
        place.nowMs = T0 + ms
        return (await keeper.pass()).minutes
      }
      assert.equal(await at(164_999), 0)
      assert.equal(await at(165_000), 1)
      // Late events: from now on only the marks count.
      await place.step([], [token(T0)])
      assert.equal(await at(165_000 + 14_999), 0)
      for (const ms of [0, 10_000, 20_000, 30_000, 40_000]) {
        place.nowMs = T0 + 180_000 + ms
        await place.step([], [token(T0)])
        assert.equal((await keeper.pass()).minutes, 0, String(ms))
      }
      assert.equal(await at(225_000), 1)
    },
  )

  onPlace('a commitment to a slot gets its unreported minutes, once', async (place) => {
    const from = new Date(T0).toISOString()
    const rule = { id: 'r', match: { host: 'z', gpu_index: 0 }, from, kind: 'reserved', usd_per_hour: 6 }
    await place.step([], [token(T0 - HOUR_MS)])
    place.nowMs = T0 - MINUTE
    await setBook(place.ledger, { currency: 'USD', rules: [rule] }, { origin: 'test', nowMs: place.nowMs })
    place.nowMs = T0 + 3 * HOUR_MS
    const keeper = place.keeper()
    for (let i = 0; i < 8; i++) await keeper.pass()
    await place.settle(keeper)
    const cells = [...(await place.spans('minute'))].filter(([key]) => key.endsWith(' z'))
    // All minutes that ended 150 s ago.
    assert.equal(cells.length, 3 * 60 - 3)
    assert.ok(cells.every(([, rows]) => rows[0]!.uncovered_nano_usd === 100_000_000n))
    assert.equal((await place.spans('hour')).get(spanKey(T0, 'z'))![0]!.uncovered_nano_usd, 6_000_000_000n)
    // A new minute is marked as time passes; existing ones are not computed again.
    const { cellsComputed } = keeper.counters
    place.nowMs += MINUTE
    await place.settle(keeper)
    assert.equal(keeper.counters.cellsComputed, cellsComputed + 1)
    assert.equal(
      (await place.verify({ fromMs: T0 - 2 * HOUR_MS, toMs: T0 + 3 * HOUR_MS - 10 * MINUTE })).differenceCount,
      0,
    )
  })

  onPlace(
    'a version that was made by a slow clock is brought to the cells that were there before it',
    async (place) => {
      await place.step([], [token(T0), token(T0 + 2 * MINUTE)])
      const keeper = await place.settle()
      const [first] = await place.ledger.readBooks()
      const behind = { ...first!, version: 2, fromMs: T0 + MINUTE, atMs: place.nowMs - 10 * MINUTE }
      await place.ledger.insertBook(behind)
      assert.equal((await place.verify()).differences[0]!.what, 'book version')
      await place.settle(keeper)
      const versions: number[][] = []
      for await (const cell of place.ledger.readBuckets('minute', T0, T0 + HOUR_MS)) versions.push(cell.bookVersions)
      assert.deepEqual(versions, [[1], [2]])
      assert.equal((await place.verify()).differenceCount, 0)
    },
  )

  onPlace('a store that is away is waited for, and the keeper stops when its signal aborts', async (place) => {
    await place.step([], [token(T0)])
    let failuresLeft = 3
    const stop = new AbortController()
    const flaky = new Proxy(place.ledger, {
      get:
        (target, method: keyof LedgerStore) =>
        (...args: unknown[]) => {
          if (method === 'dirtyBuckets' && failuresLeft-- > 0) throw new StoreError('away', { retriable: true })
          if (method === 'dirtyBuckets' && args[0] === 'day' && keeper.counters.rollupsComputed >= 2) stop.abort()
          return (target[method] as (...all: unknown[]) => unknown)(...args)
        },
    })
    const eager = { settleMs: 0, maxWaitMs: 0, jitterMs: 0, rollupSettleMs: 0, rollupMaxWaitMs: 0, intervalMs: 1 }
    const keeper = new Keeper(flaky, new PriceBookVersions(flaky), { ...eager, log: place.log, now: place.now })
    await keeper.run(stop.signal)
    assert.equal((await place.spans('day')).size, 1)
    assert.equal(place.log.lines.filter(({ level }) => level === 'warn').length, 1)
    assert.deepEqual(keeper.status().failing, [])
  })

  onPlace('an unforeseen document puts its minute off, not the others, and is counted', async (place) => {
    await place.step([], [token(T0), token(T0 + MINUTE), token(T0 + 2 * MINUTE)])
    const broken: LedgerStore = new Proxy(place.ledger, {
      get: (target, method: keyof LedgerStore) => {
        if (method !== 'tokenTotals')
          return (...args: unknown[]) => (target[method] as (...all: unknown[]) => unknown)(...args)
        return async (fromMs: number, toMs: number, of: (string | null)[]) => {
          const groups = await target.tokenTotals(fromMs, toMs, of)
          return groups.map((group) => (group.startMs === T0 + MINUTE ? { ...group, sum: null as never } : group))
        }
      },
    })
    const keeper = new Keeper(broken, new PriceBookVersions(broken), {
      log: place.log,
      now: place.now,
      settleMs: 0,
      maxWaitMs: 0,
      jitterMs: 0,
    })
    for (let i = 0; i < 3; i++) await keeper.pass()
    assert.deepEqual([...(await place.spans('minute')).keys()], [spanKey(T0, 'a'), spanKey(T0 + 2 * MINUTE, 'a')])
    assert.equal(keeper.counters.failures, 2)
    assert.equal(keeper.status().backlog.minute, 1)
    place.nowMs += MINUTE
    await keeper.pass()
    assert.equal(keeper.counters.failures, 3)
    await place.settle()
    await place.settle()
    assert.equal((await place.spans('minute')).size, 3)
  })
}
