// A refused record never stops its step, on any pair of log and store: record times that are none, headers with odd
// names, more headers or key than a topic takes.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Rejection } from '../../../src/domain/events/rejection.ts'
import { type EventLog, LogError, type NewRecord } from '../../../src/log/event-log.ts'
import { KafkaLog } from '../../../src/log/kafka/kafka-log.ts'
import { SqliteLog } from '../../../src/log/sqlite/sqlite-log.ts'
import { writeDeadLetters } from '../../../src/processor/ingest/dead-letters.ts'
import type { EventStore } from '../../../src/store/event-store.ts'
import { MongoStore } from '../../../src/store/mongo/mongo-store.ts'
import { SqliteStore } from '../../../src/store/sqlite/sqlite-store.ts'
import { kafkaForTests, mongoForTests, uniqueName, withDatabase } from '../../servers/servers-for-tests.ts'

const NOW = Date.UTC(2026, 10, 27, 20)
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
const kafka = await kafkaForTests()
const mongo = await mongoForTests({ mode: 'replica-set' })

function refused(offset: number, timestampMs: number, headers: ReadonlyMap<string, Buffer> | null = null) {
  const batch = { topic: 't', topicId: 'id', partition: 0, records: [], fromOffset: 0, nextOffset: 9, highWatermark: 9 }
  const record = { offset, timestampMs, key: Buffer.from('k'), value: Buffer.from('{"broken":'), headers }
  return { batch, record, refusal: Rejection.of('not_json', 'Not JSON') }
}

async function check(log: EventLog, store: EventStore): Promise<void> {
  const topic = uniqueName('dead')
  await log.ensureTopics([{ name: topic, partitions: 1 }])
  await store.prepare()
  const times = [NOW, -1, 0, NOW / 1000, NOW * 1000, NOW * 1e6, Number.NaN]
  const letters = times.map((timestampMs, offset) => refused(offset, timestampMs))
  const odd = refused(
    times.length,
    NOW,
    new Map([
      ['__proto__', Buffer.from('x')],
      ['', Buffer.from([0xff, 0])],
    ]),
  )
  await writeDeadLetters(log, store, topic, [...letters, odd], new Date(NOW))
  const { items } = await store.listDeadLetters({ limit: 20 })
  assert.deepEqual(
    items.toSorted((a, b) => a.offset - b.offset).map(({ record_time }) => record_time),
    [new Date(NOW), ...times.slice(1).map(() => null), new Date(NOW)],
  )
  const headers = items.find(({ offset }) => offset === times.length)!.headers
  assert.deepEqual(Object.entries(headers).sort(), [
    ['', '\ufffd\0'],
    ['__proto__', 'x'],
  ])
}

function openStore(t: TestContext, kind: string): EventStore {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-dead-'))
  const store =
    kind === 'MongoDB'
      ? new MongoStore({ url: withDatabase(mongo.url, uniqueName('dead')), log: quiet })
      : new SqliteStore({ path: join(directory, 'store.sqlite') })
  t.after(async () => {
    await store.close()
    rmSync(directory, { recursive: true })
  })
  return store
}

function openLog(t: TestContext, kind: string): EventLog {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-dead-'))
  const log =
    kind === 'Kafka'
      ? new KafkaLog({ bootstrap: kafka.bootstrap, log: quiet })
      : new SqliteLog({ path: join(directory, 'log.sqlite') })
  t.after(async () => {
    await log.close()
    rmSync(directory, { recursive: true })
  })
  return log
}

for (const logKind of ['embedded log', 'Kafka']) {
  for (const storeKind of ['embedded store', 'MongoDB']) {
    const skip = (logKind === 'Kafka' && kafka.skip) || (storeKind === 'MongoDB' && mongo.skip)
    test(`no record time and no header stops a step: ${logKind}, ${storeKind}`, { skip }, async (t) => {
      await check(openLog(t, logKind), openStore(t, storeKind))
    })
  }
}

test('a letter that the topic rejects for its size is cut: value, then headers and key', async (t) => {
  const store = openStore(t, 'embedded store')
  await store.prepare()
  for (const limit of [200_000, 2_000]) {
    const appended: NewRecord[] = []
    const sizeOf = ({ value, headers }: NewRecord) =>
      (value?.length ?? 0) +
      Object.entries(headers ?? {}).reduce((sum, pair) => sum + pair[0].length + pair[1].length, 0)
    const log = {
      append: async (_: string, records: readonly NewRecord[]) => {
        if (records.some((record) => sizeOf(record) > limit)) throw new LogError('too large', { retriable: false })
        appended.push(...records)
      },
    } as unknown as EventLog
    const many = new Map(Array.from({ length: 1000 }, (_, i) => [`h${i}`, Buffer.alloc(1000, 0x61)] as const))
    await writeDeadLetters(log, store, 'dead', [refused(limit, NOW, many), refused(limit + 1, NOW)], new Date(NOW))
    assert.deepEqual(
      appended.map(({ headers }) => [headers!['offset'], headers!['cut']]),
      [
        [String(limit), 'true'],
        [String(limit + 1), undefined],
      ],
    )
    const letter = (await store.listDeadLetters({ limit: 9 })).items.find(({ offset }) => offset === limit)!
    assert.match(letter.message, /lacks the last \d+ of its headers/)
  }
})
