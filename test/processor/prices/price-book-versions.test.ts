// Versions of the price book and how they come about.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HOUR_MS } from '../../../src/domain/ledger/buckets.ts'
import { ensureDefault, InvalidPriceBook, setBook } from '../../../src/processor/prices/book-versions.ts'
import { PriceBookVersions } from '../../../src/processor/prices/price-book-versions.ts'
import { MINUTE, openSqlite, T0 } from '../ledger/ledger-place.ts'

const rule = { id: 'r', match: { host: 'a' }, kind: 'spot', usd_per_hour: 2 }

async function onLedger(
  run: (ledger: ReturnType<typeof openSqlite>['store']['ledger']) => Promise<void>,
): Promise<void> {
  const { store, dispose } = openSqlite()
  try {
    await store.prepare()
    await run(store.ledger)
  } finally {
    await dispose()
  }
}

async function booksOf(ledger: ReturnType<typeof openSqlite>['store']['ledger']): Promise<PriceBookVersions> {
  const books = new PriceBookVersions(ledger)
  await books.refresh()
  return books
}

test('the default counts from the beginning, another one from the next minute, the same makes no version', () =>
  onLedger(async (ledger) => {
    assert.deepEqual((await ensureDefault(ledger, 0.85, T0 + 1))?.fromMs, null)
    assert.equal(await ensureDefault(ledger, 0.85, T0 + HOUR_MS), null)
    assert.equal((await ensureDefault(ledger, 1, T0 + 2 * HOUR_MS + 1))?.fromMs, T0 + 2 * HOUR_MS + MINUTE)
    const books = await booksOf(ledger)
    assert.deepEqual(
      books.versions.map(({ version }) => version),
      [1, 2],
    )
    assert.equal(books.bookFor(0).defaultAt(0), 850_000_000n)
    const before = T0 + 2 * HOUR_MS
    assert.equal(books.bookFor(before).version, 1)
    assert.equal(books.bookFor(before + MINUTE).defaultAt(before + MINUTE), 1_000_000_000n)
    // The new version too knows what the default was: a past range that is pinned to it keeps its price.
    assert.equal(books.bookByVersion(2).defaultAt(before), 850_000_000n)
  }))

test('processors that start together make one version', () =>
  onLedger(async (ledger) => {
    await Promise.all(Array.from({ length: 5 }, () => ensureDefault(ledger, 0.85, T0)))
    await Promise.all(Array.from({ length: 5 }, () => ensureDefault(ledger, 1, T0 + HOUR_MS)))
    assert.equal((await ledger.readBooks()).length, 2)
  }))

test('two books set at once become two versions in a row', () =>
  onLedger(async (ledger) => {
    await ensureDefault(ledger, 0.85, T0)
    const set = (usd: number) =>
      setBook(ledger, { currency: 'USD', rules: [{ ...rule, usd_per_hour: usd }] }, { origin: 'test', nowMs: T0 })
    const results = await Promise.all([set(2), set(3), set(4)])
    assert.deepEqual(results.map(({ version }) => version.version).sort(), [2, 3, 4])
  }))

test('the same book again makes no version, whatever the order of its fields', () =>
  onLedger(async (ledger) => {
    const book = { currency: 'USD', default_usd_per_hour: 2, rules: [rule] }
    assert.equal((await setBook(ledger, book, { origin: 'file', nowMs: T0 })).isNew, true)
    const turned = { rules: [Object.fromEntries(Object.entries(rule).reverse())], currency: 'USD' }
    assert.equal((await setBook(ledger, turned, { origin: 'file', nowMs: T0 + HOUR_MS })).isNew, false)
    const again = await setBook(ledger, book, { origin: 'file', nowMs: T0 + HOUR_MS })
    assert.deepEqual([again.isNew, again.version.version], [false, 1])
  }))

test('a book with mistakes is refused with all of them, and the old one stays', () =>
  onLedger(async (ledger) => {
    await ensureDefault(ledger, 0.85, T0)
    const wrong = { currency: 'EUR', rules: [{ ...rule, usd_per_hour: -1 }, { id: 'x' }] }
    await assert.rejects(setBook(ledger, wrong, { origin: 'test', nowMs: T0 }), (error) => {
      return error instanceof InvalidPriceBook && error.problems.length >= 3
    })
    assert.equal((await ledger.readBooks()).length, 1)
  }))

test('a clock that is behind does not put a version before the one that is there', () =>
  onLedger(async (ledger) => {
    await ensureDefault(ledger, 0.85, T0)
    await ensureDefault(ledger, 1, T0 + HOUR_MS)
    const late = await ensureDefault(ledger, 2, T0)
    assert.equal(late?.fromMs, T0 + HOUR_MS + MINUTE)
  }))

test('the newest revision that holds a minute pins it; earlier revisions can be asked', () =>
  onLedger(async (ledger) => {
    await ensureDefault(ledger, 1, T0)
    for (const usd of [2, 3]) await ensureDefault(ledger, usd, T0)
    const revision = { atMs: T0, summary: null }
    await ledger.insertRevision({ ...revision, revision: 1, fromMs: T0, toMs: T0 + HOUR_MS, bookVersion: 2 })
    await ledger.insertRevision({
      ...revision,
      revision: 2,
      fromMs: T0 + MINUTE,
      toMs: T0 + 2 * MINUTE,
      bookVersion: 3,
    })
    const books = await booksOf(ledger)
    const versions = [-1, 0, 1, 2, 60].map((minute) => books.versionFor(T0 + minute * MINUTE))
    assert.deepEqual(versions, [1, 2, 3, 2, 3])
    assert.equal(books.versionFor(T0 + MINUTE, 1), 2)
    assert.equal(books.versionFor(T0, 0), 1)
  }))

test('what was read first does not win over what was read later', () =>
  onLedger(async (ledger) => {
    await ensureDefault(ledger, 1, T0)
    const old = await ledger.readBooks()
    const { promise, resolve } = Promise.withResolvers<void>()
    let reads = 0
    const slow = new Proxy(ledger, {
      get: (target, method: keyof typeof ledger) =>
        method === 'readBooks' && reads++ === 0
          ? () => promise.then(() => old)
          : (target[method] as (...all: unknown[]) => unknown).bind(target),
    })
    const books = new PriceBookVersions(slow)
    const first = books.refresh()
    await new Promise((done) => setImmediate(done))
    await ensureDefault(ledger, 2, T0)
    await books.refresh()
    resolve()
    await first
    assert.equal(books.versions.length, 2)
  }))
