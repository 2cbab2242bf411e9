// A real trace, replayed into Kafka + MongoDB and into the embedded default: exact counts and sums, each event with the
// price of an independent slow computation, the same documents on both, and a second replay that changes nothing.

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MongoClient } from 'mongodb'
import { kafkaForTests, mongoForTests, uniqueName, withDatabase } from '../../servers/servers-for-tests.ts'
import { pertoken, startService, temporaryDirectory } from '../harness.ts'
import { slowCostPerToken } from './slow-price.ts'
import { REAL_TRACE, readTraceRows, type TraceRow, traceFile } from './trace-file.ts'

type Document = Record<string, unknown>

function check(documents: Document[], rows: TraceRow[], path: string): void {
  assert.equal(documents.length, rows.length)
  const sum = (field: string) => documents.reduce((total, one) => total + (one[field] as number), 0)
  assert.equal(
    sum('prompt_tokens'),
    rows.reduce((total, row) => total + row.prompt, 0),
  )
  assert.equal(
    sum('completion_tokens'),
    rows.reduce((total, row) => total + row.completion, 0),
  )
  if (path === REAL_TRACE)
    assert.deepEqual([documents.length, sum('prompt_tokens'), sum('completion_tokens')], [8819, 18_059_974, 245_896])
  const slow = slowCostPerToken(
    rows.map(({ atMs, prompt, completion }) => ({ atMs, tokens: prompt + completion })),
    0.85,
  )
  const key = (atMs: number, prompt: number, completion: number) => `${atMs}/${prompt}/${completion}`
  // Equal rows within one second differ in price by what passed between them, so they are compared as sorted lists.
  const expected = new Map<string, (number | null)[]>()
  rows.forEach((row, i) => {
    const at = key(row.atMs, row.prompt, row.completion)
    expected.set(at, [...(expected.get(at) ?? []), slow[i]!])
  })
  const found = new Map<string, (number | null)[]>()
  for (const one of documents) {
    const at = key((one['ts'] as Date).getTime(), one['prompt_tokens'] as number, one['completion_tokens'] as number)
    found.set(at, [...(found.get(at) ?? []), one['cost_per_token'] as number | null])
  }
  for (const [at, costs] of expected) {
    const sorted = (list: (number | null)[]) => list.toSorted((a, b) => (a ?? -1) - (b ?? -1))
    const actual = sorted(found.get(at) ?? [])
    sorted(costs).forEach((cost, i) => {
      const got = actual[i]
      if (cost === null) assert.equal(got, null, at)
      else
        assert.ok(typeof got === 'number' && Math.abs(got - cost) <= cost * 1e-12, `${at}: ${got} instead of ${cost}`)
    })
  }
}

test('a replayed trace is exactly there, priced as the slow computation says, on both default and real servers', async (t) => {
  const kafka = await kafkaForTests()
  const mongo = await mongoForTests({ mode: 'replica-set' })
  if (kafka.skip !== false || mongo.skip !== false) return t.skip(String(kafka.skip || mongo.skip))
  const directory = temporaryDirectory(t)
  const path = traceFile(directory)
  const rows = readTraceRows(path)
  const names = { TOPIC_METRIC: uniqueName('gpu'), TOPIC_TOKEN: uniqueName('token'), TOPIC_DEAD: uniqueName('dead') }
  const database = uniqueName('ca')
  const kafkaEnv = {
    KAFKA_BOOTSTRAP: kafka.bootstrap,
    MONGO_URL: withDatabase(mongo.url, database),
    KAFKA_GROUP: uniqueName('group'),
    ...names,
  }
  const client = await new MongoClient(mongo.url).connect()
  after(() => client.close())
  const collection = client.db(database).collection('token_usage')

  const replay = (env: Record<string, string>) => {
    const result = pertoken(['replay', path, '--speed', 'max', '--json'], env, directory)
    assert.equal(result.status, 0, result.stderr)
    assert.deepEqual(JSON.parse(result.stdout), { events: rows.length, wrong: 0 })
  }
  const service = await (await startService(t, ['processor', '--host', '127.0.0.1'], kafkaEnv)).ready()
  replay(kafkaEnv)
  const health = await service.settled(rows.length)
  assert.equal(health.outcomes.stored, rows.length)
  const first = await collection.find().sort({ _id: 1 }).toArray()
  check(first, rows, path)

  replay(kafkaEnv)
  const again = await service.settled(2 * rows.length)
  assert.deepEqual([again.outcomes.stored, again.outcomes.duplicate], [rows.length, rows.length])
  assert.deepEqual(await collection.find().sort({ _id: 1 }).toArray(), first, 'doing it again changes nothing')
  assert.equal(await service.stop(), 0)

  const embeddedEnv = { DATA_DIR: `${directory}/data` }
  const embedded = await (await startService(t, ['up'], embeddedEnv, directory)).ready()
  replay(embeddedEnv)
  await embedded.settled(rows.length)
  const stored: Document[] = []
  let cursor: string | null = null
  do {
    const page: { items: Document[]; cursor: string | null } = await embedded.json(
      `/api/v1/events?collection=token_usage&limit=1000${cursor === null ? '' : `&cursor=${cursor}`}`,
    )
    stored.push(...page.items)
    cursor = page.cursor
  } while (cursor !== null)
  const plain = (documents: readonly Document[]) =>
    documents
      .map((one) => JSON.parse(JSON.stringify(one)) as Document)
      .sort((a, b) => (String(a['_id']) < String(b['_id']) ? -1 : 1))
  const sortKeys = (documents: Document[]) => documents.map((one) => Object.fromEntries(Object.entries(one).sort()))
  assert.deepEqual(sortKeys(plain(stored)), sortKeys(plain(first)), 'the embedded default gives the same documents')
  assert.equal(await embedded.stop(), 0)
})
