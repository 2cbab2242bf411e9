// kill -9 at every labelled point of a step, and in the middle of a drain; then a new process. No document missing,
// none twice, every bad record in the dead letters once, every touched cell marked — on real servers and on the
// embedded default.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, test } from 'node:test'
import { MongoClient } from 'mongodb'
import type { EventLog, NewRecord } from '../../src/log/event-log.ts'
import { KafkaLog } from '../../src/log/kafka/kafka-log.ts'
import { SqliteLog } from '../../src/log/sqlite/sqlite-log.ts'
import type { Checkpoint } from '../../src/processor/ingest/step-writer.ts'
import { goodSample, goodToken } from '../bad-records.ts'
import { kafkaForTests, mongoForTests, uniqueName, withDatabase } from '../servers/servers-for-tests.ts'
import { type Env, startScript, temporaryDirectory } from './harness.ts'

const SCRIPT = new URL('./crashing-processor.ts', import.meta.url).pathname
const POINTS: { label: Checkpoint; drain?: boolean; nth?: number }[] = [
  { label: 'read' },
  { label: 'documents' },
  { label: 'documents', nth: 2 },
  { label: 'dead-letters' },
  { label: 'marks' },
  { label: 'positions' },
  { label: 'committed' },
  { label: 'documents', drain: true },
  { label: 'marks', drain: true },
]
const EVENTS = 6000
const T0 = Date.UTC(2026, 10, 22, 12)
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

/** What a store holds in the end, read with the bare driver. */
interface Held {
  numbers: number[]
  deadLetters: number
  /** `minute/host` of every mark. */
  cells: Set<string>
}

/** Fills the log; answers the numbers of the good events, the count of the bad ones, and the cells they touch. */
async function fill(log: EventLog, names: Env): Promise<{ good: number[]; bad: number; cells: Set<string> }> {
  await log.ensureTopics(
    [names['TOPIC_METRIC']!, names['TOPIC_TOKEN']!, names['TOPIC_DEAD']!].map((name) => ({ name, partitions: 3 })),
  )
  const records: Record<'gpu' | 'token', NewRecord[]> = { gpu: [], token: [] }
  const expected = { good: [] as number[], bad: 0, cells: new Set<string>() }
  for (let n = 0; n < EVENTS; n++) {
    const kind = n % 3 === 0 ? 'gpu' : 'token'
    const host = `h${n % 7}`
    const atMs = T0 + n * 100
    const value =
      n % 50 === 7
        ? 'no event'
        : JSON.stringify(kind === 'gpu' ? goodSample(atMs, { host, n }) : goodToken(atMs, { host, n }))
    records[kind].push({ key: host, value: Buffer.from(value) })
    if (value === 'no event') {
      expected.bad++
      continue
    }
    expected.good.push(n)
    const reachMs = kind === 'gpu' ? 90_000 : 0
    for (let minute = Math.floor((atMs - reachMs) / 60_000); minute <= Math.floor((atMs + reachMs) / 60_000); minute++)
      expected.cells.add(`${minute}/${host}`)
  }
  await log.append(names['TOPIC_METRIC']!, records.gpu)
  await log.append(names['TOPIC_TOKEN']!, records.token)
  return expected
}

async function crashAndCheck(
  t: Parameters<typeof startScript>[0],
  env: Env,
  log: EventLog,
  held: () => Promise<Held>,
  point: (typeof POINTS)[number],
): Promise<void> {
  const expected = await fill(log, env)
  await log.close()
  const crashEnv = {
    ...env,
    CRASH_AT: `${point.label}:${point.nth ?? 1}`,
    ...(point.drain === true ? { CRASH_DRAIN: 'true' } : {}),
  }
  const crashed = await startScript(t, [SCRIPT], crashEnv)
  assert.equal(await crashed.ended(), -1, `it was killed: ${crashed.output}`)
  const between = await held()
  assert.ok(between.numbers.length <= expected.good.length)

  const finished = await startScript(t, [SCRIPT], env)
  assert.equal(await finished.ended(), 0, finished.output)
  const result = await held()
  assert.deepEqual(
    result.numbers.toSorted((a, b) => a - b),
    expected.good,
    'every good event once',
  )
  assert.equal(result.deadLetters, expected.bad, 'every bad record once')
  assert.deepEqual(
    [...expected.cells].filter((cell) => !result.cells.has(cell)),
    [],
    'every touched cell is marked',
  )
}

for (const point of POINTS) {
  const title = `${point.label}${point.nth === undefined ? '' : ` of step ${point.nth}`}${point.drain === true ? ' while draining' : ''}`

  test(`kill -9 at ${title}: nothing lost, nothing twice, all marked (embedded)`, async (t) => {
    const directory = temporaryDirectory(t)
    const env = { DATA_DIR: directory, TOPIC_METRIC: 'gpu', TOPIC_TOKEN: 'token', TOPIC_DEAD: 'dead', KAFKA_GROUP: 'g' }
    const held = async (): Promise<Held> => {
      const db = new DatabaseSync(join(directory, 'store.sqlite'), { readOnly: true })
      const all = (sql: string) => db.prepare(sql).all() as Record<string, unknown>[]
      const bodies = [...all('SELECT body FROM gpu_metrics'), ...all('SELECT body FROM token_usage')]
      const result = {
        numbers: bodies.map(({ body }) => (JSON.parse(String(body)) as { n: number }).n),
        deadLetters: all('SELECT _id FROM dead_letters').length,
        cells: new Set(
          all("SELECT start_ms, host FROM marks WHERE level = 'minute'").map(
            ({ start_ms, host }) => `${Number(start_ms) / 60_000}/${host}`,
          ),
        ),
      }
      db.close()
      return result
    }
    await crashAndCheck(t, env, new SqliteLog({ path: join(directory, 'log.sqlite') }), held, point)
  })
}

const kafka = await kafkaForTests()
const mongo = await mongoForTests({ mode: 'replica-set' })
const client = mongo.skip === false ? await new MongoClient(mongo.url).connect() : null
after(() => client?.close())

for (const point of POINTS) {
  const title = `${point.label}${point.nth === undefined ? '' : ` of step ${point.nth}`}${point.drain === true ? ' while draining' : ''}`

  test(`kill -9 at ${title}: nothing lost, nothing twice, all marked (Kafka and MongoDB)`, {
    skip: kafka.skip || mongo.skip,
  }, async (t) => {
    const names = {
      TOPIC_METRIC: uniqueName('gpu'),
      TOPIC_TOKEN: uniqueName('token'),
      TOPIC_DEAD: uniqueName('dead'),
      KAFKA_GROUP: uniqueName('g'),
    }
    const database = uniqueName('crash')
    const env = { ...names, KAFKA_BOOTSTRAP: kafka.bootstrap, MONGO_URL: withDatabase(mongo.url, database) }
    const db = client!.db(database)
    const held = async (): Promise<Held> => {
      const documents = [
        ...(await db.collection('gpu_metrics').find().toArray()),
        ...(await db.collection('token_usage').find().toArray()),
      ]
      const marks = await db.collection('pt_marks').find().toArray()
      return {
        numbers: documents.map(({ n }) => n as number),
        deadLetters: await db.collection('dead_letters').countDocuments(),
        cells: new Set(
          marks.flatMap(({ start_ms, hosts }) =>
            (hosts as string[]).map((host) => `${Number(start_ms) / 60_000}/${host}`),
          ),
        ),
      }
    }
    await crashAndCheck(t, env, new KafkaLog({ bootstrap: kafka.bootstrap, log: quiet }), held, point)
  })
}
