// One bad record in a hundred, of every known kind, on real servers and on the embedded default: all good ones are
// stored, all bad ones are in the dead-letter topic with their bytes and in the API with reason and position, and the
// offsets read, by the log's own count, are the sum of the outcomes.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import type { EventLog, NewRecord } from '../../src/log/event-log.ts'
import { KafkaLog } from '../../src/log/kafka/kafka-log.ts'
import { SqliteLog } from '../../src/log/sqlite/sqlite-log.ts'
import { type BadRecord, badRecords, goodSample, goodToken } from '../bad-records.ts'
import { kafkaForTests, mongoForTests, uniqueName, withDatabase } from '../servers/servers-for-tests.ts'
import { type Env, startService, temporaryDirectory } from './harness.ts'

const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
const GOOD_PER_BAD = 99

interface Letter {
  _id: string
  reason: string
  topic: string
  partition: number
  offset: number
  value_length: number
}

async function sendAndCheck(
  t: Parameters<typeof startService>[0],
  env: Env,
  log: EventLog,
  words: string[],
  cwd: string,
): Promise<void> {
  const names = { gpu: env['TOPIC_METRIC']!, token: env['TOPIC_TOKEN']! }
  await log.ensureTopics([...Object.values(names), env['TOPIC_DEAD']!].map((name) => ({ name, partitions: 4 })))
  const nowMs = Date.now()
  const bad = badRecords(nowMs)
  let good = 0
  for (const one of bad) {
    const batch: NewRecord[] = Array.from({ length: GOOD_PER_BAD }, (_, i) => {
      const event =
        one.topic === 'gpu' ? goodSample(nowMs + i, { host: `h${i % 5}` }) : goodToken(nowMs + i, { host: `h${i % 5}` })
      return { key: `h${i % 5}`, value: Buffer.from(JSON.stringify(event)) }
    })
    const at = good % GOOD_PER_BAD
    batch.splice(at, 0, { key: 'h1', value: one.value, ...(one.headers === undefined ? {} : { headers: one.headers }) })
    await log.append(names[one.topic], batch)
    good += GOOD_PER_BAD
  }
  const service = await (await startService(t, words, env, cwd)).ready()
  const health = await service.settled(good + bad.length, 120)
  const described = await log.describe(Object.values(names))
  const offsets = described
    .flatMap(({ partitions }) => partitions)
    .reduce((sum, { endOffset, earliestOffset }) => sum + endOffset - earliestOffset, 0)
  assert.equal(offsets, good + bad.length)
  assert.deepEqual([health.outcomes.stored, health.outcomes.duplicate, health.outcomes.rejected], [good, 0, bad.length])

  const byReason = (reasons: string[]) =>
    Object.entries(Object.groupBy(reasons, (reason) => reason))
      .map(([reason, list]) => [reason, list!.length])
      .sort()
  const letters: Letter[] = []
  let cursor: string | null = null
  do {
    const page: { items: Letter[]; cursor: string | null } = await service.json(
      `/api/v1/dead-letters?limit=100${cursor === null ? '' : `&cursor=${cursor}`}`,
    )
    letters.push(...page.items)
    cursor = page.cursor
  } while (cursor !== null)
  assert.deepEqual(byReason(letters.map(({ reason }) => reason)), byReason(bad.map(({ reason }) => reason)))
  assert.equal(
    new Set(letters.map(({ topic, partition, offset }) => `${topic}/${partition}/${offset}`)).size,
    bad.length,
  )
  assert.equal(await service.stop(), 0, service.output)
  await checkTopic(log, env['TOPIC_DEAD']!, bad)
}

/** Reads the dead-letter topic and compares bytes and headers. */
async function checkTopic(log: EventLog, topic: string, bad: BadRecord[]): Promise<void> {
  const stop = new AbortController()
  const reader = log.subscribe({
    group: uniqueName('reader'),
    topics: [topic],
    signal: stop.signal,
    onAssigned: async (partitions) => partitions.map(({ earliestOffset }) => ({ offset: earliestOffset })),
  })
  const found: string[] = []
  const deadlineMs = performance.now() + 60_000
  while (found.length < bad.length && performance.now() < deadlineMs) {
    for (const { records } of await reader.next()) {
      for (const { value, headers } of records) {
        for (const name of ['message', 'topic', 'partition', 'offset', 'time']) assert.ok(headers?.has(name), name)
        found.push(`${headers!.get('reason')} ${fingerprint(value)}`)
      }
    }
  }
  stop.abort()
  await reader.close()
  assert.deepEqual(
    found.sort(),
    bad.map(({ reason, value }) => `${reason} ${fingerprint(value)}`).sort(),
    'original bytes, with the reason',
  )
}

function fingerprint(value: Buffer | null): string {
  return value === null
    ? 'null'
    : `${value.length} ${value.subarray(0, 60).toString('base64')} ${value.subarray(-60).toString('base64')}`
}

test('every kind of bad record among good ones: embedded', async (t) => {
  const directory = temporaryDirectory(t)
  const env = { DATA_DIR: directory, TOPIC_METRIC: 'gpu', TOPIC_TOKEN: 'token', TOPIC_DEAD: 'dead' }
  const log = new SqliteLog({ path: join(directory, 'log.sqlite') })
  t.after(() => log.close())
  await sendAndCheck(t, env, log, ['up'], directory)
})

test('every kind of bad record among good ones: Kafka and MongoDB', async (t) => {
  const kafka = await kafkaForTests()
  const mongo = await mongoForTests()
  if (kafka.skip !== false || mongo.skip !== false) return t.skip(String(kafka.skip || mongo.skip))
  const names = {
    TOPIC_METRIC: uniqueName('gpu'),
    TOPIC_TOKEN: uniqueName('token'),
    TOPIC_DEAD: uniqueName('dead'),
    KAFKA_GROUP: uniqueName('g'),
  }
  const env = { ...names, KAFKA_BOOTSTRAP: kafka.bootstrap, MONGO_URL: withDatabase(mongo.url, uniqueName('bad')) }
  const log = new KafkaLog({ bootstrap: kafka.bootstrap, log: quiet })
  t.after(() => log.close())
  await sendAndCheck(t, env, log, ['processor', '--host', '127.0.0.1'], temporaryDirectory(t))
})
