// What the processor depends on goes away and comes back: it waits, says so, goes on by itself. What does not fit any
// more (a topic made anew) it says loudly and leaves to a person, and then loses nothing of it.

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MongoClient } from 'mongodb'
import { KafkaLog } from '../../src/log/kafka/kafka-log.ts'
import { goodToken } from '../bad-records.ts'
import { createTopic, deleteTopic } from '../servers/kafka/kafka-admin.ts'
import { kafkaForTests, mongoForTests, uniqueName, withDatabase } from '../servers/servers-for-tests.ts'
import { pertoken, startService, until } from './harness.ts'

const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
const kafka = await kafkaForTests({ owned: true })
const mongo = await mongoForTests({ owned: true, mode: 'replica-set' })
const skip = kafka.skip || mongo.skip
const client = mongo.skip === false ? await new MongoClient(mongo.url).connect() : null
after(() => client?.close())

function setUp() {
  const names = {
    TOPIC_METRIC: uniqueName('gpu'),
    TOPIC_TOKEN: uniqueName('token'),
    TOPIC_DEAD: uniqueName('dead'),
    KAFKA_GROUP: uniqueName('g'),
  }
  const database = uniqueName('out')
  const env = { ...names, KAFKA_BOOTSTRAP: kafka.bootstrap, MONGO_URL: withDatabase(mongo.url, database) }
  let n = 0
  const send = async (log: KafkaLog, count: number) => {
    const records = Array.from({ length: count }, () => ({
      key: `h${n % 5}`,
      value: Buffer.from(JSON.stringify(goodToken(Date.now(), { host: `h${n % 5}`, n: n++ }))),
    }))
    await log.append(names.TOPIC_TOKEN, records)
  }
  const numbers = async () =>
    (await client!.db(database).collection('token_usage').find().toArray())
      .map((one) => one['n'] as number)
      .sort((a, b) => a - b)
  return { names, env, send, numbers, sent: () => n }
}

test('a broker and a database that are away at the start and later: it waits, says which, and goes on by itself', {
  skip,
}, async (t) => {
  const { env, send, numbers, sent } = setUp()
  await kafka.server!.stop()
  await mongo.server!.stop()
  const service = await startService(t, ['processor', '--host', '127.0.0.1'], env)
  const told = (word: RegExp) =>
    until(`health names ${word}`, async () => {
      const { status, problems } = await service.health()
      return status === 'error' && problems.some(({ message }) => word.test(message))
    })
  await told(/store|mongo/i)
  await mongo.server!.start()
  await told(/kafka|log|broker|topics/i)
  await kafka.server!.start()
  await service.ready()
  const log = new KafkaLog({ bootstrap: kafka.bootstrap, log: quiet })
  t.after(() => log.close())
  await send(log, 500)
  await service.settled(500)

  await kafka.server!.kill()
  await told(/kafka|log|broker/i)
  // Longer than the client's own retries (three, a quarter of a second apart).
  const downSinceMs = performance.now()
  await until('the broker has been away for three seconds', async () => performance.now() - downSinceMs > 3000)
  assert.equal((await service.get('/health')).status, 503)
  assert.equal((await service.get('/livez')).status, 200)
  await kafka.server!.start()
  await service.ready()
  await until('the log takes records again', async () => send(log, 1).then(() => true))
  await service.settled(sent())

  await mongo.server!.kill()
  await send(log, 500)
  await told(/store|mongo/i)
  await mongo.server!.start()
  await service.ready()
  await service.settled(sent())
  assert.deepEqual(
    await numbers(),
    Array.from({ length: sent() }, (_, i) => i),
  )
  assert.equal(await service.stop(), 0, service.output)
})

test('SIGTERM while the store is away ends with exit code 1 within 12 s, and nothing is lost', { skip }, async (t) => {
  const { env, send, numbers, sent } = setUp()
  const log = new KafkaLog({ bootstrap: kafka.bootstrap, log: quiet })
  t.after(() => log.close())
  const service = await (await startService(t, ['processor', '--host', '127.0.0.1'], env)).ready()
  await send(log, 100)
  await service.settled(100)
  await mongo.server!.stop()
  await send(log, 100)
  await until('it has read what it cannot store', async () => (await service.health()).outcomes.read >= 200)
  const startedMs = performance.now()
  assert.equal(await service.stop(), 1)
  assert.ok(performance.now() - startedMs < 12_000, `it took ${performance.now() - startedMs} ms`)
  await mongo.server!.start()
  const again = await (await startService(t, ['processor', '--host', '127.0.0.1'], env)).ready()
  await again.settled(100)
  assert.deepEqual(
    await numbers(),
    Array.from({ length: sent() }, (_, i) => i),
  )
  assert.equal(await again.stop(), 0)
})

test('a topic deleted and made anew is said loudly; after seek nothing of the new one is lost', { skip }, async (t) => {
  const { names, env, send, numbers, sent } = setUp()
  const log = new KafkaLog({ bootstrap: kafka.bootstrap, log: quiet })
  t.after(() => log.close())
  const service = await (await startService(t, ['processor', '--host', '127.0.0.1'], env)).ready()
  await send(log, 300)
  await service.settled(300)
  await deleteTopic(kafka.bootstrap, names.TOPIC_TOKEN)
  await until('the topic is gone', async () => (await log.describe([names.TOPIC_TOKEN])).length === 0)
  await createTopic(kafka.bootstrap, names.TOPIC_TOKEN, { partitions: 12 })
  await until('the log takes records again', async () => send(log, 1).then(() => true))
  await send(log, 399)
  const loud = await until('health says that the topic is another one', async () => {
    const health = await service.health()
    return health.problems.some(({ message }) => /made anew/.test(message) && /seek/.test(message)) ? health : undefined
  })
  assert.equal(loud.status, 'error')
  const refused = pertoken(['topics', 'seek', '--to', 'earliest'], env)
  assert.equal(refused.status, 1, 'the group still has a member')
  assert.match(refused.stderr, /member/)
  assert.equal(await service.stop(), 0, service.output)
  const sought = await until('the group has no member', async () => {
    const result = pertoken(['topics', 'seek', '--to', 'earliest'], env)
    return result.status === 0 ? result : undefined
  })
  assert.match(sought.stderr, /is at 0/)
  const again = await (await startService(t, ['processor', '--host', '127.0.0.1'], env)).ready()
  await again.settled(sent() - 300)
  assert.deepEqual(
    await numbers(),
    Array.from({ length: sent() }, (_, i) => i),
  )
  assert.equal(await again.stop(), 0)
})
