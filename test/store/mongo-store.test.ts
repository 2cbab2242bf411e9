// MongoStore against real servers: the contract on a standalone mongod and on a replica set of one, then what only
// MongoDB can do wrong. Faults are real: SIGKILL, a proxy that cuts, holds or swallows replies. Each of those tests
// asserts that its fault happened.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Document, MongoClient } from 'mongodb'
import type { GpuDocument, TokenDocument } from '../../src/domain/events/event.ts'
import { ownEventId } from '../../src/domain/events/event-id.ts'
import { StoreError } from '../../src/store/event-store.ts'
import { type MongoStoreOptions, withoutCredentials } from '../../src/store/mongo/connection.ts'
import { MongoStore } from '../../src/store/mongo/mongo-store.ts'
import { compareUtf8 } from '../../src/store/mongo/reading/ordered-scan.ts'
import { freePort } from '../servers/managed-server.ts'
import { mongoForTests, uniqueName, withDatabase } from '../servers/servers-for-tests.ts'
import { startProxy } from '../servers/tcp-proxy.ts'
import { eventStoreContract, letter, type StoreFixture } from './event-store.contract.ts'

const T0 = Date.UTC(2026, 5, 1, 12)
/** What a call may take while the server is away. */
const AWAY_LIMIT_MS = 12_000

const shared = await mongoForTests({ mode: 'replica-set' })
const standalone = await mongoForTests({ mode: 'standalone', owned: true })
const owned = await mongoForTests({ mode: 'replica-set', owned: true })
const options = { skip: shared.skip || standalone.skip || owned.skip, timeout: 90_000 }

if (!options.skip) {
  eventStoreContract('mongodb, replica set', () => makeFixture(shared.url))
  eventStoreContract('mongodb, standalone', () => makeFixture(standalone.url))
}

test(
  'the indexes of the contract exist after prepare, on collections clustered by _id where ids are not listed',
  options,
  async () => {
    await inDatabase(shared.url, async (url, client) => {
      const store = openStore(url)
      assert.deepEqual(await store.prepare(), { warnings: [] })
      const keysOf = async (name: string) => (await client.db().collection(name).indexes()).map((index) => index['key'])
      assert.deepEqual(await keysOf('gpu_metrics'), [{ _id: 1 }, { ts: 1 }, { host: 1, gpu_index: 1 }])
      assert.deepEqual(await keysOf('token_usage'), [{ _id: 1 }, { ts: 1 }, { model: 1 }, { pt_reach: 1, ts: 1 }])
      assert.deepEqual(await keysOf('dead_letters'), [{ _id: 1 }, { time: -1, _id: -1 }])
      assert.deepEqual(await keysOf('pt_marks'), [{ _id: 1 }, { level: 1, start_ms: 1, at_ms: 1 }])
      const made = await client.db().listCollections().toArray()
      const expected = 'cost_ledger dead_letters gpu_metrics price_book pt_marks pt_meta pt_positions token_usage'
      assert.deepEqual(made.map(({ name }) => name).sort(), expected.split(' '))
      const plain = made.filter((info) => !(info as Document)['options'].clusteredIndex).map(({ name }) => name)
      assert.deepEqual(plain.sort(), ['cost_ledger', 'pt_marks'])
      await store.close()
    })
  },
)

test('ten processes that prepare one new database at once all succeed', options, async () => {
  await inDatabase(shared.url, async (url) => {
    const stores = Array.from({ length: 10 }, () => openStore(url))
    const prepared = await Promise.all(stores.map((store) => store.prepare()))
    assert.deepEqual(
      prepared.flatMap(({ warnings }) => warnings),
      [],
    )
    await Promise.all(stores.map((store) => store.close()))
  })
})

test('an existing plain collection is used as it is, and its documents stay as they were', options, async () => {
  await inDatabase(shared.url, async (url, client) => {
    const foreign = [
      { _id: 'old-1', ts: new Date(T0), gpu_index: 0, util: 55 },
      { _id: 7, ts: new Date(T0), gpu_index: 1 },
      { _id: 'old-2', ts: '2026-06-01T12:00:00Z', gpu_index: 0 },
    ] as Document[]
    const collection = client.db().collection('gpu_metrics')
    await collection.insertMany(foreign)
    const store = openStore(url)
    assert.deepEqual(await store.prepare(), { warnings: [] })
    assert.equal((await store.writeDocuments([sample('a', 0)], [])).stored, 1)
    // Where ids are not clustered, duplicates are looked up by another way.
    const again = Array.from({ length: 1500 }, (_, i) => ({
      ...sample(i === 0 ? 'a' : `more ${i}`, i),
      host: 'other',
    }))
    assert.deepEqual((await store.writeDocuments(again, [])).existing.samples, [{ host: 'h1', ts: new Date(T0) }])
    assert.equal((await store.writeDocuments(again, [])).existing.samples.length, 1500)
    await collection.deleteMany({ host: 'other' })
    const [info] = await client.db().listCollections({ name: 'gpu_metrics' }).toArray()
    assert.equal((info as Document)['options'].clusteredIndex, undefined)
    assert.deepEqual(
      await collection
        .find({ _id: { $ne: ownId('a') } as never })
        .sort({ $natural: 1 })
        .toArray(),
      foreign,
    )
    // Of one ts and with ids of two types: 7 before 'old-1' before ours, in pages of one too.
    const seen: unknown[] = []
    for (let cursor: string | undefined, last = false; !last; ) {
      const page = await store.listEvents('gpu', { limit: 1, ...(cursor === undefined ? {} : { cursor }) })
      seen.push(...page.items.map((item) => item['_id']))
      last = page.cursor === null
      cursor = page.cursor ?? undefined
    }
    assert.deepEqual(seen, [7, 'old-1', ownId('a')])
    assert.equal((await store.latestSample({}))?._id, ownId('a'))
    assert.equal((await store.count()).foreign, 3)
    await store.close()
  })
})

test('an index that exists with other options or another name is a warning', options, async () => {
  await inDatabase(shared.url, async (url, client) => {
    await client.db().collection('gpu_metrics').createIndex({ ts: 1 }, { expireAfterSeconds: 3600 })
    await client.db().collection('token_usage').createIndex({ ts: 1 }, { name: 'by_time' })
    await client.db().collection('token_usage').createIndex({ model: -1 }, { name: 'model_1' })
    const store = openStore(url)
    const { warnings } = await store.prepare()
    assert.equal(warnings.length, 3, warnings.join('\n'))
    assert.match(warnings[0]!, /^Index \{"ts":1\} of gpu_metrics exists with other options: .*drop it$/)
    assert.match(warnings[1]!, /by_time/)
    assert.match(warnings[2]!, /model/)
    assert.equal((await store.writeDocuments([sample('a', 0)], [])).stored, 1)
    await store.close()
  })
})

test('a collection that cannot keep ids apart is refused for good', options, async () => {
  const unfit: [string, Document][] = [
    ['time series', { timeseries: { timeField: 'ts' } }],
    ['collation', { collation: { locale: 'en', strength: 2 } }],
    ['view', { viewOn: 'other', pipeline: [] }],
  ]
  for (const [name, collectionOptions] of unfit) {
    await inDatabase(shared.url, async (url, client) => {
      await client.db().createCollection('token_usage', collectionOptions)
      const store = openStore(url)
      await assert.rejects(store.prepare(), storeError(false, /Cannot use collection token_usage/), name)
      await store.close()
    })
  }
})

test('what is stored is what JSON held: _id a string, ts a date, numbers as they are', options, async () => {
  await inDatabase(shared.url, async (url, client) => {
    const store = openStore(url)
    await store.prepare()
    const odd = {
      ...sample('a', 0),
      extra: { list: [{ _bsontype: 'ObjectId', id: 'x' }] },
      _bsontype: 5,
      big: 2 ** 40,
      half: 0.5,
    }
    await store.writeDocuments([odd as GpuDocument], [])
    assert.deepEqual(await store.latestSample({}), odd)
    const types = { _id: { $type: '$_id' }, ts: { $type: '$ts' }, big: { $type: '$big' }, gpu: { $type: '$gpu_index' } }
    const [found] = await client
      .db()
      .collection('gpu_metrics')
      .aggregate([{ $project: types }])
      .toArray()
    assert.deepEqual(found, { _id: 'string', ts: 'date', big: 'double', gpu: 'int' })
    await store.close()
  })
})

test('a call with more than 20 MB is split, and a second one finds all of it', options, async () => {
  await inDatabase(shared.url, async (url) => {
    const store = openStore(url)
    await store.prepare()
    const wide = Array.from({ length: 25 }, (_, i) => token(`wide${i}`, i, { note: 'ü'.repeat(500_000) }))
    // Array elements grow most in BSON: 2 bytes of JSON become 12.
    const lists = Array.from({ length: 4 }, (_, i) => token(`list${i}`, i, { list: Array(400_000).fill(1) }))
    const many = Array.from({ length: 25_000 }, (_, i) => token(`many${i}`, i))
    const all = [...wide, ...many, ...lists]
    assert.equal((await store.writeDocuments([], all)).stored, all.length)
    const { stored, duplicate, existing } = await store.writeDocuments([], all)
    assert.deepEqual([stored, duplicate, existing.tokens.length], [0, all.length, all.length])
    const tooLarge = token('too large', 0, { note: 'x'.repeat(17_000_000) })
    await assert.rejects(store.writeDocuments([], [tooLarge]), storeError(false, /Cannot store document/))
    await store.close()
  })
})

test('a document that another unique index refuses is no duplicate', options, async () => {
  await inDatabase(shared.url, async (url, client) => {
    const store = openStore(url)
    await store.prepare()
    await client.db().collection('token_usage').createIndex({ request_id: 1 }, { unique: true, sparse: true })
    await store.writeDocuments([], [token('a', 0, { request_id: 'r' })])
    const again = [token('a', 0, { request_id: 'r' }), token('b', 1, { request_id: 'r' })]
    await assert.rejects(store.writeDocuments([], again), storeError(false, /request_id/))
    await store.close()
  })
})

test('more documents of one instant than are ordered in memory come in order, once', options, async () => {
  await inDatabase(shared.url, async (url) => {
    const store = openStore(url)
    await store.prepare()
    const tokens = Array.from({ length: 12_000 }, (_, i) => token(String((i * 7919) % 12_000), i < 11_000 ? 5 : i))
    await store.writeDocuments([], tokens)
    const ids: string[] = []
    for await (const document of store.readEvents('token', T0, T0 + 60_000)) ids.push(document._id)
    const byPlace = (a: TokenDocument, b: TokenDocument) => a.ts.getTime() - b.ts.getTime() || compareUtf8(a._id, b._id)
    assert.deepEqual(
      ids,
      tokens.toSorted(byPlace).map(({ _id }) => _id),
    )
    await store.close()
  })
})

test('positions that many write at once end at the farthest', options, async () => {
  await inDatabase(shared.url, async (url) => {
    const stores = [openStore(url), openStore(url), openStore(url)]
    await stores[0]!.prepare()
    const at = (partition: number, offset: number) => ({ topic: 't', topicId: 'i', partition, offset })
    const writes = Array.from({ length: 60 }, (_, i) =>
      stores[i % 3]!.advancePositions(
        'g',
        [0, 1, 2, 3].map((partition) => at(partition, (i * 37) % 60)),
      ),
    )
    await Promise.all(writes)
    const stored = await stores[0]!.readPositions('g')
    assert.deepEqual(
      stored.map(({ partition, offset }) => [partition, offset]).sort(),
      [0, 1, 2, 3].map((p) => [p, 59]),
    )
    await Promise.all(stores.map((store) => store.close()))
  })
})

test('values that are no text or number never reach a query', options, async () => {
  await inDatabase(shared.url, async (url) => {
    const store = openStore(url)
    await store.prepare()
    await store.writeDocuments([sample('a', 0)], [])
    const operator = { $ne: 'x' } as unknown as string
    await assert.rejects(store.listEvents('gpu', { limit: 1, host: operator }), storeError(false, /expected text/))
    await assert.rejects(store.latestSample({ host: operator }), storeError(false))
    await assert.rejects(store.readDeadLetter(operator), storeError(false))
    await assert.rejects(store.listDeadLetters({ limit: 1, reason: operator }), storeError(false))
    const forged = Buffer.from(JSON.stringify([T0, { $where: 'sleep(1000)' }])).toString('base64url')
    assert.deepEqual(await store.listEvents('gpu', { limit: 1, cursor: forged }), { items: [], cursor: null })
    await store.close()
  })
})

test('a header name with a NUL does not make a dead letter unstorable', options, async () => {
  await inDatabase(shared.url, async (url) => {
    const store = openStore(url)
    await store.prepare()
    const odd = letter(1, { headers: { 'a\0b': '\0', $x: '1' } })
    await store.writeDeadLetters([odd])
    assert.deepEqual((await store.readDeadLetter(odd._id))?.headers, { 'a\0b': '\0', $x: '1' })
    await store.close()
  })
})

test('a wrong URL is refused without telling its password', options, () => {
  for (const url of ['mongodb://user:s3cr%t@h:99999/', 'mongodb://user:s3cr/et@localhost', 'http://user:s3cret@h/']) {
    assert.throws(
      () => openStore(url),
      (error: unknown) => {
        assert.ok(error instanceof StoreError)
        assert.equal(error.retriable, false)
        assert.doesNotMatch(`${error.message} ${JSON.stringify(error)} ${error.cause}`, /s3cr/)
        return true
      },
    )
  }
  const masked = withoutCredentials('bad p%40ss or p@ss', 'mongodb://me:p%40ss@h/')
  assert.equal(masked, 'bad *** or ***')
})

test('the description names hosts and database, ca0 by default, and no credentials', options, async () => {
  const cases: [string, string][] = [
    ['mongodb://user:s3cret@db1:27017,db2/?replicaSet=r', 'mongodb ca0 at db1:27017,db2:27017'],
    ['mongodb://localhost', 'mongodb ca0 at localhost:27017'],
    ['mongodb://localhost/cost?appName=x', 'mongodb cost at localhost:27017'],
    ['mongodb+srv://u:s3cret@cluster.example.net/', 'mongodb ca0 at cluster.example.net'],
  ]
  for (const [url, description] of cases) {
    const store = openStore(url)
    assert.equal(store.description, description)
    await store.close()
  }
})

test('a store whose server was never there says which host and why, and works once it is there', options, async () => {
  const proxy = await startProxy({ targetPort: owned.server!.port })
  const url = withDatabase(owned.server!.urlAt(proxy.port), uniqueName('later'))
  const store = openStore(url, { serverSelectionTimeoutMs: 700 })
  try {
    proxy.cut()
    const host = new RegExp(`127.0.0.1:${proxy.port} \\(not reachable: `)
    await assert.rejects(store.ping(), storeError(true, host))
    await assert.rejects(store.prepare(), storeError(true, host))
    proxy.resume()
    await eventually(() => store.prepare())
    assert.equal((await store.writeDocuments([sample('a', 0)], [])).stored, 1)
    await store.close()
    await assert.rejects(store.ping(), storeError(false, /closed/))
  } finally {
    await store.close()
    await proxy.close()
  }
})

test('a port that nobody listens on fails within the limit', options, async () => {
  const store = openStore(`mongodb://127.0.0.1:${await freePort()}/x`)
  const startedMs = performance.now()
  await assert.rejects(store.writeDocuments([sample('a', 0)], []), storeError(true, /ECONNREFUSED/))
  assert.ok(performance.now() - startedMs < AWAY_LIMIT_MS)
  await store.close()
})

test('a half-open connection fails the write within the limit, and the same store works again', options, async () => {
  const proxy = await startProxy({ targetPort: owned.server!.port })
  const log = new RecordingLog()
  const store = new MongoStore({ url: withDatabase(owned.server!.urlAt(proxy.port), uniqueName('held')), log })
  try {
    await store.prepare()
    proxy.hold()
    for (const work of [() => store.writeDocuments([sample('a', 0)], []), () => store.latestSample({})]) {
      const startedMs = performance.now()
      await assert.rejects(work(), storeError(true))
      const tookMs = performance.now() - startedMs
      assert.ok(tookMs < AWAY_LIMIT_MS, `${tookMs} ms`)
    }
    proxy.resume()
    await eventually(() => store.writeDocuments([sample('a', 0)], []))
    assert.equal((await store.count()).gpuMetrics, 1)
    assert.deepEqual(
      log.lines.map(({ message }) => message),
      ['MongoDB server is not reachable', 'MongoDB server is back'],
    )
  } finally {
    await store.close()
    await proxy.close()
  }
})

test('writes whose replies are lost and that are repeated store every document once', options, async () => {
  const proxy = await startProxy({ targetPort: owned.server!.port })
  const store = openStore(withDatabase(owned.server!.urlAt(proxy.port), uniqueName('lost')))
  try {
    await store.prepare()
    let failed = 0
    const tokens = Array.from({ length: 2_000 }, (_, i) => token(`t${i}`, i))
    // Replies of inserts are recognized by their field; those of the monitor pass.
    let toDrop = 5
    proxy.dropReplies((reply) => reply.includes('\x10n\0') && toDrop-- > 0)
    let stored = 0
    for (let start = 0; start < tokens.length; start += 200) {
      const result = await eventually(
        () => store.writeDocuments([], tokens.slice(start, start + 200)),
        () => failed++,
      )
      stored += result.stored
    }
    assert.ok(proxy.repliesDropped >= 5 && failed >= 1, `${proxy.repliesDropped} dropped, ${failed} failed`)
    assert.ok(stored < tokens.length, 'no lost reply was that of a write')
    assert.equal((await idsOf(store)).length, tokens.length)
  } finally {
    await store.close()
    await proxy.close()
  }
})

test('mongod killed amid writes and started again: repeated writes give every document once', options, async () => {
  const server = owned.server!
  const store = openStore(withDatabase(server.url, uniqueName('killed')))
  await store.prepare()
  const tokens = Array.from({ length: 60_000 }, (_, i) => token(`t${i}`, i))
  const failures: StoreError[] = []
  let next = 0
  const writer = async () => {
    for (let start = next; start < tokens.length; start = next) {
      next += 500
      await eventually(
        () => store.writeDocuments([], tokens.slice(start, start + 500)),
        (error) => failures.push(error),
      )
    }
  }
  const killer = async () => {
    for (const at of [10_000, 35_000]) {
      while (next < at) await sleep(1)
      await server.kill()
      await server.start()
    }
  }
  await Promise.all([writer(), writer(), writer(), killer()])
  assert.ok(failures.length > 0, 'no write met the kill')
  assert.ok(failures.every((error) => error.retriable))
  const ids = await idsOf(store)
  assert.equal(ids.length, tokens.length)
  assert.equal(new Set(ids).size, tokens.length)
  await store.close()
})

test('ids are compared by their UTF-8 bytes', () => {
  const texts = ['', 'a', 'aa', 'b', 'ä', '～', '😀', '😁', 'a😀', 'a～', '\ud7ff', '\ue000']
  for (const a of texts) {
    for (const b of texts) {
      const bytes = Buffer.compare(Buffer.from(a), Buffer.from(b))
      assert.equal(Math.sign(compareUtf8(a, b)), bytes, `${JSON.stringify(a)} and ${JSON.stringify(b)}`)
    }
  }
})

class RecordingLog {
  readonly lines: { level: string; message: string }[] = []
  debug(_fields: object, _message: string): void {}
  info(_fields: object, message: string): void {
    this.lines.push({ level: 'info', message })
  }
  warn(_fields: object, message: string): void {
    this.lines.push({ level: 'warn', message })
  }
  error(_fields: object, message: string): void {
    this.lines.push({ level: 'error', message })
  }
}

function openStore(url: string, limits: Partial<MongoStoreOptions> = {}): MongoStore {
  return new MongoStore({ url, log: new RecordingLog(), ...limits })
}

async function makeFixture(serverUrl: string): Promise<StoreFixture> {
  const url = withDatabase(serverUrl, uniqueName('contract'))
  const client = new MongoClient(url)
  return {
    open: () => openStore(url),
    writeFormat: async (format) => {
      await client
        .db()
        .collection<Document>('pt_meta')
        .updateOne({ _id: 'format' as never }, { $set: { number: format } })
    },
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

async function inDatabase(serverUrl: string, run: (url: string, client: MongoClient) => Promise<void>): Promise<void> {
  const url = withDatabase(serverUrl, uniqueName('mongo-store'))
  const client = new MongoClient(url)
  try {
    await run(url, client)
  } finally {
    await client.db().dropDatabase()
    await client.close()
  }
}

/** Repeats while the failure is retriable, as the processor does. */
async function eventually<T>(work: () => Promise<T>, onFailure: (error: StoreError) => void = () => {}): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof StoreError && error.retriable) || attempt === 20) throw error
      onFailure(error)
      await sleep(50)
    }
  }
}

async function idsOf(store: MongoStore): Promise<string[]> {
  const ids: string[] = []
  for await (const document of store.readEvents('token', 0, T0 * 2)) ids.push(document._id)
  return ids
}

function storeError(retriable: boolean, message?: RegExp): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof StoreError, `not a StoreError: ${error}`)
    assert.equal(error.retriable, retriable, error.message)
    if (message) assert.match(error.message, message)
    return true
  }
}

function ownId(id: string): string {
  return ownEventId('h1', id)
}

function sample(id: string, afterT0Ms: number): GpuDocument {
  return { _id: ownId(id), ts: new Date(T0 + afterT0Ms), host: 'h1', gpu_index: 0, utilization: 0.5 }
}

function token(id: string, afterT0Ms: number, fields: Record<string, unknown> = {}): TokenDocument {
  return {
    _id: ownId(id),
    ts: new Date(T0 + afterT0Ms),
    host: 'h1',
    model: 'llama-3-8b',
    gpu_index: 0,
    prompt_tokens: 100,
    completion_tokens: 20,
    cost_per_token: 1.23e-7,
    tokens_per_second: 41.25,
    price_per_hour_usd: 0.85,
    window_s: 30,
    ...fields,
  }
}
