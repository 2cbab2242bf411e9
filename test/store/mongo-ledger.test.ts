// The ledger's half over real MongoDB servers: the contract, then what only a remote server can do wrong (lost
// replies), the form of its documents, and that both stores return the same.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Document, Long, MongoClient } from 'mongodb'
import { CELL_MS, HOUR_MS } from '../../src/domain/ledger/buckets.ts'
import { type EventStore, StoreError } from '../../src/store/event-store.ts'
import type { LedgerStore } from '../../src/store/ledger-store.ts'
import { MongoStore } from '../../src/store/mongo/mongo-store.ts'
import { SqliteStore } from '../../src/store/sqlite/sqlite-store.ts'
import { mongoForTests, uniqueName, withDatabase } from '../servers/servers-for-tests.ts'
import { startProxy } from '../servers/tcp-proxy.ts'
import {
  bucket,
  collect,
  generatedTokens,
  inOneForm,
  markedMinutes,
  OLDER_MARKS,
  OLDER_TOKENS,
  row,
  sample,
  T0,
  TOKEN_HOSTS,
  token,
} from './ledger-samples.ts'
import { type LedgerFixture, ledgerStoreContract } from './ledger-store.contract.ts'

const replicated = await mongoForTests({ mode: 'replica-set', owned: true })
const standalone = await mongoForTests({ mode: 'standalone' })
const options = { skip: replicated.skip || standalone.skip, timeout: 90_000 }
const log = { debug() {}, info() {}, warn() {}, error() {} }

if (!options.skip) {
  ledgerStoreContract('mongodb, replica set', () => makeFixture(replicated.url))
  ledgerStoreContract('mongodb, standalone', () => makeFixture(standalone.url))
}

test(
  'a replacement whose reply is lost is told as a passing fault, and repeated it answers false',
  options,
  async () => {
    const proxy = await startProxy({ targetPort: replicated.server!.port })
    const store = new MongoStore({ url: withDatabase(replicated.server!.urlAt(proxy.port), uniqueName('lost')), log })
    try {
      await store.prepare()
      for (const rev of [0, 1]) {
        const buckets = [bucket({ rev, host: 'a' }), bucket({ rev, host: 'b' })]
        const droppedBefore = proxy.repliesDropped
        // Replies of writes are recognized by their field; those of the monitor pass.
        let toDrop = 1
        proxy.dropReplies((reply) => reply.includes('\x10n\0') && toDrop-- > 0)
        await assert.rejects(
          store.ledger.replaceBuckets(buckets),
          (error) => error instanceof StoreError && error.retriable,
        )
        assert.equal(proxy.repliesDropped, droppedBefore + 1)
        assert.deepEqual(await store.ledger.readRevs('minute', T0, ['a']), new Map([['a', rev + 1]]))
        assert.deepEqual(await store.ledger.replaceBuckets(buckets), [false, false])
      }
    } finally {
      await store.close()
      await proxy.close()
    }
  },
)

test('buckets too large for one command together are written in several', options, async () => {
  const fixture = await makeFixture(replicated.url)
  const store = fixture.open()
  try {
    await store.prepare()
    const rows = Array.from({ length: 5_000 }, (_, i) => row({ gpu_index: i, model: 'm'.repeat(200) }))
    for (const rev of [0, 1]) {
      const buckets = Array.from({ length: 8 }, (_, i) => bucket({ rev, host: `h${i}`, rows }))
      assert.deepEqual(await store.ledger.replaceBuckets(buckets), Array(8).fill(true))
    }
    const stored = await collect(store.ledger.readBuckets('minute', T0, T0 + 1))
    assert.deepEqual(
      stored.map((one) => [one.rev, one.rows.length]),
      Array(8).fill([2, 5_000]),
    )
  } finally {
    await store.close()
    await fixture.dispose()
  }
})

test('documents of the ledger say in their fields what they are', options, async () => {
  const url = withDatabase(standalone.url, uniqueName('fields'))
  const client = new MongoClient(url, { promoteLongs: false })
  const store = new MongoStore({ url, log })
  try {
    await store.prepare()
    await store.ledger.replaceBuckets([bucket({ host: null, rows: [row()] }), bucket({ level: 'day' })])
    await store.ledger.insertBook({ version: 1, fromMs: null, atMs: T0, origin: 'file', book: { default: 1 } })
    const find = (name: string, _id: string) =>
      client
        .db()
        .collection<Document>(name)
        .findOne({ _id: _id as never })
    const { write_id: _, ...cell } = (await find('cost_ledger', 'm:2026-06-01T12:00Z:'))!
    assert.deepEqual(cell, {
      _id: 'm:2026-06-01T12:00Z:',
      level: 'minute',
      start: new Date(T0),
      host: null,
      rev: 1,
      rows: [
        {
          gpu_index: 0,
          gpu_uuid: 'GPU-1',
          gpu_name: 'NVIDIA H100 80GB HBM3',
          model: 'llama-3-8b',
          tenant: 'acme',
          price_kind: 'on-demand',
          requests: Long.fromNumber(3),
          prompt_tokens: Long.fromNumber(1000),
          completion_tokens: Long.fromNumber(200),
          covered_ms: Long.fromNumber(60_000),
          busy_nano_usd: Long.fromNumber(14_166_667),
          energy_mj: Long.fromNumber(18_000_000),
          basis: 'measured',
          method: 'weighted-tokens',
        },
      ],
      book_versions: [1],
      capped: 0,
      computed_at: new Date(T0 + 120_000),
    })
    assert.equal((await find('cost_ledger', 'd:2026-06-01T12:00Z:h:h1'))?.['level'], 'day')
    const version = { kind: 'version', version: 1, from: null, at: new Date(T0), origin: 'file', book: { default: 1 } }
    assert.deepEqual(await find('price_book', 'version:1'), { _id: 'version:1', ...version })
  } finally {
    await store.close()
    await client.db().dropDatabase()
    await client.close()
  }
})

test('reading buckets and marks looks at nothing but what it returns', options, async () => {
  const url = withDatabase(standalone.url, uniqueName('plans'))
  const client = new MongoClient(url)
  const store = new MongoStore({ url, log })
  try {
    await store.prepare()
    const minutes = Array.from({ length: 300 }, (_, i) => T0 + i * CELL_MS)
    await store.ledger.replaceBuckets(
      minutes.flatMap((startMs) => [bucket({ startMs }), bucket({ startMs, host: 'h2' })]),
    )
    await store.ledger.insertMarks(
      'minute',
      minutes.map((startMs) => ({ startMs, hosts: ['h1'] })),
      T0,
    )
    await client.db().command({ profile: 2 })
    await collect(store.ledger.readBuckets('minute', T0, T0 + 10 * CELL_MS, ['h2']))
    await collect(store.ledger.readBuckets('minute', T0, T0 + 10 * CELL_MS))
    await store.ledger.dirtyBuckets('minute', 5)
    const [mark] = await store.ledger.readMarks('minute', T0)
    await store.ledger.deleteMarks([mark!.id])
    await client.db().command({ profile: 0 })
    const profile = await client
      .db()
      .collection('system.profile')
      .find({ ns: /cost_ledger|pt_marks/ })
      .sort({ ts: 1 })
      .toArray()
    const seen = profile.filter(({ docsExamined }) => docsExamined !== undefined)
    assert.deepEqual(
      seen.map(({ docsExamined }) => docsExamined),
      // By host; by range; starts; their marks, both from the index alone; one mark; its deletion.
      [10, 20, 0, 0, 1, 1],
      JSON.stringify(
        seen.map(({ op, docsExamined, keysExamined, planSummary }) => [op, docsExamined, keysExamined, planSummary]),
      ),
    )
  } finally {
    await store.close()
    await client.db().dropDatabase()
    await client.close()
  }
})

test(
  'a database of format 1 gets the reach of its events once, and cells that come out otherwise are marked',
  options,
  async () => {
    const url = withDatabase(standalone.url, uniqueName('format-1'))
    const client = new MongoClient(url)
    const store = new MongoStore({ url, log })
    try {
      await store.prepare()
      await store.writeDocuments([], structuredClone(OLDER_TOKENS))
      const tokens = client.db().collection<Document>('token_usage')
      await tokens.updateMany({}, { $unset: { pt_reach: 1 } })
      await tokens.dropIndex('pt_reach_1_ts_1')
      await tokens.insertOne({ _id: 'old' as never, ts: new Date(T0), interval_s: 600 })
      const format = client.db().collection<Document>('pt_meta')
      await format.updateOne({ _id: 'format' as never }, { $set: { number: 1 } })
      for (const prepared of [1, 2]) {
        assert.deepEqual(await store.prepare(), { warnings: [] })
        const reach = await tokens.find({ pt_reach: { $exists: true } }).toArray()
        assert.deepEqual(reach.map(({ _id, pt_reach }) => [_id as unknown, pt_reach]).sort(), [
          [OLDER_TOKENS[2]!._id, 1],
          [OLDER_TOKENS[3]!._id, 32],
        ])
        assert.deepEqual(await markedMinutes(store.ledger), OLDER_MARKS.toSorted(), String(prepared))
      }
      assert.equal((await format.findOne({ _id: 'format' as never }))!['number'], 2)
      const reaching = await collect(store.ledger.readReachingTokens(T0, T0 + HOUR_MS))
      assert.equal(reaching.length, 2)
    } finally {
      await store.close()
      await client.db().dropDatabase()
      await client.close()
    }
  },
)

test('what reaches into a minute is found without a look at what lies beside it', options, async () => {
  const url = withDatabase(standalone.url, uniqueName('reach'))
  const client = new MongoClient(url)
  const store = new MongoStore({ url, log })
  try {
    await store.prepare()
    const lengths = [undefined, undefined, 5, 10, 90, 600]
    const tokens = Array.from({ length: 6_000 }, (_, i) => {
      const seconds = lengths[i % lengths.length]
      return token(`r${i}`, i * 1_000 + 1, seconds === undefined ? {} : { interval_s: seconds })
    })
    await store.writeDocuments([], tokens)
    await client.db().command({ profile: 2 })
    const found = await collect(store.ledger.readReachingTokens(T0 + HOUR_MS, T0 + HOUR_MS + CELL_MS))
    await client.db().command({ profile: 0 })
    const profile = client.db().collection('system.profile')
    const seen = await profile.find({ ns: /token_usage/, docsExamined: { $exists: true } }).toArray()
    const sum = (field: string) => seen.reduce((all, one) => all + Number(one[field] ?? 0), 0)
    const [docsExamined, keysExamined] = [sum('docsExamined'), sum('keysExamined')]
    assert.ok(found.length > 100 && docsExamined <= 2 * found.length, `${docsExamined} for ${found.length}`)
    assert.ok(keysExamined <= 2 * found.length + 200, `${keysExamined} keys for ${found.length}`)
  } finally {
    await store.close()
    await client.db().dropDatabase()
    await client.close()
  }
})

test('both stores give equal answers', options, async () => {
  const fixture = await makeFixture(replicated.url)
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-both-'))
  const stores = [fixture.open(), new SqliteStore({ path: join(directory, 'store.sqlite') })]
  try {
    const answers = await Promise.all(stores.map(answersOf))
    assert.deepStrictEqual(answers[0], answers[1])
  } finally {
    for (const store of stores) await store.close()
    await fixture.dispose()
    rmSync(directory, { recursive: true })
  }
})

async function answersOf(store: EventStore): Promise<unknown[]> {
  await store.prepare()
  const { ledger } = store
  const hosts = [null, 'null', 'h1', '\u{1f600}', '\uffee']
  const samples = hosts.flatMap((host, i) => [1, 2, 3].map((n) => sample(`${i} ${n}`, (n % 2) * 500, { host })))
  await store.writeDocuments(samples, [...generatedTokens(3_000, HOUR_MS), token('far', 40 * HOUR_MS)])
  const buckets = hosts.flatMap((host) => [0, 1].map((n) => bucket({ host, startMs: T0 + n * CELL_MS, rows: [row()] })))
  const replaced = [await ledger.replaceBuckets(buckets), await ledger.replaceBuckets(buckets)]
  const totals = async (...range: Parameters<LedgerStore['tokenTotals']>) => {
    const groups = await ledger.tokenTotals(...range)
    // Also without their form: the stores give each group once, `gpus` ascending, and small counts as numbers.
    return [inOneForm(groups), groups.map((group) => JSON.stringify([group.startMs, group.host, group])).sort()]
  }
  return [
    replaced,
    await collect(ledger.readLedgerSamples(T0, T0 + HOUR_MS)),
    await totals(T0, T0 + HOUR_MS, TOKEN_HOSTS),
    await totals(T0 + HOUR_MS / 2, T0 + 1.5 * HOUR_MS, ['h1', null]),
    await collect(ledger.readBuckets('minute', 0, T0 * 2)),
    await collect(ledger.readBuckets('minute', T0, T0 + HOUR_MS, hosts.toReversed())),
    await ledger.rawRange(),
    (await collect(ledger.readReachingTokens(T0 + 10 * CELL_MS, T0 + 30 * CELL_MS))).map(({ _id }) => _id).sort(),
    await ledger.purge(T0 + 500, T0 + 2 * CELL_MS),
    await ledger.rawRange(),
  ]
}

async function makeFixture(serverUrl: string): Promise<LedgerFixture> {
  const url = withDatabase(serverUrl, uniqueName('ledger'))
  const client = new MongoClient(url)
  return {
    open: () => new MongoStore({ url, log }),
    insertForeign: async (kind, documents) => {
      await client
        .db()
        .collection(kind === 'gpu' ? 'gpu_metrics' : 'token_usage')
        .insertMany(documents)
    },
    dispose: async () => {
      await client.db().dropDatabase()
      await client.close()
    },
  }
}
