// What every LedgerStore must do, as tests that run over both adapters; the shape is that of event-store.contract.ts.
// The grouping of token usage is compared with its executable definition, totalsOfEvent, over generated events. Two
// stores on one place stand for two processors. `ledger-samples.ts` beside this makes the events, buckets and rows.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { GpuDocument, TokenDocument } from '../../src/domain/events/event.ts'
import { type BucketLevel, CELL_MS, DAY_MS, HOUR_MS } from '../../src/domain/ledger/buckets.ts'
import { rowToJson } from '../../src/domain/ledger/row-json.ts'
import { rowTotalsOf } from '../../src/domain/ledger/rows.ts'
import { totalsOfEvent } from '../../src/domain/ledger/token-totals.ts'
import type { CellRow } from '../../src/domain/ledger/types.ts'
import type { EventStore } from '../../src/store/event-store.ts'
import type { DayState, LedgerBucket, PriceBookVersion, Revision } from '../../src/store/ledger-store.ts'
import {
  bucket,
  collect,
  expectedTotals,
  generatedTokens,
  inOneForm,
  ownId,
  row,
  sample,
  T0,
  TOKEN_HOSTS,
  token,
  without,
} from './ledger-samples.ts'

/** An empty place for data: a database or a directory of its own. */
export interface LedgerFixture {
  /** A new store on the place's data, not prepared yet; the contract closes it. */
  open(): EventStore
  /** Puts foreign documents into a collection; left out where there cannot be any. */
  insertForeign?(kind: 'gpu' | 'token', documents: Record<string, unknown>[]): Promise<void>
  /** Removes the place; all its stores are closed by then. */
  dispose(): Promise<void>
}

class Place {
  readonly fixture: LedgerFixture
  readonly #stores: EventStore[] = []

  constructor(fixture: LedgerFixture) {
    this.fixture = fixture
  }

  async prepared(): Promise<EventStore> {
    const store = this.fixture.open()
    this.#stores.push(store)
    await store.prepare()
    return store
  }

  async dispose(): Promise<void> {
    for (const store of this.#stores) await store.close()
    await this.fixture.dispose()
  }
}

type Contract = (sentence: string, run: (place: Place, t: TestContext) => Promise<void>) => void

/** Declares the contract's tests for one adapter. */
export function ledgerStoreContract(name: string, makeStore: () => Promise<LedgerFixture>): void {
  const contract: Contract = (sentence, run) =>
    test(`${name}: ${sentence}`, async (t) => {
      const place = new Place(await makeStore())
      try {
        await run(place, t)
      } finally {
        await place.dispose()
      }
    })

  markTests(contract)
  bucketTests(contract)
  replaceTests(contract)
  sampleTests(contract)
  totalTests(contract)
  bookTests(contract)
  dayTests(contract)
  purgeTests(contract)
}

function markTests(contract: Contract): void {
  contract('dirty buckets are the newest starts of a level, with the times of their marks', async (place) => {
    const { ledger } = await place.prepared()
    assert.deepEqual(await ledger.dirtyBuckets('minute', 10), [])
    const at = (minute: number) => ({ startMs: T0 + minute * CELL_MS, hosts: ['h1'] })
    await ledger.insertMarks('minute', [at(0), at(1), at(2)], T0 + 5)
    await ledger.insertMarks('minute', [at(1)], T0 + 9)
    await ledger.insertMarks('minute', [at(1)], T0 + 7)
    await ledger.insertMarks('hour', [{ startMs: T0, hosts: ['h1'] }], T0 + 20)
    await ledger.insertMarks('minute', [], T0 + 99)
    const dirty = [
      { startMs: T0 + 2 * CELL_MS, marks: 1, firstAtMs: T0 + 5, lastAtMs: T0 + 5 },
      { startMs: T0 + CELL_MS, marks: 3, firstAtMs: T0 + 5, lastAtMs: T0 + 9 },
      { startMs: T0, marks: 1, firstAtMs: T0 + 5, lastAtMs: T0 + 5 },
    ]
    assert.deepEqual(await ledger.dirtyBuckets('minute', 10), dirty)
    assert.deepEqual(await ledger.dirtyBuckets('minute', 2), dirty.slice(0, 2))
    const hour = { startMs: T0, marks: 1, firstAtMs: T0 + 20, lastAtMs: T0 + 20 }
    assert.deepEqual(await ledger.dirtyBuckets('hour', 10), [hour])
    assert.deepEqual(await ledger.dirtyBuckets('day', 10), [])
  })

  contract('marks of the event store and of the ledger are the same, and null is a host', async (place) => {
    const store = await place.prepared()
    await store.ledger.insertMarks('minute', [{ startMs: T0, hosts: ['h1', null] }], T0)
    await store.ledger.insertMarks('minute', [{ startMs: T0, hosts: ['null', 'ĥ'] }], T0)
    await store.ledger.insertMarks('day', [{ startMs: T0, hosts: ['other'] }], T0)
    const marks = await store.ledger.readMarks('minute', T0)
    assert.deepEqual(new Set(marks.flatMap(({ hosts }) => hosts)), new Set(['h1', null, 'null', 'ĥ']))
    assert.equal(new Set(marks.map(({ id }) => id)).size, marks.length)
    assert.deepEqual(await store.ledger.readMarks('minute', T0 + CELL_MS), [])
  })

  contract('marks that came between reading and deleting survive', async (place) => {
    const [one, two] = [await place.prepared(), await place.prepared()]
    await one.ledger.insertMarks('minute', [{ startMs: T0, hosts: ['h1'] }], T0)
    const read = await one.ledger.readMarks('minute', T0)
    await two.ledger.insertMarks('minute', [{ startMs: T0, hosts: ['h1'] }], T0)
    await two.ledger.insertMarks('minute', [{ startMs: T0 + CELL_MS, hosts: ['h2'] }], T0)
    const ids = read.map(({ id }) => id)
    await one.ledger.deleteMarks(ids)
    await two.ledger.deleteMarks(ids)
    await one.ledger.deleteMarks([])
    const left = await one.ledger.readMarks('minute', T0)
    assert.deepEqual(
      left.map(({ hosts }) => hosts),
      [['h1']],
    )
    assert.ok(!ids.includes(left[0]!.id))
    assert.equal((await one.ledger.readMarks('minute', T0 + CELL_MS)).length, 1)
  })

  contract('an id of a mark is not used again after all are deleted', async (place) => {
    const { ledger } = await place.prepared()
    const seen = new Set<string>()
    for (let i = 0; i < 3; i++) {
      await ledger.insertMarks('minute', [{ startMs: T0, hosts: ['h1'] }], T0)
      const [mark] = await ledger.readMarks('minute', T0)
      await ledger.deleteMarks([mark!.id])
      seen.add(mark!.id)
    }
    assert.equal(seen.size, 3)
  })

  contract('pending marks are counted over all levels, in a half-open range of starts', async (place) => {
    const { ledger } = await place.prepared()
    const hosts = ['h1']
    await ledger.insertMarks(
      'minute',
      [T0, T0 + CELL_MS, T0 + HOUR_MS].map((startMs) => ({ startMs, hosts })),
      T0,
    )
    await ledger.insertMarks('hour', [{ startMs: T0, hosts }], T0)
    await ledger.insertMarks('day', [{ startMs: T0 - 12 * HOUR_MS, hosts }], T0)
    for (const [fromMs, toMs, count] of [
      [T0, T0 + HOUR_MS, 3],
      [T0, T0 + HOUR_MS + 1, 4],
      [T0 + 1, T0 + HOUR_MS, 1],
      [0, 8.64e15, 5],
      [T0 + DAY_MS, T0 + 2 * DAY_MS, 0],
    ] as const) {
      assert.equal(await ledger.pendingMarks(fromMs, toMs), count, `${fromMs} to ${toMs}`)
    }
  })

  contract('thousands of marks are read and deleted whole', async (place) => {
    const { ledger } = await place.prepared()
    const buckets = Array.from({ length: 3_000 }, (_, i) => ({ startMs: T0, hosts: [`h${i}`] }))
    for (const level of ['minute', 'hour', 'day'] as const) await ledger.insertMarks(level, buckets, T0)
    const marks = await ledger.readMarks('hour', T0)
    assert.equal(new Set(marks.flatMap(({ hosts }) => hosts)).size, 3_000)
    await ledger.deleteMarks(marks.map(({ id }) => id))
    assert.deepEqual(await ledger.readMarks('hour', T0), [])
    assert.equal((await ledger.readMarks('minute', T0)).length, 3_000)
  })
}

function bucketTests(contract: Contract): void {
  contract('buckets come back equal, row by row, integers beyond 2⁵³ exactly', async (place) => {
    const { ledger } = await place.prepared()
    const buckets = [
      bucket({
        host: 'full',
        rows: [row(), row({ gpu_index: 1, energy_mj: null }), row({ gpu_index: 2, energy_mj: 0n })],
      }),
      bucket({ host: 'nothing', rows: [] }),
      bucket({
        host: 'big',
        bookVersions: [1, 2, 70],
        capped: 12,
        rows: [
          row({
            busy_nano_usd: 2n ** 53n + 1n,
            loaded_idle_nano_usd: 2n ** 63n - 1n,
            unallocated_nano_usd: 2n ** 53n - 1n,
            prompt_tokens: 2n ** 31n,
            requests: 2n ** 31n - 1n,
            energy_mj: 2n ** 70n,
          }),
        ],
      }),
      bucket({ host: 'null values', rows: [row({ gpu_uuid: null, gpu_name: null, model: null, tenant: null })] }),
    ]
    assert.deepEqual(
      await ledger.replaceBuckets(buckets),
      buckets.map(() => true),
    )
    const stored = await collect(ledger.readBuckets('minute', T0, T0 + CELL_MS))
    assert.deepStrictEqual(byHost(stored), byHost(buckets.map((one) => ({ ...one, rev: 1 }))))
  })

  contract('no host, a host named "null" and others with odd names are different buckets', async (place) => {
    const { ledger } = await place.prepared()
    const hosts = [null, 'null', 'h:', ':', 'h', '\u{1f600}', '\uffee', 'Ü', '"', 'a b', '\u0001']
    const buckets = hosts.map((host) => bucket({ host }))
    assert.deepEqual(
      await ledger.replaceBuckets(buckets),
      hosts.map(() => true),
    )
    for (const host of hosts) {
      const [found, ...rest] = await collect(ledger.readBuckets('minute', T0, T0 + 1, [host]))
      assert.deepStrictEqual([found?.host, rest.length], [host, 0])
      assert.deepEqual(await ledger.readRevs('minute', T0, [host]), new Map([[host, 1]]))
    }
    const all = await collect(ledger.readBuckets('minute', T0, T0 + 1))
    assert.equal(all[0]!.host, null)
    // By UTF-8 bytes, as databases compare: '\u{1f600}' after '\uffee', which UTF-16 has before it.
    const names = all.slice(1).map(({ host }) => Buffer.from(host!))
    assert.deepEqual(names, names.toSorted(Buffer.compare))
  })

  contract('buckets are read by (start, host), of one level and a half-open range of starts', async (place) => {
    const { ledger } = await place.prepared()
    const hosts = [null, 'a', 'b']
    const starts = [0, 1, 2, 59, 60].map((minute) => T0 + minute * CELL_MS)
    await ledger.replaceBuckets(starts.flatMap((startMs) => hosts.map((host) => bucket({ startMs, host }))))
    await ledger.replaceBuckets([bucket({ level: 'hour' }), bucket({ level: 'day', startMs: T0 - 12 * HOUR_MS })])
    const read = async (...args: [BucketLevel, number, number, (string | null)[]?]) =>
      (await collect(ledger.readBuckets(...args))).map(({ startMs, host }) => `${(startMs - T0) / CELL_MS} ${host}`)
    const everything = [0, 1, 2, 59, 60].flatMap((minute) => hosts.map((host) => `${minute} ${host}`))
    for (const [fromMs, toMs, expected] of [
      [T0, T0 + 2 * HOUR_MS, everything],
      [0, 8.64e15, everything],
      [-8.64e15, 8.64e15, everything],
      [T0, T0 + HOUR_MS, everything.slice(0, 12)],
      [T0 + 1, T0 + HOUR_MS + 1, everything.slice(3)],
      [T0 + CELL_MS, T0 + CELL_MS + 1, everything.slice(3, 6)],
      [T0 + CELL_MS, T0 + CELL_MS, []],
      [T0 + HOUR_MS, T0, []],
    ] as const) {
      assert.deepEqual(await read('minute', fromMs, toMs), expected, `${fromMs} to ${toMs}`)
      const ofTwo = expected.filter((text) => !text.endsWith(' a'))
      assert.deepEqual(await read('minute', fromMs, toMs, ['b', null, 'b', 'none']), ofTwo, `${fromMs} to ${toMs}`)
      assert.deepEqual(await read('minute', fromMs, toMs, []), [])
    }
    assert.deepEqual(await read('hour', 0, 8.64e15), ['0 h1'])
    assert.deepEqual(await read('day', 0, 8.64e15), ['-720 h1'])
    assert.deepEqual(await read('day', 0, 8.64e15, [null]), [])
  })

  contract('sums are read in place of the rows where a bucket has them', async (place) => {
    const { ledger } = await place.prepared()
    const many = Array.from({ length: 40 }, (_, i) =>
      row({ gpu_index: i, tenant: `t${i % 3}`, busy_nano_usd: 2n ** 60n }),
    )
    const few = many.slice(0, 3)
    const sums = rowTotalsOf(many)
    assert.ok(sums !== null && rowTotalsOf(few) === null)
    await ledger.replaceBuckets([bucket({ rows: many, totals: sums }), bucket({ host: null, rows: few })])
    const rowsOf = async (read: AsyncIterable<Pick<LedgerBucket, 'host' | 'rows'>>) =>
      (await collect(read)).map(({ host, rows }) => [host, rows])
    const range = ['minute', T0, T0 + 1] as const
    const both = (rows: CellRow[]) => [
      [null, few],
      ['h1', rows],
    ]
    assert.deepEqual(await rowsOf(ledger.readTotals('model', ...range)), both(sums.model))
    assert.deepEqual(await rowsOf(ledger.readTotals('tenant', ...range)), both(sums.tenant))
    assert.deepEqual(await rowsOf(ledger.readTotals('tenant', ...range, ['h1'])), [['h1', sums.tenant]])
    assert.deepEqual(await rowsOf(ledger.readBuckets(...range)), both(many))
    assert.deepEqual(
      (await collect(ledger.readBuckets(...range))).map((stored) => stored.totals),
      [null, sums],
    )
    assert.deepEqual(await ledger.replaceBuckets([bucket({ rev: 1, rows: few })]), [true])
    assert.deepEqual(await rowsOf(ledger.readTotals('model', ...range)), both(few))
  })

  contract('hundreds of buckets are streamed whole and in order, and may be left half-way', async (place) => {
    const { ledger } = await place.prepared()
    const minutes = Array.from({ length: 600 }, (_, i) => T0 + i * CELL_MS)
    await ledger.replaceBuckets(minutes.map((startMs) => bucket({ startMs, rows: [row()] })))
    await ledger.replaceBuckets(minutes.map((startMs) => bucket({ startMs, host: null, rows: [row()] })))
    const range = ['minute', T0, T0 + DAY_MS] as const
    for (const hosts of [undefined, [null, 'h1'], Array.from({ length: 100 }, (_, i) => (i === 0 ? null : `h${i}`))]) {
      const read = await collect(ledger.readBuckets(...range, hosts))
      assert.deepEqual(
        read.map(({ startMs, host }) => [startMs, host]),
        minutes.flatMap((startMs) => [
          [startMs, null],
          [startMs, 'h1'],
        ]),
      )
    }
    for await (const first of ledger.readBuckets(...range)) {
      assert.equal(first.startMs, T0)
      break
    }
  })
}

function replaceTests(contract: Contract): void {
  contract('a bucket is replaced only at the rev that it was read with', async (place) => {
    const { ledger } = await place.prepared()
    const stored = async () => (await collect(ledger.readBuckets('minute', T0, T0 + 1)))[0]
    const write = (rev: number, capped: number) => ledger.replaceBuckets([bucket({ rev, capped })])
    assert.deepEqual(await ledger.replaceBuckets([]), [])
    assert.deepEqual(await write(1, 1), [false])
    assert.equal(await stored(), undefined)
    for (const [rev, capped, wins] of [
      [0, 2, true],
      [0, 3, false],
      [2, 4, false],
      [1, 5, true],
      [1, 5, false],
      [0, 6, false],
      [2, 7, true],
    ] as const) {
      const before = await stored()
      assert.deepEqual(await write(rev, capped), [wins], `rev ${rev}, capped ${capped}`)
      assert.deepEqual(await stored(), wins ? bucket({ rev: rev + 1, capped }) : before)
    }
  })

  contract('repeating a replacement that succeeded answers false and changes nothing', async (place) => {
    const { ledger } = await place.prepared()
    for (const rev of [0, 1, 2]) {
      const buckets = [bucket({ rev, host: 'a' }), bucket({ rev, host: null })]
      assert.deepEqual(await ledger.replaceBuckets(buckets), [true, true])
      assert.deepEqual(await ledger.replaceBuckets(buckets), [false, false])
      const revs = await ledger.readRevs('minute', T0, ['a', null, 'none'])
      assert.deepEqual(Object.fromEntries(revs), { a: rev + 1, null: rev + 1 })
    }
  })

  contract('of many buckets in one call each has its own answer, in order', async (place) => {
    const { ledger } = await place.prepared()
    const hosts = Array.from({ length: 90 }, (_, i) => `h${i}`)
    // Every third is there at rev 1, every third at rev 2.
    await ledger.replaceBuckets(hosts.filter((_, i) => i % 3 > 0).map((host) => bucket({ host })))
    await ledger.replaceBuckets(hosts.filter((_, i) => i % 3 > 1).map((host) => bucket({ host, rev: 1 })))
    const revOf = (i: number) => [0, 1, 2, 0, 1, 7][i % 6]!
    const answers = await ledger.replaceBuckets(hosts.map((host, i) => bucket({ host, rev: revOf(i), capped: 5 })))
    assert.deepEqual(
      answers,
      hosts.map((_, i) => revOf(i) === i % 3),
    )
    const stored = await collect(ledger.readBuckets('minute', T0, T0 + 1, hosts))
    for (const { host, rev, capped } of stored) {
      const i = hosts.indexOf(host!)
      const won = revOf(i) === i % 3
      assert.deepEqual([rev, capped], won ? [(i % 3) + 1, 5] : [i % 3, 0], host!)
    }
    assert.equal(stored.length, hosts.length)
  })

  contract('of two processors that race for the same revs exactly one wins each', async (place) => {
    const stores = [await place.prepared(), await place.prepared()]
    const hosts = [null, ...Array.from({ length: 24 }, (_, i) => `h${i}`)]
    for (let rev = 0; rev < 12; rev++) {
      const answers = await Promise.all(
        stores.map(async (store, i) => {
          // Not all in one order, and some alone, so that both win some.
          const ours = i === 0 ? hosts : hosts.toReversed()
          const parts = [ours.slice(0, 5), ours.slice(5, 6), ours.slice(6)]
          const won = await Promise.all(
            parts.map((part) => store.ledger.replaceBuckets(part.map((host) => bucket({ host, rev, capped: i })))),
          )
          return new Map(
            won.flatMap((part, p) => part.map((wins, j) => [parts[p]![j] as string | null, wins] as const)),
          )
        }),
      )
      for await (const stored of stores[0]!.ledger.readBuckets('minute', T0, T0 + 1)) {
        const wins = answers.map((answer) => answer.get(stored.host))
        assert.deepEqual(wins, stored.capped === 0 ? [true, false] : [false, true], `${stored.host} at rev ${rev}`)
        assert.equal(stored.rev, rev + 1)
      }
    }
  })
}

function sampleTests(contract: Contract): void {
  contract("samples are read by (ts, _id) with the ledger's fields", async (place) => {
    const store = await place.prepared()
    const fields: Partial<GpuDocument> = {
      host: null,
      uuid: 'GPU-1',
      name: 'H100',
      utilization: 0.25,
      mem_used_mb: 1.5,
      mem_total_mb: 80_000,
      power_w: 300.5,
      energy_j: 5e9,
      price_per_hour_usd: 2,
      model_loaded: 'm',
    }
    const full = sample('full', 5, fields)
    const extra = { mig_profile: '1g.10gb', host_inferred: true, rack: { row: 3 } }
    const plain = ['b', 'a', 'd', 'c'].map((id) => sample(id, 5))
    await store.writeDocuments([{ ...full, ...extra }, ...plain, sample('early', -1), sample('end', 10)], [])
    const read = await collect(store.ledger.readLedgerSamples(T0, T0 + 10))
    const expected = [{ ...full, ...extra }, ...plain].toSorted((a, b) => (a._id < b._id ? -1 : 1))
    assert.partialDeepStrictEqual(expected, read)
    assert.partialDeepStrictEqual(
      read,
      [...plain, full].toSorted((a, b) => (a._id < b._id ? -1 : 1)),
    )
  })

  contract("token usage is read event by event, by (ts, _id), with the ledger's fields", async (place) => {
    const store = await place.prepared()
    const tokens = [
      ...generatedTokens(3_000, 2 * CELL_MS),
      token('names', 7, { model: 'Modèle-β🙂', tenant: 'ﬁ'.repeat(80) }),
    ]
    await store.writeDocuments([], tokens)
    const inRange = tokens.filter(({ ts }) => ts.getTime() >= T0 && ts.getTime() < T0 + CELL_MS)
    const expected = inRange.sort((a, b) => a.ts.getTime() - b.ts.getTime() || (a._id < b._id ? -1 : 1))
    const read = await collect(store.ledger.readLedgerTokens(T0, T0 + CELL_MS))
    assert.equal(read.length, expected.length)
    // What is read is a part of the document, and all of it that the ledger counts.
    assert.partialDeepStrictEqual(expected, read)
    assert.deepStrictEqual(read.map(totalsOfEvent), expected.map(totalsOfEvent))
  })

  contract('thousands of samples are streamed whole', async (place) => {
    const store = await place.prepared()
    const samples = Array.from({ length: 4_000 }, (_, i) => sample(`s${String(i).padStart(5, '0')}`, Math.floor(i / 3)))
    await store.writeDocuments(samples, [])
    assert.deepStrictEqual(await collect(store.ledger.readLedgerSamples(T0, T0 + CELL_MS)), samples)
  })

  contract('the raw range goes from the first event to behind the last, of both kinds', async (place) => {
    const store = await place.prepared()
    assert.equal(await store.ledger.rawRange(), null)
    await store.writeDocuments([sample('a', 500)], [])
    assert.deepEqual(await store.ledger.rawRange(), { fromMs: T0 + 500, toMs: T0 + 501 })
    await store.writeDocuments([sample('b', 700)], [token('c', -3 * DAY_MS), token('d', 600)])
    assert.deepEqual(await store.ledger.rawRange(), { fromMs: T0 - 3 * DAY_MS, toMs: T0 + 701 })
    if (place.fixture.insertForeign === undefined) return
    const foreign = [{ ts: new Date(0) }, { ts: new Date(T0 + DAY_MS) }, { ts: 'yesterday' }, { ts: null }]
    await place.fixture.insertForeign('gpu', structuredClone(foreign))
    await place.fixture.insertForeign('token', structuredClone(foreign))
    assert.deepEqual(await store.ledger.rawRange(), { fromMs: T0 - 3 * DAY_MS, toMs: T0 + 701 })
  })
}

function totalTests(contract: Contract): void {
  contract('token totals are what grouping single events gives', async (place) => {
    const store = await place.prepared()
    const tokens = generatedTokens(4_000, 5 * CELL_MS)
    await store.writeDocuments([], tokens)
    for (const [fromMs, toMs, hosts] of [
      [T0, T0 + CELL_MS, TOKEN_HOSTS],
      [T0, T0 + 5 * CELL_MS, TOKEN_HOSTS],
      [T0 - HOUR_MS / 2, T0 + HOUR_MS / 2, TOKEN_HOSTS],
      [T0 + CELL_MS, T0 + 2 * CELL_MS, [null]],
      [T0 + CELL_MS, T0 + 3 * CELL_MS, ['h1', 'null', 'none']],
      [T0, T0 + 5 * CELL_MS, [null, 'h2']],
      [T0 + 30_001, T0 + 90_002, TOKEN_HOSTS],
      [T0, T0 + HOUR_MS, []],
      [T0 + CELL_MS, T0 + CELL_MS, TOKEN_HOSTS],
      [T0 + HOUR_MS, T0, TOKEN_HOSTS],
    ] as const) {
      const totals = await store.ledger.tokenTotals(fromMs, toMs, hosts)
      const expected = expectedTotals(tokens, { fromMs, toMs, hosts })
      assert.deepStrictEqual(inOneForm(totals), expected, `${fromMs - T0} to ${toMs - T0} of ${JSON.stringify(hosts)}`)
    }
  })

  contract('an event of several minutes is found from each of them, and from no other', async (place) => {
    const store = await place.prepared()
    const spans = [
      // Ends with a minute, of which it has nothing, and begins with one.
      token('five', CELL_MS, { interval_s: 5 }),
      token('whole', 5 * CELL_MS, { interval_s: 60 }),
      token('two', 2 * CELL_MS + 1, { interval_s: 0.002 }),
      token('hour', HOUR_MS + 30_000, { interval_s: 3600, requests: 500, prompt_tokens: 1_000_000 }),
      token('three', 10 * CELL_MS + 10_000, { interval_s: 130, gpus: [2, 0], host: null }),
    ]
    const within = [token('instant', CELL_MS), token('short', CELL_MS - 1, { interval_s: 59 }), token('zero', 0)]
    await store.writeDocuments([], [...spans, ...within])
    const minutesOf = (event: TokenDocument) => {
      const [begin, end] = [event.ts.getTime() - event.interval_s! * 1000, event.ts.getTime()]
      const all = Array.from({ length: 66 }, (_, i) => T0 + (i - 3) * CELL_MS)
      return all.filter((startMs) => startMs < end && startMs + CELL_MS > begin)
    }
    for (let startMs = T0 - 3 * CELL_MS; startMs < T0 + 63 * CELL_MS; startMs += CELL_MS) {
      const found = await collect(store.ledger.readReachingTokens(startMs, startMs + CELL_MS))
      const expected = spans.filter((event) => minutesOf(event).includes(startMs))
      assert.deepEqual(found.map(({ _id }) => _id).sort(), expected.map(({ _id }) => _id).sort(), `${startMs - T0}`)
      for (const event of found) {
        const { ts, host, interval_s, requests } = spans.find(({ _id }) => _id === event._id)!
        assert.deepEqual([event.ts, event.host, event.interval_s, event.requests], [ts, host, interval_s, requests])
      }
    }
    const hour = await collect(store.ledger.readReachingTokens(T0, T0 + HOUR_MS))
    assert.equal(hour.length, spans.length)
    assert.deepEqual(await collect(store.ledger.readReachingTokens(T0 + 2 * HOUR_MS, T0 + 3 * HOUR_MS)), [])
    assert.deepEqual(await collect(store.ledger.readReachingTokens(T0, T0)), [])
    const totals = await store.ledger.tokenTotals(T0 - HOUR_MS, T0 + 2 * HOUR_MS, ['h1', null])
    const sum = totals.reduce((all, { sum }) => all + Number(sum.requests), 0)
    assert.equal(sum, 500 + spans.length - 1 + within.length)
    assert.equal(totals.filter(({ startMs, host }) => startMs === T0 + CELL_MS && host === 'h1').length, 1)
  })

  contract('thousands of events of several minutes, many of one time, are read once each', async (place) => {
    const store = await place.prepared()
    const tokens = Array.from({ length: 2_500 }, (_, i) =>
      token(`r${i}`, CELL_MS + (i < 1_500 ? 7 : i), { interval_s: i % 2 === 0 ? 30 : 600, prompt_tokens: 1_000 }),
    )
    await store.writeDocuments([], tokens)
    const found = await collect(store.ledger.readReachingTokens(T0, T0 + CELL_MS))
    assert.equal(new Set(found.map(({ _id }) => _id)).size, tokens.length)
    assert.equal(found.length, tokens.length)
    const range = { fromMs: T0 - HOUR_MS, toMs: T0 + HOUR_MS, hosts: ['h1'] }
    const totals = await store.ledger.tokenTotals(range.fromMs, range.toMs, range.hosts)
    assert.deepStrictEqual(inOneForm(totals), expectedTotals(tokens, range))
  })

  contract('an event is listed and read as it was written, whatever it sums over', async (place) => {
    const store = await place.prepared()
    const events = [token('long', 0, { interval_s: 1800 }), token('short', 30_000, { interval_s: 5 })]
    await store.writeDocuments([], structuredClone(events))
    assert.deepEqual((await store.listEvents('token', { limit: 5 })).items, events)
    assert.deepEqual(await collect(store.readEvents('token', T0, T0 + CELL_MS)), events)
  })

  contract('each kind of event alone, and after the others, is summed alike', async (place) => {
    const store = await place.prepared()
    const kinds: ((event: TokenDocument) => TokenDocument)[] = [
      (event) => event,
      (event) => ({ ...event, cached_prompt_tokens: 7 }),
      (event) => ({ ...without(event, 'gpu_index'), gpus: [3] }),
      (event) => ({ ...without(event, 'gpu_index'), gpus: [1, 0, 2] }),
      (event) => ({ ...event, gpu_index: 5, gpus: [6, 5] }),
      (event) => ({ ...event, requests: 3 }),
      (event) => ({ ...event, requests: 0, prompt_tokens: 0, completion_tokens: 0 }),
      (event) => ({ ...without(event, 'tenant'), host: null }),
      (event) => ({ ...event, prompt_tokens: 0, completion_tokens: 0 }),
      (event) => ({ ...event, prompt_tokens: -0 }),
      (event) => ({ ...event, requests: 10, gpus: [0, 1, 2], cached_prompt_tokens: 100 }),
      (event) => ({ ...event, interval_s: 90, requests: 7, cached_prompt_tokens: 3 }),
      (event) => ({ ...event, interval_s: 0.001, gpus: [1, 0, 2] }),
      (event) => ({ ...event, interval_s: 3600, prompt_tokens: 0, completion_tokens: 0 }),
      // What an older pertoken took: an instant, as it was.
      (event) => ({ ...event, interval_s: 3601 }),
    ]
    const tokens = kinds.flatMap((change, minute) =>
      [0, 1].map((n) => change(token(`k${minute}-${n}`, minute * CELL_MS + n))),
    )
    await store.writeDocuments([], tokens)
    const minutes = [...kinds.keys()]
    for (const minute of [...minutes, ...minutes.toReversed()]) {
      const range = { fromMs: T0 + minute * CELL_MS, toMs: T0 + (minute + 1) * CELL_MS, hosts: ['h1', null] }
      const totals = await store.ledger.tokenTotals(range.fromMs, range.toMs, range.hosts)
      assert.deepStrictEqual(inOneForm(totals), expectedTotals(tokens, range), String(kinds[minute]))
    }
  })

  contract('sums beyond 2⁵³ are exact', async (place) => {
    const store = await place.prepared()
    const big = { prompt_tokens: 2 ** 52 + 1, completion_tokens: 2 ** 52 - 1, cached_prompt_tokens: 3 }
    const several = { gpus: [0, 1, 2, 3, 4, 5, 6] }
    const tokens = [0, 1, 2, 3, 4].flatMap((n) => [
      token(`one-${n}`, n, big),
      token(`many-${n}`, n, { ...big, ...several }),
      token(`usual-${n}`, n, { prompt_tokens: 1e9, completion_tokens: 1e9, tenant: 'usual' }),
    ])
    await store.writeDocuments([], tokens)
    const range = { fromMs: T0, toMs: T0 + CELL_MS, hosts: ['h1'] }
    const expected = expectedTotals(tokens, range)
    assert.ok(expected.some(({ sum }) => sum.completion_tokens === 5n * (2n ** 52n - 1n)))
    assert.deepStrictEqual(inOneForm(await store.ledger.tokenTotals(T0, T0 + CELL_MS, ['h1'])), expected)
  })

  contract('token totals leave out what pertoken did not write', async (place) => {
    if (place.fixture.insertForeign === undefined) return
    const store = await place.prepared()
    const foreign = [1, 2].map((n) => ({ ...token('x', n), _id: `old-${n}`, ts: new Date(T0 + n) }))
    await place.fixture.insertForeign('token', foreign)
    await store.writeDocuments([], [token('ours', 3)])
    const range = { fromMs: T0, toMs: T0 + CELL_MS, hosts: ['h1'] }
    const totals = await store.ledger.tokenTotals(T0, T0 + CELL_MS, ['h1'])
    assert.deepStrictEqual(inOneForm(totals), expectedTotals([token('ours', 3)], range))
  })
}

function bookTests(contract: Contract): void {
  const book = (version: number, fields: Partial<PriceBookVersion> = {}): PriceBookVersion => ({
    version,
    fromMs: T0 + version * CELL_MS,
    atMs: T0 + version,
    origin: 'test',
    book: { default: 0.85, weights: { 'gpt-4.1': { input: 1 }, $odd: null, '': [] }, rules: [], note: 'ü"' },
    ...fields,
  })
  const revision = (number: number, fields: Partial<Revision> = {}): Revision => ({
    revision: number,
    fromMs: T0,
    toMs: T0 + HOUR_MS,
    bookVersion: 2,
    atMs: T0 + number,
    summary: { before: { 'a.b': '9007199254740993' }, skipped: [] },
    ...fields,
  })

  contract('versions of the price book come back equal, by number, and a number is given once', async (place) => {
    const { ledger } = await place.prepared()
    assert.deepEqual(await ledger.readBooks(), [])
    const books = [book(1, { fromMs: null }), book(2), book(10)]
    for (const one of [books[2]!, books[0]!, books[1]!]) assert.equal(await ledger.insertBook(one), true)
    assert.equal(await ledger.insertBook(book(2, { origin: 'another' })), false)
    assert.deepStrictEqual(await ledger.readBooks(), books)
    assert.deepEqual(await ledger.readRevisions(), [])
  })

  contract('of two processors that insert the same version one is told that it is taken', async (place) => {
    const [one, two] = [await place.prepared(), await place.prepared()]
    for (let version = 1; version <= 10; version++) {
      const won = await Promise.all([
        one.ledger.insertBook(book(version, { origin: 'one' })),
        two.ledger.insertBook(book(version, { origin: 'two' })),
      ])
      const stored = (await one.ledger.readBooks()).at(-1)!
      assert.deepEqual(won, stored.origin === 'one' ? [true, false] : [false, true])
      assert.equal(stored.version, version)
    }
  })

  contract('revisions come back equal, by number, and their summary can be set later', async (place) => {
    const { ledger } = await place.prepared()
    assert.equal(await ledger.insertBook(book(1)), true)
    assert.equal(await ledger.insertRevision(revision(2, { summary: null })), true)
    assert.equal(await ledger.insertRevision(revision(1)), true)
    assert.equal(await ledger.insertRevision(revision(1, { bookVersion: 7 })), false)
    const summary = { after: [{ model: 'm.1', $usd: 0.5 }], done: true }
    await ledger.updateRevisionSummary(2, summary)
    await ledger.updateRevisionSummary(99, summary)
    assert.deepStrictEqual(await ledger.readRevisions(), [revision(1), revision(2, { summary })])
    assert.equal((await ledger.readBooks()).length, 1)
  })
}

function dayTests(contract: Contract): void {
  contract('a day moves from closing to frozen to purged, one step at a time and each once', async (place) => {
    const { ledger } = await place.prepared()
    const day = (state: DayState['state'], sinceMs: number, startMs = T0 - 12 * HOUR_MS) => ({
      startMs,
      state,
      sinceMs,
    })
    assert.deepEqual(await ledger.readDayStates(), [])
    let stored: DayState | undefined
    for (const [state, moves] of [
      ['frozen', false],
      ['purged', false],
      ['closing', true],
      ['closing', false],
      ['purged', false],
      ['frozen', true],
      ['closing', false],
      ['frozen', false],
      ['purged', true],
      ['closing', false],
      ['frozen', false],
      ['purged', false],
    ] as const) {
      const sinceMs = (stored?.sinceMs ?? T0) + 1
      assert.equal(await ledger.advanceDay(day(state, sinceMs)), moves, `${stored?.state} to ${state}`)
      if (moves) stored = day(state, sinceMs)
      assert.deepEqual(await ledger.readDayStates(), stored === undefined ? [] : [stored])
    }
    const before = day('closing', T0, T0 - 36 * HOUR_MS)
    assert.equal(await ledger.advanceDay(before), true)
    assert.deepEqual(await ledger.readDayStates(), [before, stored])
  })

  contract('of two processors that advance a day one does it', async (place) => {
    const stores = [await place.prepared(), await place.prepared()]
    for (const state of ['closing', 'frozen', 'purged'] as const) {
      const moved = await Promise.all(
        stores.map(({ ledger }, i) => ledger.advanceDay({ startMs: T0 - 12 * HOUR_MS, state, sinceMs: T0 + i })),
      )
      const [stored] = await stores[0]!.ledger.readDayStates()
      assert.deepEqual(moved, stored!.sinceMs === T0 ? [true, false] : [false, true])
      assert.equal(stored!.state, state)
    }
  })
}

function purgeTests(contract: Contract): void {
  contract('a purge deletes events and cells of its range and leaves the neighbours', async (place) => {
    const store = await place.prepared()
    const { ledger } = store
    const range = [T0, T0 + DAY_MS] as const
    const times = [-1, 0, 1, DAY_MS - 1, DAY_MS]
    await store.writeDocuments(
      times.map((ms) => sample(`s${ms}`, ms)),
      times.map((ms) => token(`t${ms}`, ms)),
    )
    const starts = [T0 - CELL_MS, T0, T0 + DAY_MS - CELL_MS, T0 + DAY_MS]
    await ledger.replaceBuckets(starts.flatMap((startMs) => [bucket({ startMs }), bucket({ startMs, host: null })]))
    await ledger.replaceBuckets([bucket({ level: 'hour' }), bucket({ level: 'day' })])
    await ledger.insertMarks('minute', [{ startMs: T0, hosts: ['h1'] }], T0)
    const foreign = [1, 2].map((n) => ({ _id: `old-${n}`, ts: new Date(T0 + n), gpu_index: 0 }))
    await place.fixture.insertForeign?.('gpu', structuredClone(foreign))
    await place.fixture.insertForeign?.('token', structuredClone(foreign))

    assert.deepEqual(await ledger.purge(...range), { events: 6, cells: 4 })
    assert.deepEqual(await ledger.purge(...range), { events: 0, cells: 0 })

    const left = [-1, DAY_MS]
    assert.deepEqual(
      await idsOf(store.readEvents('gpu', 0, 8e15)),
      left.map((ms) => ownId(`s${ms}`)),
    )
    assert.deepEqual(
      await idsOf(store.readEvents('token', 0, 8e15)),
      left.map((ms) => ownId(`t${ms}`)),
    )
    const cells = await collect(ledger.readBuckets('minute', 0, 8e15))
    assert.deepEqual(
      cells.map(({ startMs }) => startMs),
      [T0 - CELL_MS, T0 - CELL_MS, T0 + DAY_MS, T0 + DAY_MS],
    )
    assert.equal((await collect(ledger.readBuckets('hour', 0, 8e15))).length, 1)
    assert.equal((await collect(ledger.readBuckets('day', 0, 8e15))).length, 1)
    assert.equal((await ledger.readMarks('minute', T0)).length, 1)
    const counts = await store.count()
    const foreignCount = place.fixture.insertForeign === undefined ? 0 : foreign.length
    assert.deepEqual([counts.gpuMetrics, counts.tokenUsage], [2, 2])
    assert.equal(counts.foreign, 2 * foreignCount)
  })

  contract('the newest sample of a slot is one that is left', async (place) => {
    const store = await place.prepared()
    const h2 = { host: 'h2' }
    const noHost = { host: null }
    await store.writeDocuments(
      [
        ...[-2, -1, 5].map((ms) => sample(`h1 ${ms}`, ms)),
        ...[3, 4].map((ms) => sample(`h2 ${ms}`, ms, h2)),
        ...[-7, 5].map((ms) => sample(`null ${ms}`, ms, noHost)),
      ],
      [],
    )
    assert.deepEqual(await store.ledger.purge(T0, T0 + DAY_MS), { events: 4, cells: 0 })
    assert.equal((await store.latestSample({ host: 'h1' }))?._id, ownId('h1 -1'))
    assert.equal((await store.latestSample({ host: null }))?._id, ownId('null -7'))
    assert.equal(await store.latestSample({ host: 'h2' }), null)
    await store.writeDocuments([sample('h2 again', 1, h2)], [])
    assert.equal((await store.latestSample({ host: 'h2' }))?._id, ownId('h2 again'))
  })

  contract('a purge of thousands of events, many of one time, deletes them all', async (place) => {
    const store = await place.prepared()
    const tokens = Array.from({ length: 12_000 }, (_, i) => token(`t${i}`, i < 6_000 ? 7 : i))
    await store.writeDocuments([sample('s', 7)], tokens)
    await store.writeDocuments([], [token('before', -1), token('behind', HOUR_MS)])
    assert.deepEqual(await store.ledger.purge(T0, T0 + HOUR_MS), { events: 12_001, cells: 0 })
    assert.equal((await store.count()).tokenUsage, 2)
  })
}

/** Buckets by host, rows as they are stored: what is compared is every field, and the message is short. */
function byHost(buckets: LedgerBucket[]): Record<string, unknown> {
  const entries = buckets.map((one) => [String(one.host), { ...one, rows: one.rows, json: one.rows.map(rowToJson) }])
  return Object.fromEntries(entries.sort((a, b) => (a[0]! < b[0]! ? -1 : 1)))
}

async function idsOf(documents: AsyncIterable<{ _id: string }>): Promise<string[]> {
  return (await collect(documents)).map(({ _id }) => _id)
}
