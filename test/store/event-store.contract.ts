// What every EventStore must do, as tests that run over both adapters. An adapter's test file calls
// `eventStoreContract` with a function that makes an empty place for data; each test gets a place of its own, may open
// several stores on it, and closes what it opened. What only one adapter can do (foreign documents are MongoDB's) is an
// optional part of the fixture. All ids are made as event-id.ts makes them: stores recognize our documents by them.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { GpuDocument, TokenDocument } from '../../src/domain/events/event.ts'
import { logEventId, logIdPrefix, ownEventId } from '../../src/domain/events/event-id.ts'
import type { Position } from '../../src/log/event-log.ts'
import {
  type DeadLetter,
  type EventPlace,
  type EventQuery,
  type EventStore,
  StoreError,
  type WriteResult,
} from '../../src/store/event-store.ts'

/** An empty place for data: a database or a directory of its own. */
export interface StoreFixture {
  /** A new store on the place's data, not prepared yet; the contract closes it. */
  open(): EventStore
  /** Overwrites the stored format number of a prepared place. */
  writeFormat(format: number): Promise<void>
  /** Puts foreign documents into a collection; left out where there cannot be any. */
  insertForeign?(kind: 'gpu' | 'token', documents: Record<string, unknown>[]): Promise<void>
  /** Removes the place; all its stores are closed by then. */
  dispose(): Promise<void>
}

export type MakeStore = () => Promise<StoreFixture>

/** The instant that the events of these tests lie around: the start of a minute and of an hour. */
const T0 = Date.UTC(2026, 5, 1, 12)
const GROUP = 'pertoken'

/** Declares the contract's tests for one adapter. */
export function eventStoreContract(name: string, makeStore: MakeStore): void {
  const contract = (sentence: string, run: (place: Place, t: TestContext) => Promise<void>) =>
    test(`${name}: ${sentence}`, async (t) => {
      const place = new Place(await makeStore())
      try {
        await run(place, t)
      } finally {
        await place.dispose()
      }
    })

  writeTests(contract)
  readTests(contract)
  listTests(contract)
  latestTests(contract)
  progressTests(contract)
  deadLetterTests(contract)
  formatTests(contract)
}

type Contract = (sentence: string, run: (place: Place, t: TestContext) => Promise<void>) => void

/** One test's place and the stores that it opened. */
class Place {
  readonly fixture: StoreFixture
  readonly #stores: EventStore[] = []

  constructor(fixture: StoreFixture) {
    this.fixture = fixture
  }

  open(): EventStore {
    const store = this.fixture.open()
    this.#stores.push(store)
    return store
  }

  async prepared(): Promise<EventStore> {
    const store = this.open()
    await store.prepare()
    return store
  }

  async dispose(): Promise<void> {
    for (const store of this.#stores) await store.close()
    await this.fixture.dispose()
  }
}

function writeTests(contract: Contract): void {
  contract('a write counts what was new and what was there, of both kinds together', async (place) => {
    const store = await place.prepared()
    const samples = [sample('a', 0), sample('b', 1)]
    const tokens = [token('c', 0), token('d', 1), token('e', 2)]
    assert.deepEqual(await countsOf(store, samples, tokens), { stored: 5, duplicate: 0 })
    assert.deepEqual(await countsOf(store, samples, tokens), { stored: 0, duplicate: 5 })
    const mixed = await countsOf(store, [sample('b', 1), sample('f', 2)], [token('d', 1), token('g', 3)])
    assert.deepEqual(mixed, { stored: 2, duplicate: 2 })
    const counts = await store.count()
    assert.deepEqual([counts.gpuMetrics, counts.tokenUsage], [3, 4])
  })

  contract('an empty write stores nothing', async (place) => {
    const store = await place.prepared()
    assert.deepEqual(await countsOf(store, [], []), { stored: 0, duplicate: 0 })
    assert.deepEqual(await countsOf(store, [], [token('a', 0)]), { stored: 1, duplicate: 0 })
    assert.deepEqual(await countsOf(store, [sample('a', 0)], []), { stored: 1, duplicate: 0 })
  })

  contract('a duplicate inside one call is counted as one, and the rest of the call is stored', async (place) => {
    const store = await place.prepared()
    const samples = [sample('a', 0), sample('a', 0), sample('b', 1), sample('a', 0)]
    const tokens = [token('x', 0), token('y', 1), token('x', 0)]
    assert.deepEqual(await countsOf(store, samples, tokens), { stored: 4, duplicate: 3 })
    assert.deepEqual(await countsOf(store, [...samples, sample('c', 2)], tokens), { stored: 1, duplicate: 7 })
    assert.deepEqual((await collect(store.readEvents('gpu', T0, T0 + 10))).map(idOf), ['a', 'b', 'c'].map(ownId))
  })

  contract('the document that was written first stays as it was', async (place) => {
    const store = await place.prepared()
    await store.writeDocuments([], [token('a', 0, { completion_tokens: 1 })])
    await store.writeDocuments([], [token('a', 5, { completion_tokens: 2, tenant: 'other' })])
    assert.deepEqual(await collect(store.readEvents('token', T0, T0 + 10)), [token('a', 0, { completion_tokens: 1 })])
  })

  contract('a write of several thousand documents is stored whole', async (place) => {
    const store = await place.prepared()
    const samples = Array.from({ length: 3000 }, (_, i) => sample(`s${i}`, i))
    const tokens = Array.from({ length: 3000 }, (_, i) => token(`t${i}`, i))
    assert.deepEqual(await countsOf(store, samples, tokens), { stored: 6000, duplicate: 0 })
    assert.deepEqual(await countsOf(store, samples, tokens), { stored: 0, duplicate: 6000 })
  })

  contract('documents come back equal, field by field', async (place) => {
    const store = await place.prepared()
    const samples = [fullSample(), sample('plain', 200), sample('no host', 201, { host: null })]
    const tokens = [fullToken(), token('plain', 1), token('late', 2, LATE)]
    await store.writeDocuments(samples, tokens)
    assert.deepStrictEqual(await collect(store.readEvents('gpu', T0, T0 + 1000)), samples)
    assert.deepStrictEqual(await collect(store.readEvents('token', T0, T0 + 1000)), tokens)
    assert.deepStrictEqual((await store.listEvents('gpu', { limit: 10 })).items, samples)
    assert.deepStrictEqual((await store.listEvents('token', { limit: 10 })).items, tokens)
    assert.deepStrictEqual(await store.latestSample({ host: fullSample().host }), fullSample())
  })

  contract('two stores on the same data see each other, and store every event once', async (place) => {
    const [one, two] = [await place.prepared(), await place.prepared()]
    const tokens = Array.from({ length: 400 }, (_, i) => token(`t${i}`, i))
    const results = await Promise.all([one.writeDocuments([], tokens), two.writeDocuments([], tokens.toReversed())])
    assert.equal(results[0].stored + results[1].stored, 400)
    assert.equal(results[0].duplicate + results[1].duplicate, 400)
    await one.writeDocuments([sample('a', 0)], [])
    assert.deepEqual(await two.latestSample({}), sample('a', 0))
    await two.advancePositions(GROUP, [position({ offset: 5 })])
    await one.advancePositions(GROUP, [position({ offset: 3 })])
    assert.deepEqual(await one.readPositions(GROUP), [position({ offset: 5 })])
  })

  contract('where duplicates are stored is read back: by the time and host of the stored document', async (place) => {
    const [store, other] = [await place.prepared(), await place.prepared()]
    const first = await store.writeDocuments(
      [sample('s', 0, { host: null }), sample('t', 1)],
      [token('a', 0, { host: 'h9' }), token('b', 70_000, { host: null, interval_s: 90 }), token('c', 2)],
    )
    assert.deepEqual(first.existing, { samples: [], tokens: [] })
    const again = await other.writeDocuments(
      [sample('s', 5, { host: 'h3' }), sample('new', 9)],
      [token('a', 0, { host: null }), token('b', 0, { host: 'h3' }), token('d', 3), token('d', 4, { host: 'h4' })],
    )
    assert.deepEqual(placesIn(again), {
      samples: [`${T0} null`],
      tokens: [`${T0} h9`, `${T0 + 3} h1`, `${T0 + 70_000} null 90 s`],
    })
    assert.deepEqual(countsIn(again), { stored: 2, duplicate: 4 })
  })

  contract('of two that write the same events at once both learn where they are stored', async (place) => {
    const stores = [await place.prepared(), await place.prepared()]
    const results = await Promise.all(
      stores.map((store, i) => {
        const tokens = Array.from({ length: 2500 }, (_, n) => token(`t${n}`, n, { host: `h${i}` }))
        return store.writeDocuments([], i === 0 ? tokens : tokens.toReversed())
      }),
    )
    const stored = new Map<number, string | null>()
    for await (const { ts, host } of stores[0]!.readEvents('token', T0, T0 + 2500)) stored.set(ts.getTime(), host)
    assert.equal(stored.size, 2500)
    for (const { duplicate, existing } of results) {
      assert.equal(existing.tokens.length, duplicate)
      for (const { ts, host } of existing.tokens) assert.equal(host, stored.get(ts.getTime()))
    }
    assert.equal(results[0]!.duplicate + results[1]!.duplicate, 2500)
  })
}

const countsIn = ({ stored, duplicate }: WriteResult) => ({ stored, duplicate })
const countsOf = async (store: EventStore, ...documents: Parameters<EventStore['writeDocuments']>) =>
  countsIn(await store.writeDocuments(...documents))

/** What was there already, as texts in order. */
function placesIn({ existing }: WriteResult): { samples: string[]; tokens: string[] } {
  const textOf = ({ ts, host, interval_s }: EventPlace) =>
    `${ts.getTime()} ${host}${interval_s === undefined ? '' : ` ${interval_s} s`}`
  const textsOf = (places: EventPlace[]) => places.map(textOf).toSorted()
  return { samples: textsOf(existing.samples), tokens: textsOf(existing.tokens) }
}

function readTests(contract: Contract): void {
  contract('events are read in order of (ts, _id), whatever order they were written in', async (place) => {
    const store = await place.prepared()
    // Ids are ordered by their UTF-8 bytes, where U+FF5E comes before U+1F600; by UTF-16 units it would come after.
    const ids = ['b', 'a', '～', '😀', 'ä', 'aa', 'B', '~']
    const tokens = [3, 0, 2].flatMap((offsetMs) => ids.map((id) => token(`${id}-${offsetMs}`, offsetMs)))
    for (const document of tokens) await store.writeDocuments([], [document])
    const read = await collect(store.readEvents('token', T0, T0 + 10))
    assert.deepEqual(read.map(idOf), tokens.toSorted(byTimeAndId).map(idOf))
  })

  contract('a range has its start and not its end', async (place) => {
    const store = await place.prepared()
    const written = [-1, 0, 1, 999, 1000, 1001].map((offsetMs) => offsetMs)
    await store.writeDocuments(
      written.map((ms) => sample(`s${ms}`, ms)),
      written.map((ms) => token(`t${ms}`, ms)),
    )
    const msOf = (documents: { ts: Date }[]) => documents.map((document) => document.ts.getTime() - T0)
    assert.deepEqual(msOf(await collect(store.readEvents('gpu', T0, T0 + 1000))), [0, 1, 999])
    assert.deepEqual(msOf(await collect(store.readEvents('token', T0, T0 + 1000))), [0, 1, 999])
    assert.deepEqual(await collect(store.readEvents('token', T0, T0)), [])
    const listed = (await store.listEvents('token', { fromMs: T0, toMs: T0 + 1000, limit: 10 })).items
    assert.deepEqual(msOf(listed as { ts: Date }[]), [0, 1, 999])
  })

  contract('a long range with many equal times is read whole, once, while others write', async (place) => {
    const store = await place.prepared()
    const tokens = Array.from({ length: 7000 }, (_, i) => token(`t${i}`, Math.floor(i / 3500)))
    for (let i = 0; i < tokens.length; i += 1000) await store.writeDocuments([], tokens.slice(i, i + 1000))
    const ids: string[] = []
    for await (const document of store.readEvents('token', T0, T0 + 2)) {
      ids.push(document._id)
      if (ids.length === 10) await store.writeDocuments([], [token('outside', 60_000)])
    }
    assert.deepEqual(ids, tokens.toSorted(byTimeAndId).map(idOf))
  })

  contract('a reader that stops early leaves the store usable', async (place) => {
    const store = await place.prepared()
    await store.writeDocuments(
      [],
      Array.from({ length: 50 }, (_, i) => token(`t${i}`, i)),
    )
    for await (const document of store.readEvents('token', T0, T0 + 100)) {
      assert.equal(document._id, ownId('t0'))
      break
    }
    assert.deepEqual(await countsOf(store, [], [token('t50', 50)]), { stored: 1, duplicate: 0 })
    assert.equal((await collect(store.readEvents('token', T0, T0 + 100))).length, 51)
  })
}

function listTests(contract: Contract): void {
  contract('pages of one give every event once, in order, and the last has no cursor', async (place) => {
    const store = await place.prepared()
    const tokens = [token('c', 0), token('a', 0), token('b', 0), token('d', 1), token('0', 2)]
    await store.writeDocuments([], tokens)
    const pages = await allPages(store, { limit: 1 })
    assert.deepEqual(
      pages.map((page) => page.map(idOf)),
      tokens.toSorted(byTimeAndId).map((document) => [document._id]),
    )
    assert.deepEqual(
      (await allPages(store, { limit: 2 })).map((page) => page.length),
      [2, 2, 1],
    )
    assert.deepEqual(
      (await allPages(store, { limit: 5 })).map((page) => page.length),
      [5],
    )
    assert.deepEqual(await store.listEvents('gpu', { limit: 5 }), { items: [], cursor: null })
  })

  contract('a cursor holds its place while events are inserted around it', async (place) => {
    const store = await place.prepared()
    await store.writeDocuments([], [token('b', 0), token('d', 0), token('f', 10)])
    const first = await store.listEvents('token', { limit: 2 })
    assert.deepEqual(first.items.map(idOf), ['b', 'd'].map(ownId))
    await store.writeDocuments([], [token('a', 0), token('c', 0), token('e', 0), token('0', 5), token('z', -1)])
    const rest = await store.listEvents('token', { limit: 10, cursor: first.cursor! })
    assert.deepEqual(rest, { items: [token('e', 0), token('0', 5), token('f', 10)], cursor: null })
  })

  contract('a cursor that no page gave is refused for good', async (place) => {
    const store = await place.prepared()
    for (const cursor of ['nonsense', '', '🙂', 'eyJ9'])
      await assert.rejects(store.listEvents('token', { limit: 1, cursor }), storeError({ retriable: false }))
    await assert.rejects(store.listDeadLetters({ limit: 1, cursor: 'nonsense' }), storeError({ retriable: false }))
  })

  contract('filters of a listing hold together, and over pages', async (place) => {
    const store = await place.prepared()
    await store.writeDocuments(
      [sample('s1', 1, { host: 'h1', gpu_index: 0 }), sample('s2', 2, { host: 'h1', gpu_index: 1 })],
      FILTERED_TOKENS,
    )
    await store.writeDocuments([sample('s3', 3, { host: 'h2', gpu_index: 1 }), sample('s4', 4, { host: null })], [])
    for (const [query, expected] of TOKEN_FILTERS) {
      for (const limit of [1, 100]) {
        const found = (await allPages(store, { ...query, limit })).flat().map(idOf)
        assert.deepEqual(found, expected.map(ownId), `${JSON.stringify(query)} by ${limit}`)
      }
    }
    for (const [query, expected] of SAMPLE_FILTERS) {
      const found = (await store.listEvents('gpu', { ...query, limit: 100 })).items.map(idOf)
      assert.deepEqual(found, expected.map(ownId), JSON.stringify(query))
    }
  })

  contract('documents of somebody else are listed, and neither read nor counted as ours', async (place, t) => {
    if (place.fixture.insertForeign === undefined) return t.diagnostic('this store has no documents that are not ours')
    const store = await place.prepared()
    await store.writeDocuments([sample('a', 1)], [token('b', 1)])
    await place.fixture.insertForeign('gpu', [{ ts: new Date(T0), gpu_index: 0, util: 0.5 }])
    await place.fixture.insertForeign('token', [
      { ts: new Date(T0), model: 'm', prompt_tokens: 1, completion_tokens: 1, gpu_index: 0 },
      { _id: 'pt0:other', ts: new Date(T0 + 2), model: 'm', prompt_tokens: 1, completion_tokens: 1, gpu_index: 0 },
      { _id: 'pu:other', ts: new Date(T0 + 3), model: 'm', prompt_tokens: 1, completion_tokens: 1, gpu_index: 0 },
    ])
    assert.deepEqual((await collect(store.readEvents('gpu', T0, T0 + 10))).map(idOf), [ownId('a')])
    assert.deepEqual((await collect(store.readEvents('token', T0, T0 + 10))).map(idOf), [ownId('b')])
    assert.equal((await allPages(store, { limit: 1 })).flat().length, 4)
    const counts = await store.count()
    assert.deepEqual([counts.gpuMetrics, counts.tokenUsage], [1, 1])
    assert.ok(counts.foreign === 4 || counts.foreign === null, `${counts.foreign} foreign documents`)
  })
}

function latestTests(contract: Contract): void {
  contract('the latest sample is the newest by (ts, _id) of what the filter names', async (place) => {
    const store = await place.prepared()
    assert.equal(await store.latestSample({}), null)
    await store.writeDocuments(LATEST_SAMPLES, [token('newer than all', 99_999)])
    for (const [filter, expected] of LATEST_FILTERS) {
      const found = await store.latestSample(filter)
      assert.equal(found?._id ?? null, expected === null ? null : ownId(expected), JSON.stringify(filter))
    }
  })

  contract('the latest sample between two instants has both of them, ties and a long way back', async (place) => {
    const store = await place.prepared()
    assert.equal(await store.latestSample({ atOrBeforeMs: T0 }), null)
    // More than a store passes in one step, all newer than what is searched for.
    const others = Array.from({ length: 9_000 }, (_, i) => sample(`other ${i}`, 50 + (i >> 1), { host: 'other' }))
    await store.writeDocuments([...LATEST_SAMPLES, sample('h1-0 newest', 90_000, { host: 'h1', gpu_index: 0 })], [])
    await store.writeDocuments(others, [])
    for (const [{ from, to, ...slot }, expected] of BOUNDED_FILTERS) {
      const bounds = { ...(from !== undefined && { atOrAfterMs: T0 + from }), atOrBeforeMs: T0 + to }
      const found = await store.latestSample({ ...slot, ...bounds })
      assert.equal(
        found?._id ?? null,
        expected === null ? null : ownId(expected),
        JSON.stringify({ ...slot, from, to }),
      )
    }
    const [found] = LATEST_SAMPLES
    assert.deepStrictEqual(await store.latestSample({ host: 'h1', gpuIndex: 0, atOrBeforeMs: T0 + 29 }), found)
    assert.equal((await store.latestSample({ atOrAfterMs: T0 + 90_000 }))?._id, ownId('h1-0 newest'))
    assert.equal(await store.latestSample({ host: 'h2', atOrAfterMs: T0 + 26 }), null)
  })

  contract('the latest sample per slot is one for each slot since an instant', async (place) => {
    const store = await place.prepared()
    assert.deepEqual(await store.latestSamplePerSlot(0, 10), [])
    await store.writeDocuments(LATEST_SAMPLES, [])
    const idsSince = async (sinceMs: number, limit: number) =>
      (await store.latestSamplePerSlot(sinceMs, limit)).map(idOf).toSorted()
    assert.deepEqual(await idsSince(0, 10), ['h1-0 last', 'h1-1', 'h2-0', 'null-1 b'].map(ownId).toSorted())
    assert.deepEqual(await idsSince(T0 + 30, 10), ['h1-0 last', 'null-1 b'].map(ownId).toSorted())
    assert.deepEqual(await idsSince(T0 + 31, 10), [ownId('null-1 b')])
    assert.deepEqual(await idsSince(T0 + 1000, 10), [])
    assert.equal((await idsSince(0, 2)).length, 2)
    const [found] = await store.latestSamplePerSlot(T0 + 31, 1)
    assert.deepStrictEqual(found, sample('null-1 b', 40, { host: null, gpu_index: 1 }))
  })

  contract('the newest event time is by ts, of each kind', async (place) => {
    const store = await place.prepared()
    assert.deepEqual([await store.newestMs('gpu'), await store.newestMs('token')], [null, null])
    await store.writeDocuments([sample('b', 7), sample('a', 9), sample('c', 8)], [])
    assert.deepEqual([await store.newestMs('gpu'), await store.newestMs('token')], [T0 + 9, null])
    await store.writeDocuments([], [token('a', 1), token('b', -5)])
    assert.equal(await store.newestMs('token'), T0 + 1)
  })
}

function progressTests(contract: Contract): void {
  contract('marks are taken as often as they come', async (place) => {
    // The ledger's half of the contract reads them back; here only that equal marks do not collide.
    const [one, two] = [await place.prepared(), await place.prepared()]
    const minutes = [
      { startMs: T0, hosts: ['h1', null, 'h2'] },
      { startMs: T0 + 60_000, hosts: [null] },
    ]
    await one.ledger.insertMarks('minute', minutes, T0 + 1)
    await one.ledger.insertMarks('minute', minutes, T0 + 1)
    await Promise.all([
      one.ledger.insertMarks('minute', minutes, T0 + 1),
      two.ledger.insertMarks('minute', minutes, T0 + 1),
    ])
    await one.ledger.insertMarks('minute', [], T0 + 2)
  })

  contract('a position only moves forward, per partition and topic id', async (place) => {
    const store = await place.prepared()
    assert.deepEqual(await store.readPositions(GROUP), [])
    for (const [offset, stored] of [
      [10, 10],
      [10, 10],
      [9, 10],
      [0, 10],
      [11, 11],
      [2 ** 52, 2 ** 52],
    ] as const) {
      await store.advancePositions(GROUP, [position({ offset })])
      assert.deepEqual(await store.readPositions(GROUP), [position({ offset: stored })], `after ${offset}`)
    }
    await store.advancePositions(GROUP, [position({ partition: 1, offset: 0 }), position({ offset: 3 })])
    assert.deepEqual(
      sorted(await store.readPositions(GROUP)),
      sorted([position({ offset: 2 ** 52 }), position({ partition: 1, offset: 0 })]),
    )
  })

  contract(
    'where a partition begins is decided once: by whoever comes first, and not where it is known',
    async (place) => {
      const [one, two] = [await place.prepared(), await place.prepared()]
      await one.advancePositions(GROUP, [position({ offset: 9 })])
      const starts = [10, 20].map((offset) => [0, 1, 2].map((partition) => position({ partition, offset })))
      await Promise.all([one.beginPositions(GROUP, starts[0]!), two.beginPositions(GROUP, starts[1]!)])
      await one.beginPositions(GROUP, [])
      const begun = sorted(await one.readPositions(GROUP))
      assert.deepEqual(begun[0], position({ offset: 9 }))
      for (const { offset } of begun.slice(1)) assert.ok(offset === 10 || offset === 20)
      await two.beginPositions(
        GROUP,
        [1, 2].map((partition) => position({ partition, offset: 5 })),
      )
      assert.deepEqual(sorted(await two.readPositions(GROUP)), begun)
      assert.deepEqual(begun.length, 3)
      await two.advancePositions(GROUP, [position({ partition: 1, offset: 21 })])
      assert.equal((await two.readPositions(GROUP)).find(({ partition }) => partition === 1)?.offset, 21)
    },
  )

  contract('the same position twice in one call keeps the farther', async (place) => {
    const store = await place.prepared()
    await store.advancePositions(GROUP, [position({ offset: 7 }), position({ offset: 5 })])
    assert.deepEqual(await store.readPositions(GROUP), [position({ offset: 7 })])
    await store.advancePositions(GROUP, [])
    assert.deepEqual(await store.readPositions(GROUP), [position({ offset: 7 })])
  })

  contract('positions of several groups, topics and topic ids are kept apart', async (place) => {
    const store = await place.prepared()
    const positions = [
      position({ offset: 100 }),
      position({ topicId: 'made-anew', offset: 3 }),
      position({ topic: 'gpu.metrics.v1', offset: 50 }),
    ]
    await store.advancePositions(GROUP, positions)
    await store.advancePositions('other', [position({ offset: 1 })])
    assert.deepEqual(sorted(await store.readPositions(GROUP)), sorted(positions))
    assert.deepEqual(await store.readPositions('other'), [position({ offset: 1 })])
    assert.deepEqual(await store.readPositions('none'), [])
  })

  contract('a reset replaces positions of its partitions, back too, and drops their other topic ids', async (place) => {
    const store = await place.prepared()
    const untouched = [position({ partition: 1, offset: 9 }), position({ topic: 'gpu.metrics.v1', offset: 8 })]
    await store.advancePositions(GROUP, [
      position({ offset: 100 }),
      position({ topicId: 'older', offset: 7 }),
      ...untouched,
    ])
    await store.advancePositions('other', [position({ offset: 1 })])
    await store.resetPositions(GROUP, [position({ offset: 40 })])
    assert.deepEqual(sorted(await store.readPositions(GROUP)), sorted([position({ offset: 40 }), ...untouched]))
    await store.resetPositions(GROUP, [position({ topicId: 'newer', offset: 0 })])
    const replaced = [position({ topicId: 'newer', offset: 0 }), ...untouched]
    assert.deepEqual(sorted(await store.readPositions(GROUP)), sorted(replaced))
    assert.deepEqual(await store.readPositions('other'), [position({ offset: 1 })])
    await store.advancePositions(GROUP, [position({ topicId: 'newer', offset: 1 })])
    assert.equal((await store.readPositions(GROUP)).find(({ topicId }) => topicId === 'newer')?.offset, 1)
  })
}

function deadLetterTests(contract: Contract): void {
  contract('a dead letter is written once and comes back equal, bytes included', async (place) => {
    const store = await place.prepared()
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
    const letters = [
      letter(1, { key: bytes, value: bytes, headers: { 'ä.$': 'ü', __proto__x: 'y', '': '' } }),
      letter(2, { key: Buffer.alloc(0), value: Buffer.alloc(0) }),
      letter(3, { key: null, value: null, reason: 'tombstone' }),
      letter(4, { value: Buffer.alloc(65_536, 7) }),
      letter(5, { record_time: null, message: 'Not JSON: \0', headers: Object.fromEntries([['__proto__', 'x']]) }),
    ]
    await store.writeDeadLetters(letters)
    await store.writeDeadLetters([...letters, ...letters])
    for (const written of letters) assert.deepStrictEqual(await store.readDeadLetter(written._id), written)
    assert.equal(await store.readDeadLetter('none'), null)
    assert.equal((await store.count()).deadLetters, 5)
    await store.writeDeadLetters([])
  })

  contract('dead letters are listed newest first, by page and filter', async (place) => {
    const store = await place.prepared()
    const letters = [
      letter(1, { time: new Date(T0 + 5) }),
      letter(2, { time: new Date(T0 + 9), reason: 'not_json' }),
      letter(3, { time: new Date(T0 + 5), topic: 'gpu.metrics.v1' }),
      letter(4, { time: new Date(T0 + 1), topic: 'gpu.metrics.v1', reason: 'not_json' }),
    ]
    await store.writeDeadLetters(letters)
    const offsets = async (query: { reason?: string; topic?: string }, limit: number) => {
      const found: number[] = []
      for (let cursor: string | null | undefined; cursor !== null; ) {
        const page = await store.listDeadLetters({ ...query, limit, ...(cursor === undefined ? {} : { cursor }) })
        assert.ok(page.items.length > 0, 'no page is empty')
        found.push(...page.items.map((item) => item.offset))
        cursor = page.cursor
      }
      return found
    }
    for (const limit of [1, 2, 10]) {
      assert.deepEqual(await offsets({}, limit), [2, 3, 1, 4], `by ${limit}`)
      assert.deepEqual(await offsets({ reason: 'not_json' }, limit), [2, 4])
      assert.deepEqual(await offsets({ topic: 'gpu.metrics.v1' }, limit), [3, 4])
      assert.deepEqual(await offsets({ topic: 'gpu.metrics.v1', reason: 'not_json' }, limit), [4])
    }
    assert.deepEqual(await store.listDeadLetters({ topic: 'none', limit: 5 }), { items: [], cursor: null })
    assert.deepStrictEqual((await store.listDeadLetters({ limit: 1 })).items, [letters[1]])
  })

  contract('dead letters from before an instant are deleted, however many', async (place) => {
    const store = await place.prepared()
    const old = Array.from({ length: 6_001 }, (_, i) => letter(i, { time: new Date(T0 + i) }))
    const kept = [letter(10_000, { time: new Date(T0 + 7_000) }), letter(10_001, { time: new Date(T0 + 7_001) })]
    await store.writeDeadLetters([...old, ...kept])
    assert.equal(await store.purgeDeadLetters(T0 + 7_000), 6_001)
    assert.equal(await store.purgeDeadLetters(T0 + 7_000), 0)
    assert.deepStrictEqual((await store.listDeadLetters({ limit: 5 })).items, kept.toReversed())
  })

  contract('a redriven dead letter stays marked when it is written again', async (place) => {
    const store = await place.prepared()
    await store.writeDeadLetters([letter(1), letter(2)])
    await store.markRedriven(letter(1)._id, new Date(T0 + 77))
    await store.writeDeadLetters([letter(1), letter(2)])
    assert.deepStrictEqual(await store.readDeadLetter(letter(1)._id), { ...letter(1), redriven_at: new Date(T0 + 77) })
    assert.deepStrictEqual(await store.readDeadLetter(letter(2)._id), letter(2))
  })
}

function formatTests(contract: Contract): void {
  contract('preparing again, or from two sides at once, changes nothing', async (place) => {
    const [one, two] = [place.open(), place.open()]
    await Promise.all([one.prepare(), two.prepare()])
    await one.writeDocuments([sample('a', 0)], [])
    assert.deepEqual(await one.prepare(), { warnings: [] })
    assert.deepEqual(await two.prepare(), { warnings: [] })
    assert.deepEqual(await two.latestSample({}), sample('a', 0))
    await one.ping()
    assert.ok(one.description.length > 0)
  })

  contract('data of a newer pertoken is refused for good, with what to do', async (place) => {
    await place.prepared()
    await place.fixture.writeFormat(1_000_000)
    const error = await place
      .open()
      .prepare()
      .then(
        () => null,
        (reason: unknown) => reason,
      )
    storeError({ retriable: false })(error)
    assert.match((error as StoreError).message, /format 1000000/i)
    assert.match((error as StoreError).message, /newer/i)
  })
}

/** A predicate for assert.rejects. */
function storeError(expected: { retriable: boolean }): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof StoreError, `not a StoreError: ${error}`)
    assert.equal(error.retriable, expected.retriable, error.message)
    return true
  }
}

/** Pages of token_usage until the end; no page but the first of an empty result is empty. */
async function allPages(store: EventStore, query: EventQuery): Promise<Record<string, unknown>[][]> {
  const first = await store.listEvents('token', query)
  const pages = [first.items]
  for (let cursor = first.cursor; cursor !== null; ) {
    const page = await store.listEvents('token', { ...query, cursor })
    assert.ok(page.items.length > 0, 'a page that a cursor led to is empty')
    pages.push(page.items)
    cursor = page.cursor
  }
  return pages
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const collected: T[] = []
  for await (const item of items) collected.push(item)
  return collected
}

function byTimeAndId(a: { ts: Date; _id: string }, b: { ts: Date; _id: string }): number {
  return a.ts.getTime() - b.ts.getTime() || Buffer.compare(Buffer.from(a._id), Buffer.from(b._id))
}

function sorted(positions: Position[]): Position[] {
  const key = (p: Position) => `${p.topic} ${p.partition} ${p.topicId}`
  return positions.toSorted((a, b) => (key(a) < key(b) ? -1 : 1))
}

function idOf(document: { _id?: unknown }): unknown {
  return document._id
}

function ownId(id: string): string {
  return ownEventId('h1', id)
}

function sample(id: string, afterT0Ms: number, fields: Partial<GpuDocument> = {}): GpuDocument {
  return { _id: ownId(id), ts: new Date(T0 + afterT0Ms), host: 'h1', gpu_index: 0, utilization: 0.5, ...fields }
}

function token(id: string, afterT0Ms: number, fields: Partial<TokenDocument> = {}): TokenDocument {
  return {
    _id: ownId(id),
    ts: new Date(T0 + afterT0Ms),
    host: 'h1',
    model: 'llama-3-8b',
    gpu_index: 0,
    prompt_tokens: 100,
    completion_tokens: 20,
    cost_per_token: 0.000_000_123,
    tokens_per_second: 41.25,
    price_per_hour_usd: 0.85,
    window_s: 30,
    ...fields,
  }
}

const LATE: Partial<TokenDocument> = { cost_per_token: null, tokens_per_second: null, late: true, partial: true }

/** Fields that pertoken does not know, with all that JSON can hold and names that a store may stumble over. */
const UNKNOWN_FIELDS = {
  nested: { a: [1, 'two', null, true, { b: [] }], 'dotted.name': { $set: 1 }, empty: {}, '': 'no name' },
  $top: 'dollar',
  'a.b': 'dot',
  ' x ': [[], [[]]],
  ts2: '2026-06-01T12:00:00.000Z',
  body: 'a column name',
  unicode: 'ß – 漢字 – 😀 – \u202e – "quoted" \\ / \n\t',
  control: 'a\u0000b\u001f',
  yes: true,
  no: false,
  nothing: null,
  numbers: [0, 1, -1, 0.1, 1e21, 1e-300, 5e-324, 2 ** 31, -(2 ** 31) - 1, 2 ** 53 - 1, 2 ** 53, 1.797e308, 3.0],
}

function fullSample(): GpuDocument {
  return {
    ...UNKNOWN_FIELDS,
    _id: logEventId(logIdPrefix({ topicId: 'AAAAAAAAAAAAAAAAAAAAAQ', partition: 11 }), 2 ** 52, 4_294_967_295),
    ts: new Date(T0 + 123),
    host: 'höst\u0000.example',
    gpu_index: 1023,
    name: 'NVIDIA H200',
    utilization: 0.1,
    mem_used_mb: 12.5,
    mem_total_mb: 141_000,
    power_w: 0,
    price_per_hour_usd: 3.5,
    uuid: 'GPU-1',
    event_id: 'e',
    energy_j: 1e15,
    mig_profile: '1g.5gb',
    model_loaded: 'm',
    host_inferred: true,
  } as GpuDocument
}

function fullToken(): TokenDocument {
  const { gpu_index: _, ...rest } = token('full', 0)
  return {
    ...UNKNOWN_FIELDS,
    ...rest,
    host: null,
    gpus: [3, 1, 2],
    tenant: 'Größe & Söhne',
    latency_ms: 12.75,
    cached_prompt_tokens: 100,
    requests: 1_000_000_000,
    interval_s: 0.5,
    engine: 'vllm',
    request_id: 'r',
  } as TokenDocument
}

const FILTERED_TOKENS = [
  token('t1', 1, { host: 'h1', gpu_index: 0, model: 'm1', tenant: 'a' }),
  token('t2', 2, { host: 'h1', gpu_index: 1, model: 'm2', tenant: 'a' }),
  token('t3', 3, { host: 'h2', gpu_index: 0, model: 'm1', tenant: 'b' }),
  token('t4', 4, { host: null, gpu_index: 0, model: 'm1' }),
  token('t5', 5, { host: 'h2', gpu_index: 1, model: 'm2', tenant: 'a' }),
]

/** Query, ids that it finds. */
const TOKEN_FILTERS: [Omit<EventQuery, 'limit'>, string[]][] = [
  [{}, ['t1', 't2', 't3', 't4', 't5']],
  [{ host: 'h1' }, ['t1', 't2']],
  [{ host: null }, ['t4']],
  [{ gpuIndex: 0 }, ['t1', 't3', 't4']],
  [{ model: 'm1' }, ['t1', 't3', 't4']],
  [{ tenant: 'a' }, ['t1', 't2', 't5']],
  [{ host: 'h2', gpuIndex: 1, model: 'm2', tenant: 'a' }, ['t5']],
  [{ model: 'm1', tenant: 'a' }, ['t1']],
  [{ model: 'm1', fromMs: T0 + 2, toMs: T0 + 4 }, ['t3']],
  [{ fromMs: T0 + 4 }, ['t4', 't5']],
  [{ toMs: T0 + 2 }, ['t1']],
  [{ host: 'none' }, []],
  [{ model: 'M1' }, []],
]

const SAMPLE_FILTERS: [Omit<EventQuery, 'limit'>, string[]][] = [
  [{}, ['s1', 's2', 's3', 's4']],
  [{ host: 'h1' }, ['s1', 's2']],
  [{ host: 'h1', gpuIndex: 1 }, ['s2']],
  [{ gpuIndex: 1 }, ['s2', 's3']],
  [{ host: null }, ['s4']],
  [{ host: 'h1', fromMs: T0 + 2 }, ['s2']],
]

const LATEST_SAMPLES = [
  sample('h1-0 first', 10, { host: 'h1', gpu_index: 0 }),
  sample('h1-0 last', 30, { host: 'h1', gpu_index: 0 }),
  sample('h1-0 equal', 30, { host: 'h1', gpu_index: 0 }),
  sample('h1-1', 20, { host: 'h1', gpu_index: 1 }),
  sample('h2-0', 25, { host: 'h2', gpu_index: 0 }),
  sample('null-1 a', 40, { host: null, gpu_index: 1 }),
  sample('null-1 b', 40, { host: null, gpu_index: 1 }),
]

/** Filter, id of the sample that it finds. */
const LATEST_FILTERS: [{ host?: string | null; gpuIndex?: number }, string | null][] = [
  [{}, 'null-1 b'],
  [{ host: 'h1' }, 'h1-0 last'],
  [{ host: 'h2' }, 'h2-0'],
  [{ host: null }, 'null-1 b'],
  [{ gpuIndex: 0 }, 'h1-0 last'],
  [{ gpuIndex: 1 }, 'null-1 b'],
  [{ host: 'h1', gpuIndex: 0 }, 'h1-0 last'],
  [{ host: 'h1', gpuIndex: 1 }, 'h1-1'],
  [{ host: null, gpuIndex: 1 }, 'null-1 b'],
  [{ host: null, gpuIndex: 0 }, null],
  [{ host: 'h3' }, null],
  [{ gpuIndex: 7 }, null],
]

/** Slot and bounds as offsets from T0, id of the sample that they find. */
const BOUNDED_FILTERS: [{ host?: string | null; gpuIndex?: number; from?: number; to: number }, string | null][] = [
  [{ host: 'h1', gpuIndex: 0, to: 90_000 }, 'h1-0 newest'],
  [{ host: 'h1', gpuIndex: 0, to: 89_999 }, 'h1-0 last'],
  [{ host: 'h1', gpuIndex: 0, to: 30 }, 'h1-0 last'],
  [{ host: 'h1', gpuIndex: 0, to: 29 }, 'h1-0 first'],
  [{ host: 'h1', gpuIndex: 0, to: 10 }, 'h1-0 first'],
  [{ host: 'h1', gpuIndex: 0, to: 9 }, null],
  [{ host: 'h1', gpuIndex: 0, from: 30, to: 89_999 }, 'h1-0 last'],
  [{ host: 'h1', gpuIndex: 0, from: 31, to: 89_999 }, null],
  [{ host: 'h1', to: 29 }, 'h1-1'],
  [{ host: null, gpuIndex: 1, to: 80_000 }, 'null-1 b'],
  [{ gpuIndex: 1, to: 39 }, 'h1-1'],
  [{ to: 49 }, 'null-1 b'],
  [{ to: 29 }, 'h2-0'],
  [{ to: 9 }, null],
  [{ host: 'h3', to: 80_000 }, null],
]

function position(fields: Partial<Position>): Position {
  return { topic: 'token.usage.v1', topicId: 'first', partition: 0, offset: 0, ...fields }
}

/** A dead letter of the record at an offset. */
export function letter(offset: number, fields: Partial<DeadLetter> = {}): DeadLetter {
  return {
    _id: `first:0:${offset}`,
    reason: 'missing_field',
    message: '/ts: ts is required',
    topic: 'token.usage.v1',
    topic_id: 'first',
    partition: 0,
    offset,
    record_time: new Date(T0 + offset),
    time: new Date(T0 + 1000),
    key: Buffer.from('h1'),
    value: Buffer.from('{}'),
    value_length: 2,
    value_sha256: '44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',
    headers: {},
    ...fields,
  }
}
