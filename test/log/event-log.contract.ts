// The contract of every EventLog adapter, as tests: kafka-log.test.ts runs them over a real broker, sqlite-log.test.ts
// over a file. Each test creates topics and groups of its own, so that one log may serve all of them. Nothing here
// sleeps for a fixed time to be right: it reads until what must come has come, or fails at the limit.
//
// An adapter's fixture (`LogUnderTest`) opens a second handle on the same log, and names what the adapter cannot do.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import type {
  AssignedPartition,
  EventLog,
  LogRecord,
  NewRecord,
  Position,
  RecordBatch,
  StartDecision,
  SubscribeOptions,
  Subscription,
} from '../../src/log/event-log.ts'
import { LogError } from '../../src/log/event-log.ts'

const LIMIT_MS = 30_000
const TEST_OPTIONS = { timeout: 60_000 }

/**
 * A log that is open, with what the contract needs to know about it. `close` closes `log` as well, also when it is
 * closed.
 */
export interface LogUnderTest {
  log: EventLog
  /** Opens another handle on the same log, as a second process would. The test closes it. */
  another(): Promise<EventLog>
  /** After about how long the adapter requests another decision for blocked partitions; absent where it never does. */
  blockedRetryMs?: number
  /** Where it can be done: takes the log away for good, so that `ping` has to fail. Runs as the last test. */
  vanish?(): Promise<void>
  close(): Promise<void>
}

export interface ContractOptions {
  /** Reason to skip, as node:test takes it. */
  skip?: string | boolean
}

export function eventLogContract(
  name: string,
  makeLog: () => Promise<LogUnderTest>,
  { skip = false }: ContractOptions = {},
): void {
  describe(`event log contract: ${name}`, { skip }, () => {
    let under: LogUnderTest
    let log: EventLog

    before(async () => {
      under = await makeLog()
      log = under.log
    })
    after(async () => {
      await under?.close()
    })

    async function makeTopic(partitions: number): Promise<string> {
      const topic = `contract-${randomUUID()}`
      assert.deepEqual(await log.ensureTopics([{ name: topic, partitions }]), [topic])
      return topic
    }

    test(
      'ensureTopics creates what is missing, leaves what exists, and names what it created',
      TEST_OPTIONS,
      async () => {
        const topic = await makeTopic(3)
        const second = `contract-${randomUUID()}`
        assert.deepEqual(await log.ensureTopics([{ name: topic, partitions: 7 }]), [])
        assert.deepEqual(
          await log.ensureTopics([
            { name: topic, partitions: 7 },
            { name: second, partitions: 1 },
          ]),
          [second],
        )
        const described = await log.describe([topic, second, 'contract-no-such-topic'])
        assert.deepEqual(
          described.map((described) => [described.name, described.partitions.length]).sort(),
          [
            [topic, 3],
            [second, 1],
          ].sort(),
        )
        assert.notEqual(described[0]?.topicId, described[1]?.topicId)
      },
    )

    test('records come back in order, byte for byte, from offset 0 without gaps', TEST_OPTIONS, async () => {
      const topic = await makeTopic(1)
      const appendedFromMs = Date.now()
      await log.append(topic, [
        { key: 'text', value: Buffer.from('one') },
        { key: Buffer.from([0, 255]), value: Buffer.from([0, 1, 2, 255]), headers: { a: 'x', b: Buffer.from([9]) } },
        { key: null, value: null },
        { key: null, value: Buffer.alloc(0) },
      ])
      await log.append(topic, [{ key: null, value: Buffer.from('späť ✓') }])
      await log.append(topic, [])
      await using reader = subscribe(log, [topic])
      const batches = await reader.readBatches(5)
      const records = batches.flatMap((batch) => batch.records)
      assert.deepEqual(
        records.map((record) => record.offset),
        [0, 1, 2, 3, 4],
      )
      assert.deepEqual(
        records.map((record) => bytes(record.key)),
        [bytes('text'), '00ff', null, null, null],
      )
      assert.deepEqual(
        records.map((record) => bytes(record.value)),
        [bytes('one'), '000102ff', null, '', bytes('späť ✓')],
      )
      assert.equal(records[0]?.headers, null)
      assert.deepEqual(
        [...(records[1]?.headers ?? [])].map(([key, value]) => [key, bytes(value)]),
        [
          ['a', bytes('x')],
          ['b', '09'],
        ],
      )
      for (const record of records) {
        assert.ok(Math.abs(record.timestampMs - appendedFromMs) < LIMIT_MS, 'record time is about now')
      }
      const [description] = await log.describe([topic])
      for (const batch of batches) {
        assert.equal(batch.topic, topic)
        assert.equal(batch.partition, 0)
        assert.equal(batch.topicId, description?.topicId)
        assert.ok(batch.fromOffset <= batch.records[0]!.offset)
        assert.ok(batch.nextOffset > batch.records.at(-1)!.offset)
        assert.ok(batch.highWatermark >= batch.nextOffset)
      }
      assert.deepEqual(
        description?.partitions.map((partition) => ({ ...partition })),
        [{ partition: 0, earliestOffset: 0, endOffset: 5, committedOffset: null }],
      )
    })

    test('records with one key share a partition; without a key all partitions get some', TEST_OPTIONS, async () => {
      const topic = await makeTopic(4)
      const keyed = Array.from({ length: 400 }, (_, i) => ({ key: `host-${i % 20}`, value: number(i) }))
      await log.append(topic, keyed.slice(0, 150))
      await log.append(topic, keyed.slice(150))
      await log.append(topic, [{ key: 'host-1', value: number(1000), partition: 3 }])
      await using reader = subscribe(log, [topic])
      const partitionsOfKey = new Map<string, Set<number>>()
      const valuesOfKey = new Map<string, number[]>()
      for (const batch of await reader.readBatches(401)) {
        for (const record of batch.records) {
          if (record.value?.toString() === '1000') {
            assert.equal(batch.partition, 3, 'a partition that is given wins')
            continue
          }
          const key = record.key!.toString()
          partitionsOfKey.set(key, (partitionsOfKey.get(key) ?? new Set()).add(batch.partition))
          valuesOfKey.set(key, [...(valuesOfKey.get(key) ?? []), Number(record.value)])
        }
      }
      assert.equal(partitionsOfKey.size, 20)
      for (const [key, partitions] of partitionsOfKey) assert.equal(partitions.size, 1, `${key} is in one partition`)
      for (const values of valuesOfKey.values())
        assert.deepEqual(
          values,
          values.toSorted((a, b) => a - b),
        )
      assert.ok(new Set([...partitionsOfKey.values()].flatMap((set) => [...set])).size > 1, 'keys spread')

      const unkeyed = await makeTopic(4)
      for (let call = 0; call < 16; call += 1) {
        await log.append(
          unkeyed,
          Array.from({ length: 25 }, (_, i) => ({ key: null, value: number(i) })),
        )
      }
      const [description] = await log.describe([unkeyed])
      const ends = description!.partitions.map((partition) => partition.endOffset)
      assert.equal(
        ends.reduce((a, b) => a + b, 0),
        400,
      )
      assert.ok(
        ends.every((end) => end > 0),
        `each partition took a turn: ${ends.join(' ')}`,
      )
    })

    test('nothing is lost when next is not called while much is appended', TEST_OPTIONS, async () => {
      const topic = await makeTopic(3)
      await log.append(topic, numbered(0, 50))
      await using reader = subscribe(log, [topic], { maxBytes: 64 * 1024 })
      await reader.readBatches(50)
      const padding = 'x'.repeat(200)
      for (let start = 50; start < 3050; start += 500) {
        const records = numbered(start, 500)
        for (const record of records) record.value = Buffer.concat([record.value!, Buffer.from(` ${padding}`)])
        await log.append(topic, records)
      }
      const batches = await reader.readBatches(3000)
      const numbers = batches.flatMap((batch) =>
        batch.records.map((record) => Number.parseInt(String(record.value), 10)),
      )
      assert.deepEqual(
        numbers.toSorted((a, b) => a - b),
        Array.from({ length: 3000 }, (_, i) => i + 50),
      )
      assertConsecutive(batches)
    })

    test(
      'next returns nothing after a moment without data, and at once when the signal aborts',
      TEST_OPTIONS,
      async () => {
        const topic = await makeTopic(1)
        const abort = new AbortController()
        await using reader = subscribe(log, [topic], { signal: abort.signal })
        await reader.untilAssigned(1)
        const startedMs = performance.now()
        assert.deepEqual(await reader.subscription.next(), [])
        assert.ok(performance.now() - startedMs < 2000)
        const waiting = reader.subscription.next()
        abort.abort()
        const abortedMs = performance.now()
        assert.deepEqual(await waiting, [])
        assert.deepEqual(await reader.subscription.next(), [])
        assert.ok(performance.now() - abortedMs < 200)
      },
    )

    test('two groups read the same records, each its own way', TEST_OPTIONS, async () => {
      const topic = await makeTopic(2)
      await log.append(topic, numbered(0, 100))
      await using first = subscribe(log, [topic])
      await using second = subscribe(log, [topic])
      assert.deepEqual(await first.readNumbers(100), range(0, 100))
      assert.deepEqual(await second.readNumbers(100), range(0, 100))
    })

    test('one subscription reads several topics', TEST_OPTIONS, async () => {
      const topics = [await makeTopic(2), await makeTopic(3)]
      await log.append(topics[0]!, numbered(0, 50))
      await log.append(topics[1]!, numbered(50, 50))
      await using reader = subscribe(log, topics)
      assert.deepEqual(await reader.readNumbers(100), range(0, 100))
      assert.equal(reader.subscription.assigned.length, 5)
      assert.equal(reader.subscription.ownsAll, true)
      assert.deepEqual([...reader.subscription.problems], [])
    })

    test('reading starts where onAssigned decides, whatever the group has committed', TEST_OPTIONS, async () => {
      const topic = await makeTopic(2)
      await log.append(topic, numbered(0, 10, 0))
      await log.append(topic, numbered(10, 10, 1))
      const asked: AssignedPartition[] = []
      await using reader = subscribe(log, [topic], {
        onAssigned: async (partitions) => {
          asked.push(...partitions)
          return partitions.map(({ partition, endOffset }) => ({ offset: partition === 0 ? 7 : endOffset - 1 }))
        },
      })
      assert.deepEqual(await reader.readNumbers(4), [7, 8, 9, 19])
      const [description] = await log.describe([topic])
      assert.deepEqual(
        asked.toSorted((a, b) => a.partition - b.partition).map((assigned) => ({ ...assigned })),
        [
          {
            topic,
            partition: 0,
            topicId: description!.topicId,
            committedOffset: null,
            earliestOffset: 0,
            endOffset: 10,
          },
          {
            topic,
            partition: 1,
            topicId: description!.topicId,
            committedOffset: null,
            earliestOffset: 0,
            endOffset: 10,
          },
        ],
      )
      assert.deepEqual(
        reader.subscription.lag().toSorted((a, b) => a.partition - b.partition),
        [
          { topic, partition: 0, position: 10, endOffset: 10 },
          { topic, partition: 1, position: 10, endOffset: 10 },
        ],
      )
    })

    test('a commit is seen by describe and by the next member of the group', TEST_OPTIONS, async () => {
      const topic = await makeTopic(2)
      await log.append(topic, numbered(0, 10, 0))
      const group = newGroup()
      const topicId = (await log.describe([topic]))[0]!.topicId
      {
        await using reader = subscribe(log, [topic], { group })
        await reader.readBatches(10)
        await reader.subscription.commit([{ topic, topicId, partition: 0, offset: 4 }])
        await reader.subscription.commit([{ topic, topicId, partition: 0, offset: 6 }])
        await until('the commit is in the log', async () => (await committed(log, topic, group))[0] === 6)
        assert.deepEqual(await committed(log, topic, group), [6, null])
        assert.deepEqual(await committed(log, topic, newGroup()), [null, null])
      }
      const offered: (number | null)[] = []
      await using next = subscribe(log, [topic], {
        group,
        onAssigned: async (partitions) => {
          for (const { partition, committedOffset } of partitions) offered[partition] = committedOffset
          return partitions.map(({ committedOffset, earliestOffset }) => ({
            offset: committedOffset ?? earliestOffset,
          }))
        },
      })
      assert.deepEqual(await next.readNumbers(4), range(6, 10))
      assert.deepEqual(offered, [6, null])
    })

    test('a blocked partition is not read and is a problem; the others are read', TEST_OPTIONS, async (context) => {
      const topic = await makeTopic(2)
      await log.append(topic, numbered(0, 5, 0))
      await log.append(topic, numbered(5, 5, 1))
      let open = false
      await using reader = subscribe(log, [topic], {
        onAssigned: async (partitions) =>
          partitions.map(
            ({ partition }): StartDecision =>
              partition === 0 && !open ? { blocked: 'position 99 is beyond the end' } : { offset: 0 },
          ),
      })
      assert.deepEqual(await reader.readNumbers(5), range(5, 10))
      assert.deepEqual(await reader.subscription.next(), [])
      const problem = reader.subscription.problems.find(({ code }) => code === 'position_invalid')
      assert.ok(problem?.message.includes('position 99 is beyond the end'), problem?.message ?? 'no such problem')
      const lag = reader.subscription.lag().find(({ partition }) => partition === 0)
      assert.deepEqual(lag, { topic, partition: 0, position: null, endOffset: 5 })
      if (under.blockedRetryMs === undefined) return context.diagnostic('the adapter does not request another decision')
      open = true
      assert.deepEqual(await reader.readNumbers(5), range(0, 5))
      assert.deepEqual([...reader.subscription.problems], [])
    })

    test(
      'offsetsAt gives the first offset at or after an instant, and the end after the last',
      TEST_OPTIONS,
      async () => {
        const topic = await makeTopic(2)
        await log.append(topic, numbered(0, 3, 0))
        await new Promise((resolve) => setTimeout(resolve, 30))
        await log.append(topic, numbered(3, 2, 0))
        await using reader = subscribe(log, [topic])
        const records = (await reader.readBatches(5)).flatMap((batch) => batch.records)
        const at = async (timestampMs: number) =>
          (await log.offsetsAt(topic, timestampMs)).toSorted((a, b) => a.partition - b.partition)
        const offsets = (first: number) => [
          { partition: 0, offset: first },
          { partition: 1, offset: 0 },
        ]
        assert.deepEqual(await at(0), offsets(0))
        assert.deepEqual(await at(records[3]!.timestampMs), offsets(3))
        assert.deepEqual(await at(records[4]!.timestampMs + 1), offsets(5))
      },
    )

    test('lag has position and end, also while next is not called', TEST_OPTIONS, async () => {
      const topic = await makeTopic(1)
      await log.append(topic, numbered(0, 8))
      await using reader = subscribe(log, [topic], {
        onAssigned: async (partitions) => partitions.map(() => ({ offset: 3 })),
      })
      assert.equal((await reader.readBatches(5)).at(-1)?.nextOffset, 8)
      assert.deepEqual(reader.subscription.lag(), [{ topic, partition: 0, position: 8, endOffset: 8 }])
      await log.append(topic, numbered(8, 4))
      assert.deepEqual(await reader.readNumbers(4), range(8, 12))
      assert.deepEqual(reader.subscription.lag(), [{ topic, partition: 0, position: 12, endOffset: 12 }])
    })

    test('resetOffsets is refused while the group has a member and works after', TEST_OPTIONS, async () => {
      const topic = await makeTopic(2)
      await log.append(topic, numbered(0, 10, 0))
      const group = newGroup()
      const topicId = (await log.describe([topic]))[0]!.topicId
      const positions: Position[] = [{ topic, topicId, partition: 0, offset: 2 }]
      {
        await using reader = subscribe(log, [topic], { group })
        await reader.readBatches(10)
        await assert.rejects(log.resetOffsets(group, positions), LogError)
      }
      await log.resetOffsets(group, positions)
      assert.deepEqual(await committed(log, topic, group), [2, null])
    })

    test('a second member loses nothing, and continues alone when the first closes', TEST_OPTIONS, async () => {
      const topic = await makeTopic(4)
      const group = newGroup()
      const second = await under.another()
      try {
        const seen = new Set<number>()
        // One member continues where the other has stored, as with the processor's store.
        const stored = new Map<number, number>()
        const onAssigned = async (partitions: readonly AssignedPartition[]) =>
          partitions.map(({ partition }) => ({ offset: stored.get(partition) ?? 0 }))
        await using other = subscribe(second, [topic], { group, onAssigned })
        {
          await using first = subscribe(log, [topic], { group, onAssigned })
          await log.append(topic, numbered(0, 200))
          await readTogether([first, other], { seen, stored, count: 200 })
        }
        await log.append(topic, numbered(200, 200))
        await readTogether([other], { seen, stored, count: 400 })
        assert.equal(other.subscription.ownsAll, true)
        assert.equal(other.subscription.assigned.length, 4)
      } finally {
        await second.close()
      }
    })

    test('a member that closes may be followed at once by another of its group', TEST_OPTIONS, async () => {
      const topic = await makeTopic(1)
      const group = newGroup()
      await log.append(topic, numbered(0, 10))
      for (let round = 0; round < 2; round += 1) {
        await using reader = subscribe(log, [topic], { group })
        assert.deepEqual(await reader.readNumbers(10), range(0, 10))
        const startedMs = performance.now()
        await reader.subscription.close()
        assert.ok(performance.now() - startedMs < 3000, 'close is quick')
        assert.deepEqual(await reader.subscription.next(), [])
      }
    })

    test('a large backlog comes in responses of about maxBytes', TEST_OPTIONS, async () => {
      const topic = await makeTopic(1)
      const value = Buffer.alloc(10_000, 'v')
      for (let call = 0; call < 10; call += 1) {
        await log.append(
          topic,
          Array.from({ length: 10 }, () => ({ key: null, value })),
        )
      }
      await using reader = subscribe(log, [topic], { maxBytes: 200_000 })
      const batches = await reader.readBatches(100)
      assertConsecutive(batches)
      for (const batch of batches) {
        const size = batch.records.reduce((sum, record) => sum + (record.value?.length ?? 0), 0)
        // One append may come out whole, so the bound is soft by its size.
        assert.ok(size <= 320_000, `a response has ${size} bytes`)
      }
    })

    test('ping succeeds, and fails with a LogError once the log is closed', TEST_OPTIONS, async () => {
      const handle = await under.another()
      await handle.ping()
      assert.ok(handle.description.length > 0)
      await handle.close()
      await handle.close()
      await assert.rejects(handle.ping(), LogError)
      await assert.rejects(handle.append('contract', [{ key: null, value: null }]), LogError)
    })

    test('ping fails with a LogError when the log is gone', TEST_OPTIONS, async (context) => {
      if (!under.vanish) return context.diagnostic('this log cannot be taken away here')
      await under.vanish()
      await assert.rejects(log.ping(), LogError)
    })
  })
}

interface Reader extends AsyncDisposable {
  subscription: Subscription
  untilAssigned(partitions: number): Promise<void>
  readBatches(records: number): Promise<RecordBatch[]>
  /** The numbers in the values, sorted, since partitions come in any order. */
  readNumbers(records: number): Promise<number[]>
}

function subscribe(log: EventLog, topics: string[], options: Partial<SubscribeOptions> = {}): Reader {
  const abort = new AbortController()
  const subscription = log.subscribe({
    group: newGroup(),
    topics,
    onAssigned: async (partitions) => partitions.map(() => ({ offset: 0 })),
    signal: abort.signal,
    ...options,
  })
  const readBatches = async (count: number): Promise<RecordBatch[]> => {
    const batches: RecordBatch[] = []
    let got = 0
    await until(
      () => `${got} of ${count} records came; problems: ${JSON.stringify(subscription.problems)}`,
      async () => {
        if (got >= count) return true
        for (const batch of await subscription.next()) {
          batches.push(batch)
          got += batch.records.length
        }
        return got >= count
      },
    )
    assert.equal(got, count, 'not more than was appended')
    return batches.filter((batch) => batch.records.length > 0)
  }
  return {
    subscription,
    untilAssigned: (partitions) =>
      until(`${partitions} partitions are assigned`, async () => {
        if (subscription.assigned.length === partitions) return true
        await subscription.next()
        return false
      }),
    readBatches,
    readNumbers: async (count) =>
      (await readBatches(count))
        .flatMap((batch) => batch.records)
        .map(numberOf)
        .toSorted((a, b) => a - b),
    [Symbol.asyncDispose]: () => subscription.close(),
  }
}

async function readTogether(
  readers: Reader[],
  { seen, stored, count }: { seen: Set<number>; stored: Map<number, number>; count: number },
): Promise<void> {
  await until(
    () => `${seen.size} of ${count} records came`,
    async () => {
      for (const answer of await Promise.all(readers.map((reader) => reader.subscription.next()))) {
        for (const batch of answer) {
          for (const record of batch.records) seen.add(numberOf(record))
          stored.set(batch.partition, Math.max(batch.nextOffset, stored.get(batch.partition) ?? 0))
        }
      }
      return seen.size === count
    },
  )
}

async function committed(log: EventLog, topic: string, group: string): Promise<(number | null)[]> {
  const [description] = await log.describe([topic], group)
  return description!.partitions
    .toSorted((a, b) => a.partition - b.partition)
    .map(({ committedOffset }) => committedOffset)
}

/** Tries until it holds. The condition itself waits (for `next` or a round trip), so this does not spin. */
async function until(what: string | (() => string), condition: () => Promise<boolean>): Promise<void> {
  const startedMs = performance.now()
  while (!(await condition())) {
    if (performance.now() - startedMs > LIMIT_MS) {
      assert.fail(`Not within ${LIMIT_MS} ms: ${typeof what === 'string' ? what : what()}`)
    }
  }
}

function assertConsecutive(batches: RecordBatch[]): void {
  const next = new Map<string, number>()
  for (const batch of batches) {
    const key = `${batch.topic} ${batch.partition}`
    for (const record of batch.records) {
      assert.equal(record.offset, next.get(key) ?? record.offset)
      next.set(key, record.offset + 1)
    }
  }
}

function newGroup(): string {
  return `contract-group-${randomUUID()}`
}

function numbered(from: number, count: number, partition?: number): NewRecord[] {
  return range(from, from + count).map((i) => ({
    key: `key-${i % 50}`,
    value: number(i),
    ...(partition === undefined ? {} : { partition }),
  }))
}

function number(value: number): Buffer {
  return Buffer.from(String(value))
}

function numberOf(record: LogRecord): number {
  return Number(record.value)
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i)
}

function bytes(value: string | Buffer | null): string | null {
  return value === null ? null : Buffer.from(value).toString('hex')
}
