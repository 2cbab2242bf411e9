// Several processors in one group under load: one is killed, one joins, one is stopped like a zombie and goes on.
// Partitions move, records are read twice, two members own a partition for a moment: every event is one document all
// the same.

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MongoClient } from 'mongodb'
import { KafkaLog } from '../../src/log/kafka/kafka-log.ts'
import { goodToken } from '../bad-records.ts'
import { kafkaForTests, mongoForTests, uniqueName, withDatabase } from '../servers/servers-for-tests.ts'
import { type Service, startService, until } from './harness.ts'

const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

test('members join, die and come back as zombies under load: every event is one document', async (t) => {
  const kafka = await kafkaForTests()
  const mongo = await mongoForTests({ mode: 'replica-set' })
  if (kafka.skip !== false || mongo.skip !== false) return t.skip(String(kafka.skip || mongo.skip))
  const names = {
    TOPIC_METRIC: uniqueName('gpu'),
    TOPIC_TOKEN: uniqueName('token'),
    TOPIC_DEAD: uniqueName('dead'),
    KAFKA_GROUP: uniqueName('g'),
  }
  const database = uniqueName('members')
  const env = { ...names, KAFKA_BOOTSTRAP: kafka.bootstrap, MONGO_URL: withDatabase(mongo.url, database) }
  const client = await new MongoClient(mongo.url).connect()
  after(() => client.close())
  const collection = client.db(database).collection('token_usage')
  const log = new KafkaLog({ bootstrap: kafka.bootstrap, log: quiet })
  t.after(() => log.close())
  const start = () => startService(t, ['processor', '--host', '127.0.0.1'], env)

  let n = 0
  let sending = true
  const first = await (await start()).ready()
  const producing = (async () => {
    while (sending) {
      const records = Array.from({ length: 50 }, () => ({
        key: `h${n % 24}`,
        value: Buffer.from(JSON.stringify(goodToken(Date.now(), { host: `h${n % 24}`, n: n++ }))),
      }))
      await log.append(names.TOPIC_TOKEN, records)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  })()
  const hasStored = (service: Service) =>
    until('the member stores events', async () => (await service.health()).outcomes.stored > 0)

  const second = await (await start()).ready()
  await hasStored(second)
  await first.stop('SIGKILL')
  const third = await (await start()).ready()
  await hasStored(third)
  second.child.kill('SIGSTOP')
  // What was sent after the stop, to whichever partition, is stored once the stopped member's session has run out.
  const sentLater = n + 500
  await until(
    'the other member has all partitions',
    async () => (await collection.countDocuments({ n: { $lt: sentLater } })) === sentLater,
    90,
  )
  second.child.kill('SIGCONT')
  await until('the zombie is a member again', async () => (await second.health()).status === 'ok')
  sending = false
  await producing
  await until('all events are there', async () => (await collection.countDocuments()) >= n, 90)
  const numbers = (await collection.find({}, { projection: { n: 1 } }).toArray())
    .map((one) => one['n'] as number)
    .sort((a, b) => a - b)
  assert.equal(numbers.length, n)
  assert.deepEqual(
    numbers,
    Array.from({ length: n }, (_, i) => i),
  )
  const seen = [second, third].map(async (service) => (await service.health()).outcomes.duplicate)
  t.diagnostic(`${n} events; read again: ${(await Promise.all(seen)).join(' and ')}`)
  assert.deepEqual(await Promise.all([second.stop(), third.stop()]), [0, 0])
})
