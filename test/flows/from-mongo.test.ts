// Documents of an older deployment, in the very database that pertoken then uses: they are left as they are, doctor
// counts them, and `replay --from-mongo` takes them in, once, however often it is run.

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MongoClient } from 'mongodb'
import { kafkaForTests, mongoForTests, uniqueName, withDatabase } from '../servers/servers-for-tests.ts'
import { pertoken, startService } from './harness.ts'

test('documents of an older deployment are left alone, counted by doctor, and taken in once by replay --from-mongo', async (t) => {
  const kafka = await kafkaForTests()
  const mongo = await mongoForTests()
  if (kafka.skip !== false || mongo.skip !== false) return t.skip(String(kafka.skip || mongo.skip))
  const database = uniqueName('old')
  const client = await new MongoClient(mongo.url).connect()
  after(() => client.close())
  const db = client.db(database)
  const ts = new Date('2026-03-01T12:00:00Z')
  const old = {
    ts,
    model: 'llama',
    prompt_tokens: 10,
    completion_tokens: 5,
    latency_ms: 1.5,
    gpu_index: 0,
    cost_per_token: 0.1,
    host: null,
  }
  await db.collection('token_usage').insertMany([{ ...old }, { ...old }])
  await db
    .collection('gpu_metrics')
    .insertOne({ ts: ts.toISOString(), host: 'h', gpu_index: 0, name: 'L4', utilization: 0.5 })
  const before = await db.collection('token_usage').find().sort({ _id: 1 }).toArray()

  const names = {
    TOPIC_METRIC: uniqueName('gpu'),
    TOPIC_TOKEN: uniqueName('token'),
    TOPIC_DEAD: uniqueName('dead'),
    KAFKA_GROUP: uniqueName('g'),
  }
  const url = withDatabase(mongo.url, database)
  const env = { KAFKA_BOOTSTRAP: kafka.bootstrap, MONGO_URL: url, ...names }
  const service = await (await startService(t, ['processor', '--host', '127.0.0.1'], env)).ready()
  const doctor = pertoken(['doctor'], { ...env, PORT: String(service.port) })
  assert.match(doctor.stdout, /3 documents of an older deployment/)
  for (const round of [1, 2]) {
    const replayed = pertoken(['replay', '--from-mongo', url, '--json'], env)
    assert.equal(replayed.status, 0, replayed.stderr)
    assert.deepEqual(JSON.parse(replayed.stdout), { events: 3, wrong: 0 })
    const { outcomes } = await service.settled(3 * round)
    assert.deepEqual([outcomes.stored, outcomes.duplicate, outcomes.rejected], [3, 3 * (round - 1), 0])
  }
  const ours = await db
    .collection('token_usage')
    .find({ _id: { $type: 'string' } })
    .toArray()
  assert.equal(ours.length, 2)
  assert.equal(ours[0]!['cost_per_token'] > 0 && ours[0]!['cost_per_token'] < 0.01, true, 'priced anew')
  const left = await db
    .collection('token_usage')
    .find({ _id: { $type: 'objectId' } })
    .sort({ _id: 1 })
    .toArray()
  assert.deepEqual(left, before)
  assert.equal(await service.stop(), 0)
})
