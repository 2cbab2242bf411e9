// The whole way of an event on real servers: producer → topic → processor → document, on each Kafka and MongoDB that is
// promised to work, and with records that another Kafka client published.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, test } from 'node:test'
import { MongoClient } from 'mongodb'
import type { KafkaOptions } from '../servers/kafka/kafka.ts'
import type { MongodOptions } from '../servers/mongod.ts'
import { kafkaDirectory } from '../servers/server-cache.ts'
import { kafkaForTests, mongoForTests, uniqueName, withDatabase } from '../servers/servers-for-tests.ts'
import { pertoken, startService, temporaryDirectory, until } from './harness.ts'

const SEED = new URL('../../examples/gpu_seed.json', import.meta.url).pathname
const COMBINATIONS: [KafkaOptions, MongodOptions][] = [
  [{ version: '3.9', mode: 'zookeeper' }, { mode: 'standalone' }],
  [{ version: '3.9', mode: 'kraft' }, { mode: 'replica-set' }],
  [{ version: '4.1', mode: 'kraft' }, { mode: 'replica-set' }],
]

for (const [kafkaOptions, mongodOptions] of COMBINATIONS) {
  const name = `Kafka ${kafkaOptions.version} ${kafkaOptions.mode} with MongoDB ${mongodOptions.mode}`
  test(`what produce publishes becomes priced documents: ${name}`, async (t) => {
    const kafka = await kafkaForTests({ ...kafkaOptions })
    const mongo = await mongoForTests({ ...mongodOptions })
    if (kafka.skip !== false || mongo.skip !== false) return t.skip(String(kafka.skip || mongo.skip))
    const names = { TOPIC_METRIC: uniqueName('gpu'), TOPIC_TOKEN: uniqueName('token'), TOPIC_DEAD: uniqueName('dead') }
    const database = uniqueName('ca')
    const env = {
      KAFKA_BOOTSTRAP: kafka.bootstrap,
      MONGO_URL: withDatabase(mongo.url, database),
      KAFKA_GROUP: uniqueName('group'),
      ...names,
    }
    const cwd = temporaryDirectory(t)
    const service = await (await startService(t, ['processor', '--host', '127.0.0.1'], env, cwd)).ready()

    const produced = pertoken(['produce', '--batch', '40', '--interval', '0'], {
      ...env,
      GPU_SEED: SEED,
      HOSTNAME: 'gpu-host-1',
    })
    assert.equal(produced.status, 0, produced.stderr)
    const health = await service.settled(80)
    assert.equal(health.outcomes.stored, 80)
    assert.equal(health.outcomes.rejected, 0)

    const client = await new MongoClient(mongo.url).connect()
    after(() => client.close())
    const db = client.db(database)
    assert.equal(await db.collection('gpu_metrics').countDocuments(), 40)
    const tokens = await db.collection('token_usage').find().toArray()
    assert.equal(tokens.length, 40)
    for (const token of tokens) {
      assert.ok(token['ts'] instanceof Date)
      assert.equal(token['host'], 'gpu-host-1')
      assert.equal(token['window_s'], 30)
      assert.ok(token['cost_per_token'] > 0 && token['tokens_per_second'] > 0 && token['price_per_hour_usd'] > 0)
    }
    const indexes = async (collection: string) =>
      (await db.collection(collection).indexes()).map(({ key }) => JSON.stringify(key))
    for (const key of ['{"ts":1}', '{"host":1,"gpu_index":1}'])
      assert.ok((await indexes('gpu_metrics')).includes(key), key)
    for (const key of ['{"ts":1}', '{"model":1}']) assert.ok((await indexes('token_usage')).includes(key), key)

    const info = await service.json<{ host: string; gpu_index: number }>('/gpu/info')
    assert.equal(info.host, 'gpu-host-1')
    const described = pertoken(['topics', 'describe', '--json'], env)
    const committed = (
      JSON.parse(described.stdout) as {
        name: string
        partitions: { committedOffset: number | null; endOffset: number }[]
      }[]
    )
      .filter((topic) => topic.name !== names.TOPIC_DEAD)
      .flatMap((topic) => topic.partitions)
    assert.equal(committed.length, 24)
    assert.equal(
      committed.reduce((sum, one) => sum + one.endOffset, 0),
      80,
    )
    await until('the group has committed all', async () => {
      const again = JSON.parse(pertoken(['topics', 'describe', '--json'], env).stdout) as {
        name: string
        partitions: { committedOffset: number | null }[]
      }[]
      const sum = again.filter((topic) => topic.name !== names.TOPIC_DEAD).flatMap((topic) => topic.partitions)
      return sum.reduce((total, one) => total + (one.committedOffset ?? 0), 0) === 80
    })
    assert.deepEqual(
      await import('node:fs').then(({ readdirSync }) => readdirSync(cwd)),
      [],
      'with Kafka and MongoDB no file is written',
    )
    assert.equal(await service.stop(), 0, service.output)
  })
}

test('records of another Kafka client, as the present producers send them, are documents within a second', async (t) => {
  const kafka = await kafkaForTests()
  const mongo = await mongoForTests()
  if (kafka.skip !== false || mongo.skip !== false) return t.skip(String(kafka.skip || mongo.skip))
  const names = { TOPIC_METRIC: uniqueName('gpu'), TOPIC_TOKEN: uniqueName('token'), TOPIC_DEAD: uniqueName('dead') }
  const database = uniqueName('ca')
  const env = {
    KAFKA_BOOTSTRAP: kafka.bootstrap,
    MONGO_URL: withDatabase(mongo.url, database),
    KAFKA_GROUP: uniqueName('group'),
    ...names,
  }
  const service = await (await startService(t, ['processor', '--host', '127.0.0.1'], env)).ready()
  const client = await new MongoClient(mongo.url).connect()
  after(() => client.close())
  const db = client.db(database)

  const jars = kafkaDirectory('3.9')
  const source = new URL('./OutsideProducer.java', import.meta.url).pathname
  const java = spawn('java', ['-cp', `${jars}/*`, source, kafka.bootstrap], { stdio: ['pipe', 'pipe', 'inherit'] })
  t.after(() => {
    java.kill('SIGKILL')
  })
  const publish = async (topic: string, event: object): Promise<number> => {
    java.stdin.write(`${topic}\t${JSON.stringify(event)}\n`)
    const [line] = (await once(java.stdout, 'data')) as [Buffer]
    return Number(String(line).trim())
  }
  const ts = () => `${new Date().toISOString().slice(0, 19)}Z`
  // The first record warms the client up; its fields are those of the shell producer.
  await publish(names.TOPIC_METRIC, {
    ts: ts(),
    gpu_index: 0,
    utilization: 0.4,
    mem_used_mb: 8000,
    mem_total_mb: 24_000,
    power_w: 60.5,
  })
  await service.settled(1)
  const token = { ts: ts(), model: 'llama', prompt_tokens: 120, completion_tokens: 30, latency_ms: 812.4, gpu_index: 0 }
  const publishedMs = await publish(names.TOPIC_TOKEN, token)
  const document = await until(
    'the document is there',
    async () => (await db.collection('token_usage').findOne({ model: 'llama' })) ?? undefined,
  )
  assert.ok(Date.now() - publishedMs < 1000, `it took ${Date.now() - publishedMs} ms`)
  assert.equal(document['host'], null)
  assert.equal(document['prompt_tokens'], 120)
  assert.equal(document['cost_per_token'], (0.85 * 30) / 3600 / 150)
  const sample = await db.collection('gpu_metrics').findOne({})
  assert.deepEqual([sample?.['host'], sample?.['utilization'], sample?.['power_w']], [null, 0.4, 60.5])
  java.stdin.end()
  assert.equal(await service.stop(), 0)
})
