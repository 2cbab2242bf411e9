// A verify that finds nothing must mean something: here it is shown every kind of fault, in each level, and has to name
// it; and after repair and the keeper it has to find nothing. What a keeper is about to do is no difference.

import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { type BucketLevel, DAY_MS, HOUR_MS } from '../../../src/domain/ledger/buckets.ts'
import type { LedgerBucket } from '../../../src/store/ledger-store.ts'
import type { SqliteStore } from '../../../src/store/sqlite/sqlite-store.ts'
import { LedgerPlace, MINUTE, openSqlite, sample, T0, token } from '../ledger/ledger-place.ts'

async function onPlace(run: (place: LedgerPlace) => Promise<void>): Promise<void> {
  const { store, dispose } = openSqlite()
  try {
    const place = await LedgerPlace.on(store)
    // A day and a half, so that a whole day and its hours are in the range.
    const samples = Array.from({ length: 300 }, (_, i) => sample(T0 + i * 45_000, { gpu_index: i % 2 }))
    const tokens = Array.from({ length: 100 }, (_, i) => token(T0 + i * 90_000, { host: i % 3 === 0 ? null : 'a' }))
    await place.step(samples, tokens)
    await run(place)
  } finally {
    await dispose()
  }
}

const midnight = T0 - 12 * HOUR_MS
const range = { fromMs: midnight, toMs: midnight + DAY_MS }

async function spanAt(place: LedgerPlace, level: BucketLevel, startMs: number): Promise<LedgerBucket> {
  for await (const span of place.ledger.readBuckets(level, startMs, startMs + 1, ['a'])) return span
  return assert.fail('no such span')
}

test('a right ledger has no differences, and everything was compared', () =>
  onPlace(async (place) => {
    await place.settle()
    const progress: number[] = []
    const result = await place.verify({ ...range, onProgress: ({ doneToMs }) => progress.push(doneToMs) })
    assert.deepEqual(result.differences, [])
    const { differenceCount, pending, events, cellsCompared, hoursCompared, daysCompared } = result
    assert.deepEqual({ differenceCount, pending, events }, { differenceCount: 0, pending: 0, events: 400 })
    assert.ok(cellsCompared > 225 && hoursCompared >= 8)
    assert.equal(daysCompared, 2)
    assert.equal(progress.at(-1), range.toMs)
  }))

test('columns that are not what their document is are named, before any cell is computed from them', () =>
  onPlace(async (place) => {
    await place.settle()
    const path = place.store.description.replace('embedded store ', '')
    const file = new DatabaseSync(path)
    const at = T0 + 10 * 90_000
    const changes = [
      ['prompt_tokens = prompt_tokens + 1', /uncached_prompt_tokens=100\/100/, /uncached_prompt_tokens=101\/101/],
      ["model = 'other'", /model=m1 /, /no such group/],
      ["host = 'elsewhere'", /events=1 /, /no such group/],
    ] as const
    for (const [change, expected, found] of changes) {
      const columns = file.prepare('SELECT * FROM token_usage WHERE ts = ?').get(at) as Record<string, string>
      file.exec(`UPDATE token_usage SET ${change} WHERE ts = ${at}`)
      const { differences, differenceCount } = await place.verify(range)
      assert.equal(differenceCount, 1, change)
      assert.deepEqual([differences[0]!.what, differences[0]!.host], ['grouping', 'a'])
      assert.equal(differences[0]!.start, new Date(Math.floor(at / MINUTE) * MINUTE).toISOString())
      assert.match(differences[0]!.expected, expected)
      assert.match(differences[0]!.found, found)
      file
        .prepare('UPDATE token_usage SET prompt_tokens = ?, model = ?, host = ? WHERE ts = ?')
        .run(columns['prompt_tokens']!, columns['model']!, columns['host']!, at)
    }
    file.close()
    assert.equal((await place.verify(range)).differenceCount, 0)
  }))

test('without a keeper all cells are pending, and once the marks are gone they are missing', () =>
  onPlace(async (place) => {
    const waiting = await place.verify(range)
    assert.equal(waiting.differenceCount, 0)
    assert.ok(waiting.pending > 200)
    for (const { startMs } of await place.ledger.dirtyBuckets('minute', 1000)) {
      await place.ledger.deleteMarks((await place.ledger.readMarks('minute', startMs)).map(({ id }) => id))
    }
    const { differenceCount, differences } = await place.verify({ ...range, repair: true })
    assert.ok(differenceCount > 200)
    assert.equal(differences.length, 20)
    assert.equal(differences[0]!.what, 'missing')
    await place.settle()
    assert.equal((await place.verify(range)).differenceCount, 0)
  }))

const corruptions: [string, BucketLevel, (span: LedgerBucket) => Partial<LedgerBucket>, string][] = [
  [
    'one unit of money',
    'minute',
    ({ rows }) => ({ rows: [{ ...rows[0]!, busy_nano_usd: rows[0]!.busy_nano_usd + 1n }, ...rows.slice(1)] }),
    'rows',
  ],
  [
    'one token',
    'minute',
    ({ rows }) => ({ rows: rows.map((row, i) => (i === 0 ? { ...row, prompt_tokens: row.prompt_tokens + 1n } : row)) }),
    'rows',
  ],
  ['a row too few', 'minute', ({ rows }) => ({ rows: rows.slice(1) }), 'rows'],
  ['a row too many', 'minute', ({ rows }) => ({ rows: [...rows, { ...rows[0]!, tenant: 'nobody' }] }), 'rows'],
  ['no rows', 'minute', () => ({ rows: [] }), 'rows'],
  ['a method', 'minute', ({ rows }) => ({ rows: rows.map((row) => ({ ...row, method: 'memory' as const })) }), 'rows'],
  ['sums by model', 'minute', ({ rows }) => ({ totals: { model: rows.slice(0, 1), tenant: [] } }), 'sums'],
  ['another version', 'minute', () => ({ bookVersions: [7] }), 'book version'],
  ['an hour', 'hour', ({ rows }) => ({ rows: rows.slice(1) }), 'sum'],
  ['a day', 'day', ({ rows }) => ({ rows: rows.map((row) => ({ ...row, requests: row.requests + 1n })) }), 'sum'],
]

for (const [name, level, corrupt, what] of corruptions) {
  test(`a corrupted span is found, named, repaired: ${name}`, () =>
    onPlace(async (place) => {
      await place.settle()
      const startMs = level === 'day' ? midnight : T0 + HOUR_MS
      const span = await spanAt(place, level, startMs)
      assert.deepEqual(await place.ledger.replaceBuckets([{ ...span, ...corrupt(span) }]), [true])
      const before = await place.verify(range)
      // The sum of a corrupted cell's hour is wrong too, and of a corrupted hour's day.
      const [first] = before.differences
      assert.deepEqual(
        [first!.level, first!.start, first!.host, first!.what],
        [level, new Date(startMs).toISOString(), 'a', what],
      )
      assert.ok(before.differenceCount >= 1 && before.differenceCount <= 3, JSON.stringify(before.differences))
      const repairing = await place.verify({ ...range, repair: true })
      assert.equal(repairing.repaired, repairing.differenceCount)
      assert.ok((await place.verify(range)).pending >= 1)
      assert.equal((await place.verify(range)).differenceCount, 0)
      await place.settle()
      const after = await place.verify(range)
      assert.deepEqual([after.differences, after.pending], [[], 0])
    }))
}

test('a cell without events is found', () =>
  onPlace(async (place) => {
    await place.settle()
    const span = await spanAt(place, 'minute', T0)
    await place.ledger.replaceBuckets([{ ...span, startMs: T0 - 5 * MINUTE, host: 'ghost', rev: 0 }])
    const found = (await place.verify(range)).differences.map(({ level, host, what }) => [level, host, what])
    assert.deepEqual(found, [
      ['minute', 'ghost', 'rows'],
      ['hour', 'ghost', 'missing'],
    ])
    assert.equal((await place.verify({ ...range, repair: true })).repaired, 1)
    await place.settle()
    assert.equal((await place.verify(range)).differenceCount, 0)
  }))

test('an event that was stored and not marked is found', () =>
  onPlace(async (place) => {
    await place.settle()
    await place.store.writeDocuments([], [token(T0 + 5 * MINUTE)])
    const { differences } = await place.verify({ ...range, repair: true })
    assert.equal(differences[0]!.start, new Date(T0 + 5 * MINUTE).toISOString())
    await place.settle()
    assert.equal((await place.verify(range)).differenceCount, 0)
  }))

test('minutes that are not due are not looked at, half hours neither, and a signal stops it', () =>
  onPlace(async (place) => {
    await place.settle()
    await place.store.writeDocuments([], [token(T0 + 30 * MINUTE)])
    const nowMs = T0 + 31 * MINUTE + 104_999
    assert.equal((await place.verify({ ...range, nowMs })).differenceCount, 0)
    assert.equal((await place.verify({ ...range, nowMs: nowMs + 1 })).differenceCount, 1)
    const part = await place.verify({ fromMs: T0 + 10 * MINUTE, toMs: T0 + 20 * MINUTE })
    assert.deepEqual([part.hoursCompared, part.daysCompared, part.differenceCount], [0, 0, 0])
    await assert.rejects(place.verify({ ...range, signal: AbortSignal.abort(new Error('enough')) }), /enough/)
    await assert.rejects(place.verify({ fromMs: 1 }), RangeError)
  }))

test('an event of several minutes that the store no longer knows as one is named', () =>
  onPlace(async (place) => {
    await place.step([], [token(T0 + 20 * MINUTE + 1, { interval_s: 600, prompt_tokens: 10_000 })])
    await place.settle()
    assert.equal((await place.verify(range)).differenceCount, 0)
    const { file } = place.store as SqliteStore
    file.use('Forgetting', () => file.run('UPDATE token_usage SET reach = 0 WHERE reach = 10'))
    assert.ok((await place.verify(range)).differenceCount > 10, 'its minutes have what verify does not find')
    // Computed again: all in one minute, which is wrong as well.
    await place.step([], [token(T0 + 20 * MINUTE)])
    await place.settle()
    assert.ok(
      (await place.verify(range)).differences.some(({ what, start }) => what === 'rows' && start.includes('12:20')),
    )
  }))
