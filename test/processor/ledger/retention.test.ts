// Retention: days go through their states in order and only when it is safe, what is left adds up to the same ledger,
// and a processor that was stopped across a freeze refuses the day's events by name instead of writing them.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DAY_MS, HOUR_MS } from '../../../src/domain/ledger/buckets.ts'
import { CLOSED_DAYS_MAX_AGE_MS, ClosedDays } from '../../../src/processor/closed-days.ts'
import { Keeper } from '../../../src/processor/ledger/keeper.ts'
import { Retention } from '../../../src/processor/ledger/retention.ts'
import { PriceBookVersions } from '../../../src/processor/prices/price-book-versions.ts'
import { letter } from '../../store/event-store.contract.ts'
import { LedgerPlace, MINUTE, openSqlite, sample, T0, token } from './ledger-place.ts'

const D1 = T0 - 12 * HOUR_MS
const D2 = D1 + DAY_MS
const names = { [D1]: '2026-03-31', [D2]: '2026-04-01' }

async function onPlace(run: (place: LedgerPlace, retention: Retention) => Promise<void>): Promise<void> {
  const { store, dispose } = openSqlite()
  try {
    const place = await LedgerPlace.on(store)
    // Samples on both sides of both midnights.
    const around = (ms: number) => Array.from({ length: 10 }, (_, i) => sample(ms - 150_000 + i * 30_000))
    const tokens = [D1, D1 + HOUR_MS, D2 - MINUTE, D2, D2 + HOUR_MS].map((ms) => token(ms))
    await place.step([...around(D1 + 160_000), ...around(D2), ...around(D2 + DAY_MS)], tokens)
    place.nowMs = D2 + DAY_MS + HOUR_MS
    await place.settle()
    await run(place, new Retention(place.store, { days: 7, log: place.log, now: place.now }))
  } finally {
    await dispose()
  }
}

test('off unless asked: nothing is moved', () =>
  onPlace(async (place) => {
    place.nowMs = D1 + 1000 * DAY_MS
    const off = new Retention(place.store, { days: 0, log: place.log, now: place.now })
    await off.run(new AbortController().signal)
    assert.deepEqual(await off.pass(), { closing: [], frozen: [], purged: [] })
    assert.deepEqual(await place.ledger.readDayStates(), [])
  }))

test('a day closes, freezes and is purged in order; its last 90 s stay until the next day is frozen', () =>
  onPlace(async (place, retention) => {
    const hours = await place.spans('hour')
    const days = await place.spans('day')
    place.nowMs = D1 + 8 * DAY_MS - 1
    assert.deepEqual((await retention.pass()).closing, [])
    place.nowMs = D1 + 8 * DAY_MS
    assert.deepEqual((await retention.pass()).closing, [names[D1]])
    place.nowMs += HOUR_MS - 1
    assert.deepEqual((await retention.pass()).frozen, [])
    place.nowMs += 1
    assert.deepEqual((await retention.pass()).frozen, [names[D1]])
    place.nowMs += MINUTE
    assert.deepEqual((await retention.pass()).purged, [names[D1]])
    assert.deepEqual(await retention.pass(), { closing: [], frozen: [], purged: [] })
    const left: number[] = []
    for await (const { ts } of place.store.readEvents('gpu', D1, D2)) left.push(ts.getTime())
    assert.deepEqual(left, [D2 - 90_000, D2 - 60_000, D2 - 30_000])
    // The next day's cells still come out as they were.
    const { differenceCount, skippedDays } = await place.verify({ fromMs: D1, toMs: D2 + DAY_MS })
    assert.deepEqual([differenceCount, skippedDays], [0, [names[D1]]])
    assert.deepEqual([await place.spans('hour'), await place.spans('day')], [hours, days])
    // With the next day's purge the tail goes.
    place.nowMs = D2 + 8 * DAY_MS
    for (let i = 0; i < 3; i++) {
      await retention.pass()
      place.nowMs += HOUR_MS
    }
    assert.deepEqual(
      (await place.ledger.readDayStates()).map(({ state }) => state),
      ['purged', 'purged'],
    )
    assert.equal((await place.ledger.rawRange())!.fromMs, D2 + DAY_MS - 90_000)
    assert.deepEqual([await place.spans('hour'), await place.spans('day')], [hours, days])
    assert.equal((await place.verify({ fromMs: D1, toMs: D2 + 2 * DAY_MS })).differenceCount, 0)
  }))

test('a day that has a ledger only by an interval that begins in it closes, freezes and is purged before the next', async () => {
  const { store, dispose } = openSqlite()
  try {
    const place = await LedgerPlace.on(store)
    await place.step(
      [],
      [token(D2 + 30 * MINUTE, { interval_s: 3600, prompt_tokens: 6_000 }), token(D2 + 23 * HOUR_MS)],
    )
    place.nowMs = D2 + DAY_MS + HOUR_MS
    await place.settle()
    const [hours, days] = [await place.spans('hour'), await place.spans('day')]
    assert.equal(days.size, 2)
    const retention = new Retention(place.store, { days: 7, log: place.log, now: place.now })
    place.nowMs = D2 + 9 * DAY_MS
    const passes = []
    for (let i = 0; i < 4; i++, place.nowMs += HOUR_MS) passes.push(await retention.pass())
    assert.deepEqual(passes[0]!.closing, [names[D1], names[D2]])
    assert.deepEqual(
      passes.flatMap(({ purged }) => purged),
      [names[D1], names[D2]],
    )
    assert.deepEqual([await place.spans('hour'), await place.spans('day')], [hours, days])
    assert.equal(await place.ledger.rawRange(), null)
  } finally {
    await dispose()
  }
})

test('dead letters go when they are older than the retention', () =>
  onPlace(async (place, retention) => {
    const at = (offset: number, timeMs: number) => letter(offset, { time: new Date(timeMs) })
    await place.store.writeDeadLetters([at(1, D1 - 1), at(2, D1), at(3, D2)])
    place.nowMs = D1 + 7 * DAY_MS
    await retention.pass()
    assert.deepEqual((await place.store.listDeadLetters({ limit: 5 })).items, [at(3, D2), at(2, D1)])
  }))

test('a day with marks does not freeze; a day that is being filled does not close', () =>
  onPlace(async (place, retention) => {
    place.nowMs = D1 + 8 * DAY_MS
    await place.step([], [token(D1 + 5 * HOUR_MS)])
    assert.deepEqual((await retention.pass()).closing, [])
    await place.settle()
    assert.deepEqual((await retention.pass()).closing, [], 'computed a moment ago')
    place.nowMs += HOUR_MS
    assert.deepEqual((await retention.pass()).closing, [names[D1]])
    // A step that was in flight when the day closed.
    await place.step([], [token(D1 + 6 * HOUR_MS)])
    place.nowMs += 2 * HOUR_MS
    assert.deepEqual((await retention.pass()).frozen, [])
    await place.settle()
    assert.deepEqual((await retention.pass()).frozen, [names[D1]])
    assert.equal((await place.spans('minute')).size > 0, true)
  }))

test('a day waits for the older one: two retentions at once move each day once', () =>
  onPlace(async (place) => {
    const two = [0, 1].map(() => new Retention(place.store, { days: 7, log: place.log, now: place.now }))
    place.nowMs = D2 + 8 * DAY_MS
    const moves = await Promise.all(two.map((one) => one.pass()))
    assert.deepEqual(moves.flatMap(({ closing }) => closing).sort(), [names[D1], names[D2]])
    // The older one has marks again.
    await place.step([], [token(D1)])
    place.nowMs += HOUR_MS
    assert.deepEqual((await two[0]!.pass()).frozen, [])
    await place.settle()
    assert.deepEqual((await two[0]!.pass()).frozen, [names[D1], names[D2]])
  }))

test('a frozen day is never written again: marks are dropped, counted and logged', () =>
  onPlace(async (place, retention) => {
    const before = { minute: await place.spans('minute'), hour: await place.spans('hour') }
    place.nowMs = D1 + 8 * DAY_MS
    await retention.pass()
    place.nowMs += HOUR_MS
    await retention.pass()
    await place.step([], [token(D1 + HOUR_MS), token(D1 + 9 * HOUR_MS)])
    await place.ledger.insertMarks('hour', [{ startMs: D1, hosts: ['a'] }], place.nowMs)
    const keeper = await place.settle()
    assert.equal(keeper.counters.marksDropped, 3)
    assert.equal(keeper.counters.cellsReplaced, 0)
    assert.ok(place.log.lines.some(({ level, message }) => level === 'warn' && message.includes('frozen')))
    assert.deepEqual([await place.spans('minute'), await place.spans('hour')], [before.minute, before.hour])
    assert.equal(await place.ledger.pendingMarks(D1, D2), 0)
  }))

test('a keeper stopped in the middle of a cell across the freeze does not write it', () =>
  onPlace(async (place, retention) => {
    place.nowMs = D1 + 8 * DAY_MS
    await retention.pass()
    await place.step([], [token(D1 + HOUR_MS)])
    const { promise, resolve } = Promise.withResolvers<void>()
    const stopped = Promise.withResolvers<void>()
    const slow = new Proxy(place.ledger, {
      get: (target, method: keyof typeof place.ledger) => {
        const call = (target[method] as (...all: unknown[]) => unknown).bind(target)
        if (method !== 'replaceBuckets') return call
        return async (...args: unknown[]) => {
          stopped.resolve()
          await promise
          return call(...args)
        }
      },
    })
    const eager = { settleMs: 0, maxWaitMs: 0, jitterMs: 0, rollupSettleMs: 0, rollupMaxWaitMs: 0 }
    const zombie = new Keeper(slow, new PriceBookVersions(slow), { ...eager, log: place.log, now: place.now })
    const pass = zombie.pass()
    await stopped.promise
    await place.settle()
    place.nowMs += HOUR_MS
    assert.deepEqual((await retention.pass()).frozen, [names[D1]])
    const before = [await place.spans('minute'), await place.spans('hour')]
    resolve()
    await pass
    assert.equal(zombie.counters.racesLost, 1)
    await place.settle()
    assert.deepEqual([await place.spans('minute'), await place.spans('hour')], before)
  }))

test('the gate of a processor that was stopped across a freeze is read again before it writes', () =>
  onPlace(async (place, retention) => {
    const gate = new ClosedDays(place.ledger, place.now)
    place.nowMs = D1 + 8 * DAY_MS - MINUTE
    await gate.refreshIfOlderThan(CLOSED_DAYS_MAX_AGE_MS)
    assert.equal(gate.closedDay(D1 + HOUR_MS), null)
    for (const ms of [MINUTE, HOUR_MS]) {
      place.nowMs += ms
      await retention.pass()
    }
    // SIGCONT: what the processor holds is for a day that is frozen.
    await gate.refreshIfOlderThan(CLOSED_DAYS_MAX_AGE_MS)
    const day = gate.closedDay(D1 + HOUR_MS)
    assert.equal(day?.state, 'frozen')
    const refusal = (atMs: number, fields = {}) => gate.refusalOf(token(atMs, fields))?.message
    const text = /^\/ts: 2026-03-31 is frozen by retention, since 2026-04-08T01:00:00/
    assert.match(refusal(D1 + HOUR_MS)!, text)
    assert.match(refusal(D2 + MINUTE, { interval_s: 90 })!, /^\/interval_s: Begins in a day .*2026-03-31 is frozen/)
    for (const interval_s of [0, 59.999, 60]) assert.equal(refusal(D2 + MINUTE, { interval_s }), undefined)
    assert.equal(gate.closedDay(D1 - 1), null)
    assert.equal(gate.closedDay(D2), null)
  }))

test('the gate asks the store only when its list is too old or the clock went back', () =>
  onPlace(async (place) => {
    let reads = 0
    const counting = new Proxy(place.ledger, {
      get: (target, method: keyof typeof place.ledger) => {
        if (method === 'readDayStates') reads++
        return (target[method] as (...all: unknown[]) => unknown).bind(target)
      },
    })
    const gate = new ClosedDays(counting, place.now)
    const after = async (ms: number) => {
      place.nowMs += ms
      await gate.refreshIfOlderThan(1000)
      return reads
    }
    assert.deepEqual([await after(0), await after(1000), await after(1), await after(-1)], [1, 1, 2, 3])
  }))
