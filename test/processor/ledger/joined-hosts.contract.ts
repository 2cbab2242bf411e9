// A book that joins host names, on any store: whatever the order of events, the moment at which names are joined, the
// repricing and the deaths of keepers, the ledger is as if every event had come with the one name; it was, and can be
// again, as if each name were a host of its own; and `verify` finds nothing.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { GpuDocument, TokenDocument } from '../../../src/domain/events/event.ts'
import { DAY_MS } from '../../../src/domain/ledger/buckets.ts'
import { initialBook } from '../../../src/domain/prices/book-defaults.ts'
import { PriceBook } from '../../../src/domain/prices/price-book.ts'
import { Keeper } from '../../../src/processor/ledger/keeper.ts'
import { PriceBookVersions, setBook } from '../../../src/processor/prices/price-book-versions.ts'
import { explainPrice } from '../../../src/processor/prices/price-explanation.ts'
import { ledgerAsOf } from '../../../src/processor/recompute/ledger-as-of.ts'
import { priceChange } from '../../../src/processor/recompute/price-change.ts'
import { reprice } from '../../../src/processor/recompute/reprice.ts'
import type { LedgerBucket, LedgerStore } from '../../../src/store/ledger-store.ts'
import type { OpenStore } from './keeper.contract.ts'
import { assertOracle, dyingLedger, type Event, edge, eventOf, scenario } from './keeper-scenario.ts'
import { DEFAULT_USD, expectedLedger, LedgerPlace, MINUTE, sample, spanKey, T0, token } from './ledger-place.ts'

const book = new PriceBook(initialBook(DEFAULT_USD), 1)
const RANGE = { fromMs: edge - 15 * MINUTE, toMs: edge + 20 * MINUTE }
const HOSTS = [{ name: 'a', aliases: ['b'] }]
const joined = <T extends { host: string | null }>(events: T[]): T[] =>
  events.map((event) => (event.host === 'b' ? { ...event, host: 'a' } : event))

export function joinedHostsContract(name: string, open: OpenStore, { runs }: { runs: number }): void {
  const onPlace = (sentence: string, run: (place: LedgerPlace) => Promise<void>) =>
    test(`${name}: ${sentence}`, { timeout: 60_000 }, async () => {
      const { store, dispose } = await open()
      try {
        await run(await LedgerPlace.on(store))
      } finally {
        await dispose()
      }
    })

  test(`${name}: names are joined, and parted again, at any moment: the ledger equals the batch computation`, {
    timeout: 120_000,
  }, async () => {
    await fc.assert(
      fc.asyncProperty(scenario, async ({ events: drawn, again, order }) => {
        const { store, dispose } = await open()
        try {
          const place = await LedgerPlace.on(store)
          place.nowMs = edge + DAY_MS
          const events: Event[] = drawn.map((one, i) => {
            const event = eventOf(one)
            // Every third event of usage sums over more than a minute.
            return event.token && i % 3 === 0 ? { token: { ...event.token, interval_s: 200 } as TokenDocument } : event
          })
          const deliveries = [...events, ...again.map((n) => events[n % events.length]!)]
            .map((event) => ({ event, rank: order.next().value }))
            .sort((x, y) => x.rank - y.rank)
          const joinAt = order.next().value % (deliveries.length + 1)
          // One keeper has old books while the other, and the repricing, have new ones.
          const keepers = [place.keeper(), place.keeper()]
          for (const [i, { event }] of [...deliveries, { event: {} as Event }].entries()) {
            if (i === joinAt) await joinNames(place)
            await place.step(event.sample ? [event.sample] : [], event.token ? [event.token] : [])
            const choice = order.next().value % 5
            if (choice === 0) await Promise.all(keepers.map((keeper) => keeper.pass()))
            if (choice === 1) await keepers[0]!.pass()
            if (choice === 2) {
              const dying = dyingLedger(place.ledger, 1 + (order.next().value % 25))
              await place
                .keeper({}, dying)
                .pass()
                .catch(() => {})
            }
          }
          await place.settle(keepers[0])
          const samples = events.flatMap((event) => event.sample ?? [])
          const tokens = events.flatMap((event) => event.token ?? [])
          await place.assertLedger(joined(samples), joined(tokens), () => book)
          await assertOracle(place, samples, tokens, { b: 'a' })
          await assertVerified(place)
          // What it was before stays a question, and parting the names again is a repricing.
          await assertAsOf(place, samples, tokens)
          await reprice({ ledger: place.ledger, ...RANGE, bookVersion: 1, nowMs: place.nowMs })
          await place.settle()
          await place.assertLedger(samples, tokens, () => book)
          await assertVerified(place)
        } finally {
          await dispose()
        }
      }),
      { numRuns: runs },
    )
  })

  onPlace(
    'a late event under another name reaches the cell of its host, and is pending for verify until then',
    async (place) => {
      await joinNames(place, { fromMs: T0, toMs: T0 + 10 * MINUTE })
      const samples = Array.from({ length: 8 }, (_, i) => sample(T0 + i * 30_000))
      await place.step(samples, [])
      await place.settle()
      const late = token(T0 + MINUTE + 1, { host: 'b' })
      await place.step([], [late])
      const range = { fromMs: T0, toMs: T0 + 10 * MINUTE }
      const before = await place.verify(range)
      assert.deepEqual([before.differenceCount, before.pending > 0], [0, true])
      await place.settle()
      await place.assertLedger(samples, joined([late]), () => book)
      const after = await place.verify(range)
      assert.deepEqual([after.differenceCount, after.pending], [0, 0])
      assert.deepEqual(
        [...(await place.spans('minute')).keys()].filter((key) => key.endsWith(' b')),
        [],
      )
    },
  )

  onPlace('a mark stays until both cells of a joined name were replaced', async (place) => {
    await joinNames(place, { fromMs: T0, toMs: T0 + 10 * MINUTE })
    const event = token(T0, { host: 'b' })
    await place.step([], [event])
    // As if another keeper had been first at the one name's cell.
    const losing: LedgerStore = new Proxy(place.ledger, {
      get: (ledger, method: keyof LedgerStore) =>
        method === 'replaceBuckets'
          ? async (cells: LedgerBucket[]) => {
              const kept = cells.filter(({ level, host }) => level !== 'minute' || host !== 'a')
              const replaced = await ledger.replaceBuckets(kept)
              return cells.map((cell) => replaced[kept.indexOf(cell)] ?? false)
            }
          : (ledger[method] as (...all: unknown[]) => unknown).bind(ledger),
    })
    await place.keeper({}, losing).pass()
    await place.settle()
    await place.assertLedger([], joined([event]), () => book)
  })

  onPlace(
    'names that are joined while a minute is computed: its marks stay, and it is computed again',
    async (place) => {
      const events = [token(T0, { host: 'a' }), token(T0, { host: 'b' })]
      await place.step([], events)
      const range = { fromMs: T0, toMs: T0 + 10 * MINUTE }
      // Only a has a mark: what b came with is read for it alone.
      for (const mark of await place.ledger.readMarks('minute', T0)) await place.ledger.deleteMarks([mark.id])
      await place.ledger.insertMarks('minute', [{ startMs: T0, hosts: ['a'] }], place.nowMs)
      const books = new PriceBookVersions(place.ledger)
      const joining: LedgerStore = new Proxy(place.ledger, {
        get: (ledger, method: keyof LedgerStore) =>
          method === 'tokenTotals'
            ? async (...asked: Parameters<LedgerStore['tokenTotals']>) => {
                const groups = await ledger.tokenTotals(...asked)
                if ((await ledger.readRevisions()).length === 0) await joinNames(place, range)
                await books.refresh()
                return groups
              }
            : (ledger[method] as (...all: unknown[]) => unknown).bind(ledger),
      })
      const options = { log: place.log, now: place.now, settleMs: 0, maxWaitMs: 0, jitterMs: 0 }
      await new Keeper(joining, books, options).pass()
      await place.settle()
      await place.assertLedger([], joined(events), () => book)
      await assertVerified(place)
    },
  )

  onPlace(
    'two names of a GPU that was paid for twice: joined, it is paid for once, and prices set shows it before',
    async (place) => {
      const samples = Array.from({ length: 7 }, (_, i) => sample(T0 + i * 10_000, { utilization: 0.9 }))
      const tokens = [token(T0 + 5000, { host: 'b' })]
      await place.step(samples, tokens)
      await place.settle()
      const range = { fromMs: T0, toMs: T0 + MINUTE }
      const wanted = await setBook(place.ledger, bookWith(HOSTS), { origin: 'test', nowMs: place.nowMs })
      const change = await priceChange({ ledger: place.ledger, ...range, bookVersion: wanted.version.version })
      assert.deepEqual([change.before_nano_usd, change.after_nano_usd], ['20000000', '10000000'])
      await joinNames(place, range)
      await place.settle()
      const rows = (await place.spans('minute')).get(spanKey(T0, 'a'))!
      assert.deepEqual(
        rows.map(({ model, busy_nano_usd, loaded_idle_nano_usd, basis }) => [
          model,
          busy_nano_usd,
          loaded_idle_nano_usd,
          basis,
        ]),
        [['m1', 9_000_000n, 1_000_000n, 'measured']],
      )
      assert.equal((await place.spans('minute')).get(spanKey(T0, 'b')), undefined)
      for (const host of ['a', 'b']) {
        const found = await explainPrice(place.store, { host, gpuIndex: 0, atMs: T0 + 30_000, nowMs: place.nowMs })
        assert.deepEqual([found.host, found.time, found.sample?.ts], ['a', 'covered', iso(T0 + 40_000)])
      }
    },
  )

  onPlace('a rule may name a host by any of its names, and a commitment by another name is one GPU', async (place) => {
    const rule = { id: 'r', match: { host: 'b', gpu_index: 0 }, kind: 'reserved', usd_per_hour: 1.2, from: iso(T0) }
    const wanted = { ...bookWith(HOSTS), rules: [rule] }
    const { version } = await setBook(place.ledger, wanted, { origin: 'test', nowMs: place.nowMs })
    const range = { fromMs: T0, toMs: T0 + 3 * MINUTE }
    await reprice({ ledger: place.ledger, ...range, bookVersion: version.version, nowMs: place.nowMs })
    await place.step([sample(T0), sample(T0 + MINUTE)], [])
    await place.settle()
    const rows = (await place.spans('minute')).get(spanKey(T0, 'a'))!
    assert.deepEqual(
      rows.map(({ price_kind, covered_ms, uncovered_ms }) => [price_kind, covered_ms, uncovered_ms]),
      [['reserved', 60_000n, 0n]],
    )
    assert.deepEqual(
      [...(await place.spans('minute')).keys()].filter((key) => key.endsWith(' b')),
      [],
    )
  })
}

function bookWith(hosts: object[]) {
  return { currency: 'USD', default_usd_per_hour: DEFAULT_USD, hosts, rules: [] }
}

/** Sets a book that joins b under a, and pins the range to it. */
async function joinNames(place: LedgerPlace, range = RANGE): Promise<void> {
  const { version } = await setBook(place.ledger, bookWith(HOSTS), { origin: 'test', nowMs: place.nowMs })
  await reprice({ ledger: place.ledger, ...range, bookVersion: version.version, nowMs: place.nowMs })
}

async function assertVerified(place: LedgerPlace): Promise<void> {
  const { differences, pending } = await place.verify(RANGE)
  assert.deepEqual([differences, pending], [[], 0])
}

async function assertAsOf(place: LedgerPlace, samples: GpuDocument[], tokens: TokenDocument[]): Promise<void> {
  for (const [revision, events] of [
    [0, [samples, tokens]],
    [1, [joined(samples), joined(tokens)]],
  ] as const) {
    const found = new Map<string, object[]>()
    for await (const { startMs, host, rows } of ledgerAsOf({ ledger: place.ledger, ...RANGE, revision })) {
      found.set(spanKey(startMs, host), rows)
    }
    assert.deepEqual(found, expectedLedger(events[0], events[1], () => book).minute, `revision ${revision}`)
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString()
}
