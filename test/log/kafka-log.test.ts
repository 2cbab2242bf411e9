// The EventLog contract over a real Kafka, and what only Kafka has: rebalances, topics that are created, grow, are
// deleted and recreated, brokers that die or hang, codecs, transactions. Faults are real ones (a signal to the broker,
// a deleted topic), and each test asserts the fault before it trusts the recovery.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Admin, type Connection, Consumer, connectionsConnectsChannel, ProtocolError } from '@platformatic/kafka'
import {
  type AssignedPartition,
  LogError,
  type NewRecord,
  type Position,
  type RecordBatch,
  type StartDecision,
  type SubscribeOptions,
  type Subscription,
  type TopicPartition,
} from '../../src/log/event-log.ts'
import { toLogError } from '../../src/log/kafka/errors.ts'
import { KafkaLog } from '../../src/log/kafka/kafka-log.ts'
import { type KafkaLogOptions, kafkaSettings } from '../../src/log/kafka/options.ts'
import type { Logger } from '../../src/runtime/logger.ts'
import { runTool } from '../servers/run-tool.ts'
import { kafkaDirectory } from '../servers/server-cache.ts'
import { kafkaForTests, uniqueName } from '../servers/servers-for-tests.ts'
import { startProxy } from '../servers/tcp-proxy.ts'
import { eventLogContract } from './event-log.contract.ts'

const shared = await kafkaForTests()
const silent: Logger = { debug() {}, info() {}, warn() {}, error() {} }
const QUICK = {
  sessionTimeoutMs: 3_000,
  rebalanceTimeoutMs: 4_000,
  metadataPollMs: 500,
  missingPollMs: 300,
  blockedRetryMs: 500,
}

function logAt(bootstrap: string, options: Partial<KafkaLogOptions> = {}): KafkaLog {
  return new KafkaLog({ bootstrap, log: silent, ...QUICK, ...options })
}

eventLogContract(
  'kafka',
  async () => {
    const log = logAt(shared.bootstrap)
    return {
      log,
      another: async () => logAt(shared.bootstrap),
      blockedRetryMs: QUICK.blockedRetryMs,
      close: () => log.close(),
    }
  },
  { skip: shared.skip },
)

const LIMIT = { timeout: 60_000, skip: shared.skip }

test('a topic that is missing is waited for and read soon after it is created', LIMIT, async () => {
  await using at = await setUp()
  const topic = uniqueName('missing')
  const reader = at.subscribe([topic])
  await until('topic_missing', () => at.codes().includes('topic_missing'), reader)
  assert.match(reader.problems[0]!.message, new RegExp(topic))
  await at.log.ensureTopics([{ name: topic, partitions: 2 }])
  await at.log.append(topic, numbered(0, 20))
  const startedMs = performance.now()
  assert.deepEqual(await readNumbers(reader, 20), range(0, 20))
  assert.ok(performance.now() - startedMs < 3_000)
  assert.deepEqual(at.codes(), [])
})

test('one topic that is missing does not keep the others from being read', LIMIT, async () => {
  await using at = await setUp()
  const topic = await at.topic(1)
  await at.log.append(topic, numbered(0, 5))
  const reader = at.subscribe([topic, uniqueName('missing')])
  assert.deepEqual(await readNumbers(reader, 5), range(0, 5))
  assert.deepEqual([at.codes(), reader.ownsAll], [['topic_missing'], false])
})

test('new partitions of a topic are noticed and read', LIMIT, async () => {
  await using at = await setUp()
  const topic = await at.topic(1)
  const reader = at.subscribe([topic])
  await until('assigned', () => reader.assigned.length === 1, reader)
  await at.admin.createPartitions({ topics: [{ name: topic, count: 3, assignments: null }] })
  await until('three partitions', () => reader.assigned.length === 3, reader)
  assert.equal(reader.ownsAll, true)
  for (const partition of range(0, 3)) await at.log.append(topic, numbered(partition, 1, partition))
  assert.deepEqual(await readNumbers(reader, 3), range(0, 3))
})

test('a recreated topic needs a new decision, and is blocked until it may start', LIMIT, async () => {
  await using at = await setUp()
  const topic = await at.topic(2)
  await at.log.append(topic, numbered(0, 10, 0))
  let knownId: string | null = null
  let mayRestart = false
  const revoked: TopicPartition[] = []
  const reader = at.subscribe([topic], {
    onRevoked: (partitions) => revoked.push(...partitions),
    onAssigned: async (partitions) =>
      partitions.map(({ topicId }): StartDecision => {
        knownId ??= topicId
        return topicId === knownId || mayRestart ? { offset: 0 } : { blocked: 'another topic of this name' }
      }),
  })
  assert.deepEqual(await readNumbers(reader, 10), range(0, 10))
  await at.admin.deleteTopics({ topics: [topic] })
  await until('the topic is away', async () => (await at.log.describe([topic])).length === 0, reader)
  await at.log.ensureTopics([{ name: topic, partitions: 2 }])
  await at.log.append(topic, numbered(100, 5, 0))
  await until('position_invalid', () => at.codes().includes('position_invalid'), reader)
  assert.match(reader.problems.find(({ code }) => code === 'position_invalid')!.message, /another topic of this name/)
  assert.ok(revoked.length >= 2)
  mayRestart = true
  assert.deepEqual(await readNumbers(reader, 5), range(100, 105))
  assert.deepEqual(at.codes(), [])
})

test(
  'a position that the log lost is never jumped over: the owner decides again, by the new bounds',
  LIMIT,
  async () => {
    await using at = await setUp()
    const topic = await at.topic(1)
    await at.log.append(topic, numbered(0, 10))
    const asked: AssignedPartition[] = []
    let next: StartDecision = { offset: 2 }
    const reader = at.subscribe([topic], {
      onAssigned: async (partitions) => {
        asked.push(...partitions)
        return partitions.map(() => next)
      },
    })
    assert.deepEqual(await readNumbers(reader, 8), range(2, 10))
    next = { blocked: 'offsets 3 to 7 are gone' }
    // The reader is sent back by being thrown out of the group, into a part that is deleted meanwhile.
    await at.admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 8n }] }] })
    next = { offset: 3 }
    await at.admin.removeMembersFromConsumerGroup({ groupId: at.group, members: null })
    await until('position_invalid', () => at.codes().includes('position_invalid'), reader)
    assert.match(reader.problems[0]!.message, /position 3 is outside of the log, which has 8 to 10/)
    assert.equal(asked.at(-1)?.earliestOffset, 8)
    next = { offset: 8 }
    assert.deepEqual(await readNumbers(reader, 2), range(8, 10))
  },
)

test('records that are deleted while a partition is read need a new decision', LIMIT, async () => {
  await using at = await setUp()
  const topic = await at.topic(1)
  for (const i of range(0, 20)) await at.log.append(topic, [{ key: null, value: Buffer.alloc(50_000, String(i % 10)) }])
  let questions = 0
  const reader = at.subscribe([topic], {
    maxBytes: 60_000,
    onAssigned: async (partitions) => {
      questions += 1
      return partitions.map(({ earliestOffset }) =>
        questions === 1 ? { offset: 0 } : { blocked: `gone up to ${earliestOffset}` },
      )
    },
  })
  const first: RecordBatch[] = []
  await until('a first answer', async () => first.push(...(await reader.next())) > 0)
  assert.equal(first[0]!.fromOffset, 0)
  await at.admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 15n }] }] })
  await until('position_invalid', () => at.codes().includes('position_invalid'), reader)
  assert.match(reader.problems[0]!.message, /gone up to 15/)
  assert.equal(reader.lag()[0]!.position, null)
})

test('a member that was removed needs new start positions, since others may have read on', LIMIT, async () => {
  await using at = await setUp()
  const topic = await at.topic(1)
  await at.log.append(topic, numbered(0, 10))
  let stored = 0
  const reader = at.subscribe([topic], { onAssigned: async (all) => all.map(() => ({ offset: stored })) })
  assert.deepEqual(await readNumbers(reader, 10), range(0, 10))
  stored = 7
  await at.admin.removeMembersFromConsumerGroup({ groupId: at.group, members: null })
  assert.deepEqual(await readNumbers(reader, 3), range(7, 10))
})

test('partition n of all topics goes to one member', LIMIT, async () => {
  await using at = await setUp()
  const topics = [await at.topic(6), await at.topic(6)]
  const readers = [at.subscribe(topics), at.subscribe(topics), at.subscribe(topics)]
  await until('each has its share', () => readers.every(({ assigned }) => assigned.length === 4), ...readers)
  const owners = readers.map((reader) => topics.map((topic) => partitionsIn(reader, topic)))
  for (const [first, second] of owners) assert.deepEqual(first, second)
  assert.deepEqual(owners.flatMap(([first]) => first!).toSorted(), range(0, 6))
  assert.ok(readers.every(({ ownsAll }) => !ownsAll))
})

test('before partitions move, flush is awaited and its commit is taken, a commit under way or not', LIMIT, async () => {
  await using at = await setUp()
  const topic = await at.topic(4)
  await at.log.append(topic, numbered(0, 40))
  const seen: number[] = []
  let flushes = 0
  const first = at.subscribe([topic], {
    flush: async () => {
      flushes += 1
      await first.commit(positionsOf(first, topicId))
    },
  })
  const topicId = (await at.log.describe([topic]))[0]!.topicId
  seen.push(...(await readNumbers(first, 40)))
  const offered: AssignedPartition[] = []
  const second = at.subscribe([topic], {
    onAssigned: async (partitions) => {
      offered.push(...partitions)
      return partitions.map(({ endOffset }) => ({ offset: endOffset }))
    },
  })
  let busy = true
  const committing = (async () => {
    while (busy) await first.commit(positionsOf(first, topicId).slice(0, 1))
  })()
  // It has its partitions before a start position is requested.
  const bothRead = () => first.assigned.length === 2 && second.assigned.length === 2 && offered.length > 0
  await until('both have a share', bothRead, first, second)
  busy = false
  await committing
  assert.ok(flushes > 0)
  assert.equal(offered.length, 2)
  for (const { committedOffset, endOffset } of offered)
    assert.equal(committedOffset, endOffset, 'all that was read was committed')
})

test('a flush that never ends does not hold the group up', LIMIT, async () => {
  await using at = await setUp()
  const topic = await at.topic(2)
  const first = at.subscribe([topic], { flush: () => new Promise(() => {}) })
  await until('assigned', () => first.assigned.length === 2, first)
  const second = at.subscribe([topic])
  await until('both have a share', () => first.assigned.length === 1 && second.assigned.length === 1, first, second)
})

test('a group with members that have another assignor is named, and joined when they are gone', LIMIT, async () => {
  await using at = await setUp()
  const topic = await at.topic(2)
  const old = new Consumer({ ...at.client, groupId: at.group, protocols: [{ name: 'roundrobin', version: 1 }] })
  old.topics.track(topic)
  await old.joinGroup({ sessionTimeout: 6_000, rebalanceTimeout: 6_000, heartbeatInterval: 300 })
  const reader = at.subscribe([topic])
  await until('group_incompatible', () => at.codes().includes('group_incompatible'), reader)
  assert.match(reader.problems[0]!.message, /older processor/)
  await old.close(true)
  await until('assigned', () => reader.assigned.length === 2, reader)
  assert.deepEqual(at.codes(), [])
})

test('a record over the limit is named, and what was before it is in the log', LIMIT, async () => {
  await using at = await setUp()
  const topic = await at.topic(2)
  const big = { key: null, value: Buffer.alloc(2_000_000), partition: 1 }
  await assert.rejects(at.log.append(topic, [...numbered(0, 5, 0), big]), (error: LogError) => {
    assert.ok(error instanceof LogError)
    assert.match(error.message, /^Cannot append record 5 to topic .*over the limit/)
    return !error.retriable
  })
  const ends = (await at.log.describe([topic]))[0]!.partitions.map(({ endOffset }) => endOffset)
  assert.deepEqual(ends, [5, 0])
  // A batch may be too large for a topic though each record is not: it is cut.
  const small = uniqueName('small')
  await at.admin.createTopics({
    topics: [{ topic: small, partitions: 1 }],
    configs: [{ name: 'max.message.bytes', value: '20000' }],
  })
  await until('the topic is there', async () => (await at.log.describe([small])).length === 1)
  await at.log.append(
    small,
    range(0, 100).map((i) => ({ key: null, value: Buffer.from(String(i).padEnd(1_000)) })),
  )
  assert.deepEqual(await readNumbers(at.subscribe([small]), 100), range(0, 100))
})

test('appending to a new topic at once puts each record there once', LIMIT, async () => {
  await using at = await setUp()
  for (const _ of range(0, 5)) {
    const topic = uniqueName('fresh')
    await at.admin.createTopics({ topics: [{ topic, partitions: 8 }] })
    await at.log.append(topic, numbered(0, 400)).catch((error: LogError) => assert.ok(error.retriable, error.message))
    const ends = (await at.log.describe([topic]))[0]?.partitions.map(({ endOffset }) => endOffset) ?? []
    assert.ok([0, 400].includes(ends.reduce((a, b) => a + b, 0)), ends.join(' '))
  }
})

test('what cannot work is a LogError that names what failed', LIMIT, async () => {
  await using at = await setUp()
  const missing = uniqueName('missing')
  const away = logAt('127.0.0.1:1')
  const create = (name: string, replication: number) => at.log.ensureTopics([{ name, partitions: 1, replication }])
  const failures: [() => Promise<unknown>, RegExp, boolean][] = [
    [() => at.log.append(missing, numbered(0, 1)), /^Cannot append to topic "missing.*: Unknown topic/, true],
    [() => at.log.offsetsAt(missing, 0), /^Cannot find offsets of topic "missing.*: it does not exist$/, true],
    // A broker that is just starting responds so, and one broker more is all that it takes.
    [() => create(missing, 3), /^Cannot create topic "missing.*: INVALID_REPLICATION_FACTOR/, true],
    [() => create(`${missing}/`, 1), /^Cannot create topics: INVALID_TOPIC_EXCEPTION/, false],
    [() => away.ping(), /^Cannot reach Kafka: .*ECONNREFUSED/, true],
  ]
  for (const [fail, message, retriable] of failures) {
    await assert.rejects(fail, (error: unknown) => {
      assert.ok(error instanceof LogError)
      assert.match(error.message, message)
      assert.equal(error.retriable, retriable, error.message)
      return true
    })
  }
  await away.close()
})

test(
  'a Java client’s batches in every codec are read, rolled back transactions and markers are not records',
  LIMIT,
  async (t) => {
    const jars = kafkaDirectory('3.9')
    if (!existsSync(jars)) return t.skip('the jars of Kafka are not installed')
    await using at = await setUp()
    const topic = await at.topic(1)
    await runTool('java', ['-cp', join(jars, '*'), join(import.meta.dirname, 'KafkaCodecs.java'), at.bootstrap, topic])
    const reader = at.subscribe([topic])
    const numbers: number[] = []
    await until('2,050 records', async () => {
      for (const record of (await reader.next()).flatMap((batch) => batch.records)) {
        const number = Number.parseInt(String(record.value), 10)
        assert.equal(record.timestampMs, 1_600_000_000_000 + number * 10_800_000)
        numbers.push(number)
      }
      return numbers.length >= 2_050
    })
    assert.deepEqual(numbers, range(0, 2_050))
    await until(
      'the last marker is passed',
      () => reader.lag().every(({ position, endOffset }) => position === endOffset),
      reader,
    )
    // 2,050 records, 50 rolled back ones, two markers.
    assert.equal(reader.lag()[0]!.endOffset, 2_102)
  },
)

test('reading resumes after the broker was stopped, killed and hung; each fault is one problem and two log lines', {
  timeout: 120_000,
  skip: shared.skip,
}, async () => {
  const { server, bootstrap } = await kafkaForTests({ owned: true })
  await using at = await setUp(bootstrap)
  const topic = await at.topic(2)
  const stored = new Map<number, number>()
  const reader = at.subscribe([topic], {
    onAssigned: async (all) => all.map(({ partition }) => ({ offset: stored.get(partition) ?? 0 })),
  })
  const seen = new Set<number>()
  let appended = 0
  const proceed = async () => {
    await until('an append is taken', () =>
      at.log.append(topic, numbered(appended, 100)).then(
        () => true,
        () => false,
      ),
    )
    appended += 100
    await until(`${appended} were read`, async () => {
      for (const batch of await reader.next()) {
        for (const record of batch.records) seen.add(Number.parseInt(String(record.value), 10))
        stored.set(batch.partition, batch.nextOffset)
      }
      return seen.size === appended
    })
  }
  await proceed()
  const faults: [string, () => Promise<unknown>, () => Promise<unknown>][] = [
    ['stop', () => server!.stop(), () => server!.start()],
    ['kill', () => server!.kill(), () => server!.start()],
    ['pause', async () => server!.pause(), async () => server!.resume()],
  ]
  for (const [name, begin, end] of faults) {
    at.lines.length = 0
    await begin()
    await until(`unreachable after ${name}`, () => at.codes().includes('unreachable'), reader)
    await end()
    await proceed()
    await until('no problem is left', () => at.codes().length === 0, reader)
    assert.equal(at.lines.filter((line) => line.includes('Cannot reach Kafka')).length, 1, name)
    assert.equal(at.lines.filter((line) => line.includes('over: unreachable')).length, 1, name)
  }
  await server!.pause()
  const startedMs = performance.now()
  await reader.close()
  assert.ok(performance.now() - startedMs < 3_000, 'close is quick while the broker hangs')
  await server!.kill()
  const late = at.subscribe([topic])
  await until('unreachable', () => late.problems.length > 0, late)
  const closingMs = performance.now()
  await late.close()
  assert.ok(performance.now() - closingMs < 3_000, 'close is quick while the broker is away')
  await assert.rejects(at.log.ping(), LogError)
})

test('transient errors of a broker are retriable, permanent ones are not', () => {
  const settings = kafkaSettings({ bootstrap: 'localhost:9092', log: silent })
  const retriable = (apiId: string) => toLogError('Cannot append', new ProtocolError(apiId), settings).retriable
  for (const apiId of [
    'UNKNOWN_SERVER_ERROR',
    'BROKER_NOT_AVAILABLE',
    'INVALID_REPLICATION_FACTOR',
    'REQUEST_TIMED_OUT',
  ])
    assert.equal(retriable(apiId), true, apiId)
  for (const apiId of ['MESSAGE_TOO_LARGE', 'INVALID_RECORD', 'INVALID_TOPIC_EXCEPTION', 'POLICY_VIOLATION'])
    assert.equal(retriable(apiId), false, apiId)
})

test('closing ends every connection, one that its pool has lost sight of too', LIMIT, async () => {
  const proxy = await startProxy({ targetPort: Number(shared.bootstrap.split(':')[1]) })
  const log = logAt(`127.0.0.1:${proxy.port}`)
  const seen: Connection[] = []
  const answers: Promise<void>[] = []
  const onConnect = (message: unknown) => {
    const { connection } = message as { connection: Connection }
    seen.push(connection)
    // Between "error" and "close" of a connection that was reset another is opened.
    connection.once('error', () => queueMicrotask(() => answers.push(log.ping())))
  }
  connectionsConnectsChannel.start.subscribe(onConnect)
  try {
    await log.ping()
    const closed = new Promise((resolve) => seen[0]!.once('close', resolve))
    proxy.cut()
    proxy.resume()
    await closed
    await Promise.all(answers)
    assert.equal(answers.length, 1, 'the reset was seen, and the broker answered on another connection')
    await log.close()
    assert.deepEqual(
      seen.map(({ socket }) => socket.destroyed),
      [true, true],
    )
  } finally {
    connectionsConnectsChannel.start.unsubscribe(onConnect)
    await log.close()
    await proxy.close()
  }
})

interface Setup extends AsyncDisposable {
  bootstrap: string
  log: KafkaLog
  admin: Admin
  client: { clientId: string; bootstrapBrokers: string[] }
  group: string
  lines: string[]
  topic(partitions: number): Promise<string>
  subscribe(topics: string[], options?: Partial<SubscribeOptions>): Subscription
  codes(): string[]
}

async function setUp(bootstrap = shared.bootstrap): Promise<Setup> {
  const lines: string[] = []
  const line = (details: object, message: string) => lines.push(`${message} ${JSON.stringify(details)}`)
  const log = logAt(bootstrap, { log: { debug() {}, info: line, warn: line, error: line } })
  const client = { clientId: 'test', bootstrapBrokers: [bootstrap] }
  const admin = new Admin(client)
  const group = uniqueName('group')
  const subscriptions: Subscription[] = []
  const abort = new AbortController()
  return {
    bootstrap,
    log,
    admin,
    client,
    group,
    lines,
    topic: async (partitions) => (await log.ensureTopics([{ name: uniqueName('topic'), partitions }]))[0]!,
    subscribe: (topics, options) => {
      const subscription = log.subscribe({
        group,
        topics,
        onAssigned: async (partitions) => partitions.map(() => ({ offset: 0 })),
        signal: abort.signal,
        ...options,
      })
      subscriptions.push(subscription)
      return subscription
    },
    codes: () => [...new Set(subscriptions.flatMap(({ problems }) => problems.map(({ code }) => code)))],
    [Symbol.asyncDispose]: async () => {
      await log.close()
      await admin.close()
    },
  }
}

/** Waits for a condition, taking from the readers meanwhile, as a processor does. */
async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  ...readers: Subscription[]
): Promise<void> {
  const startedMs = performance.now()
  while (!(await condition())) {
    assert.ok(performance.now() - startedMs < 30_000, `Not within 30 s: ${what}`)
    await Promise.all(readers.map((reader) => reader.next()))
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

async function readNumbers(reader: Subscription, count: number): Promise<number[]> {
  const numbers: number[] = []
  await until(`${count} records, problems ${JSON.stringify(reader.problems)}`, async () => {
    for (const batch of await reader.next()) {
      for (const record of batch.records) numbers.push(Number.parseInt(String(record.value), 10))
    }
    return numbers.length >= count
  })
  return numbers.toSorted((a, b) => a - b)
}

function numbered(from: number, count: number, partition?: number): NewRecord[] {
  return range(from, from + count).map((i) => ({
    key: `key-${i}`,
    value: Buffer.from(String(i)),
    ...(partition === undefined ? {} : { partition }),
  }))
}

function positionsOf(reader: Subscription, topicId: string): Position[] {
  const read = reader.lag().filter(({ position }) => position !== null)
  return read.map(({ topic, partition, position }) => ({ topic, topicId, partition, offset: position! }))
}

function partitionsIn(reader: Subscription, topic: string): number[] {
  return reader.assigned.filter((assigned) => assigned.topic === topic).map(({ partition }) => partition)
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i)
}
