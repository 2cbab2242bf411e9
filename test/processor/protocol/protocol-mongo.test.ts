// The keeper and its protocol on MongoDB: the same tests as on the embedded store, and a sample of the orders in which
// the calls of two processors and two keepers can fall, drawn with a fixed seed. Each actor dies at a random call in
// half of the runs; then a new processor and a new keeper finish, and nothing may be stale. Also with a broken
// protocol.

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import type { TokenDocument } from '../../../src/domain/events/event.ts'
import { initialBook } from '../../../src/domain/prices/book-defaults.ts'
import { PriceBook } from '../../../src/domain/prices/price-book.ts'
import { Keeper } from '../../../src/processor/ledger/keeper.ts'
import { PriceBookVersions } from '../../../src/processor/prices/price-book-versions.ts'
import { MongoStore } from '../../../src/store/mongo/mongo-store.ts'
import { mongoForTests, uniqueName, withDatabase } from '../../servers/servers-for-tests.ts'
import { joinedHostsContract } from '../ledger/joined-hosts.contract.ts'
import { keeperContract } from '../ledger/keeper.contract.ts'
import {
  DEFAULT_USD,
  expectedLedger,
  LedgerPlace,
  Lines,
  type Store,
  spanKey,
  T0,
  token,
} from '../ledger/ledger-place.ts'
import { sameAnswerContract } from '../same-answer.contract.ts'
import { makeCall, puppetStore } from './interleavings.ts'
import { type Batch, deliver, deliverMarkingInferred, MUTATIONS } from './protocol.ts'

const { skip, url } = await mongoForTests()
const book = new PriceBook(initialBook(DEFAULT_USD), 1)
const RUNS = 40

const open = async () => {
  const store = new MongoStore({ url: withDatabase(url, uniqueName('keeper')), log: new Lines() })
  return { store, dispose: () => store.close() }
}

if (skip === false) keeperContract('mongodb', open, { runs: 6 })
if (skip === false) joinedHostsContract('mongodb', open, { runs: 6 })
if (skip === false) sameAnswerContract('mongodb', open, { runs: 4 })

/** Numbers from 0 to 1, the same for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

/** Lets the calls of some actors go one at a time, in a random order; returns which of them died. */
async function runInterleaved(
  store: Store,
  actors: ((puppet: Store) => Promise<void>)[],
  random: () => number,
): Promise<Set<number>> {
  const waiting = new Map<number, () => Promise<void>>()
  let running = actors.length
  const died = new Set<number>()
  let wake = () => {}
  for (const [i, actor] of actors.entries()) {
    let callsLeft = random() < 0.5 ? Math.floor(random() * 30) : Number.POSITIVE_INFINITY
    const finish = () => {
      running--
      wake()
    }
    const puppet = puppetStore((call) => {
      return new Promise((resolve, reject) => {
        if (callsLeft-- <= 0) {
          died.add(i)
          finish()
          return
        }
        waiting.set(i, () => makeCall(store, call).then(resolve, reject))
        wake()
      })
    })
    void actor(puppet).then(finish)
  }
  while (running > 0) {
    // Every actor that runs comes to its next call, or ends, before one is let go.
    while (waiting.size < running) await new Promise<void>((resolve) => (wake = resolve))
    if (running === 0) break
    const all = [...waiting.keys()].sort()
    const chosen = all[Math.floor(random() * all.length)]!
    const go = waiting.get(chosen)!
    waiting.delete(chosen)
    await go()
  }
  return died
}

async function sampleOrders(
  place: LedgerPlace,
  mutate: (store: Store) => Store,
  step: (store: Store, batch: Batch, nowMs: number) => Promise<void> = deliver,
): Promise<{ died: number; stale: string[] }> {
  const { store, nowMs } = place
  const random = randomOf(7)
  let died = 0
  const stale: string[] = []
  for (let run = 0; run < RUNS && stale.length === 0; run++) {
    const host = `h${run}.`
    const [first, second] = [token(T0, { host, tenant: 't1' }), token(T0 + 1000, { host, tenant: 't2' })]
    // The third event has no host: each processor infers its own, and after a crash another one.
    const hostless = token(T0 + 2000, { tenant: 't3' })
    const inferring = (to: string) => ({ ...hostless, host: `${host}${to}` })
    const batches: Batch[] = [
      { samples: [], tokens: [first, inferring(' one')] },
      { samples: [], tokens: [first, second, inferring(' two')] },
    ]
    const again = batches.map(({ tokens }): Batch => ({ samples: [], tokens: [...tokens.slice(0, -1), inferring('')] }))
    const eager = { settleMs: 0, maxWaitMs: 0, jitterMs: 0, rollupSettleMs: 0, rollupMaxWaitMs: 0 }
    const keeperOn = (on: Store) =>
      new Keeper(on.ledger, new PriceBookVersions(on.ledger), { ...eager, log: new Lines(), now: () => nowMs, random })
    const keep = async (on: Store) => {
      const keeper = keeperOn(mutate(on))
      for (let pass = 0; pass < 3; pass++) await keeper.pass()
    }
    const processors = batches.map((batch) => (on: Store) => step(mutate(on), batch, nowMs))
    const dead = await runInterleaved(store, [...processors, keep, keep], random)
    died += dead.size
    for (const [i, batch] of again.entries()) if (dead.has(i)) await step(store, batch, nowMs)
    await place.settle(keeperOn(mutate(store)))
    const held: TokenDocument[] = []
    for await (const one of store.readEvents('token', T0, T0 + 3000)) if (one.host?.startsWith(host)) held.push(one)
    assert.deepEqual(held.map(({ _id }) => _id).toSorted(), [first, second, hostless].map(({ _id }) => _id).toSorted())
    const expected = expectedLedger([], held, () => book)
    for (const level of ['minute', 'hour'] as const) {
      const found = await place.spans(level)
      for (const name of [host, `${host} one`, `${host} two`]) {
        const key = spanKey(T0, name)
        if (text(found.get(key)) !== text(expected[level].get(key))) stale.push(`${level} ${key}`)
      }
    }
  }
  return { died, stale }
}

function text(rows: unknown): string {
  return JSON.stringify(rows, (_, one) => (typeof one === 'bigint' ? String(one) : one)) ?? 'none'
}

const places: { dispose: () => Promise<void> }[] = []
after(() => Promise.all(places.map(({ dispose }) => dispose())))

async function newPlace(): Promise<LedgerPlace> {
  const opened = await open()
  places.push(opened)
  return LedgerPlace.on(opened.store)
}

test('mongodb: random orders of calls and crashes leave no stale cell or hour', { skip, timeout: 60_000 }, async () => {
  const { died, stale } = await sampleOrders(await newPlace(), (same) => same)
  assert.deepEqual(stale, [])
  assert.ok(died > RUNS / 2, `only ${died} actors died`)
})

test('mongodb: the sample finds a stale cell when marks are deleted by minute', { skip, timeout: 60_000 }, async () => {
  const { stale } = await sampleOrders(await newPlace(), MUTATIONS['marks deleted by minute instead of by id'])
  assert.notDeepEqual(stale, [])
})

test('mongodb: the sample finds a stale cell when a duplicate marks the host that was inferred last', {
  skip,
  timeout: 60_000,
}, async () => {
  const { stale } = await sampleOrders(await newPlace(), (same) => same, deliverMarkingInferred)
  assert.notDeepEqual(stale, [])
})
