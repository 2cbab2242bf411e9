import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import type { AssignedPartition, EventLog, Position } from '../../../src/log/event-log.ts'
import { SqliteLog } from '../../../src/log/sqlite/sqlite-log.ts'
import {
  lossAtStart,
  type StartFrom,
  StartUndecided,
  settleFirstStart,
  startOf,
} from '../../../src/processor/ingest/start.ts'
import type { EventStore } from '../../../src/store/event-store.ts'
import { SqliteStore } from '../../../src/store/sqlite/sqlite-store.ts'
import { temporaryDirectory } from '../../flows/harness.ts'

const PARTITION: AssignedPartition = {
  topic: 't',
  partition: 0,
  topicId: 'A',
  committedOffset: null,
  earliestOffset: 100,
  endOffset: 500,
}
const at = (offset: number, topicId = 'A', partition = 0): Position => ({ topic: 't', topicId, partition, offset })

const CASES: [string, Partial<AssignedPartition>, Position[], number | RegExp][] = [
  ['nothing is known: the log’s beginning', {}, [], 100],
  ['the store has no position and the group has an offset: that once', { committedOffset: 200 }, [], 200],
  ['the group’s offset is older than the log: its beginning', { committedOffset: 50 }, [], 100],
  [
    'the group’s offset is beyond the end: blocked',
    { committedOffset: 501 },
    [],
    /Committed offset of t\/0 is 501.*seek/,
  ],
  ['the store’s position wins over the group’s offset', { committedOffset: 200 }, [at(300)], 300],
  ['a position at the end is no problem', {}, [at(500)], 500],
  ['a position beyond the end: blocked', {}, [at(501)], /501, beyond the log's end 500.*seek/],
  ['a position before the beginning: blocked, with the gap', {}, [at(40)], /starts at 100 \(60 records gone\).*seek/],
  ['a position of another topic id: blocked', {}, [at(300, 'B')], /made anew.*seek/],
  ['a position of another partition counts for nothing', {}, [at(300, 'A', 1)], 100],
  ['after a seek there are both: the one of this topic id counts', {}, [at(300, 'B'), at(120)], 120],
]

for (const [title, change, stored, expected] of CASES) {
  test(title, () => {
    const decision = startOf({ ...PARTITION, ...change }, stored)
    if (typeof expected === 'number') assert.deepEqual(decision, { offset: expected })
    else assert.match('blocked' in decision ? decision.blocked : 'not blocked', expected)
  })
}

test('records that were deleted before anybody read them are said, once, where the group’s offset is taken over', () => {
  const partition = { ...PARTITION, committedOffset: 40 }
  assert.match(lossAtStart(partition, []) ?? '', /stopped at 40 of t\/0.*starts at 100: 60 records/)
  assert.equal(lossAtStart(partition, [at(100)]), null)
  assert.equal(lossAtStart({ ...PARTITION, committedOffset: 100 }, []), null)
  assert.equal(lossAtStart(PARTITION, []), null)
})

const START_CASES: {
  title: string
  /** Committed offset of `old`, position in the store of `kept`; topics have records 0 to 9. */
  topics: ('fresh' | 'old' | 'kept' | 'empty' | 'missing')[]
  foreign: number | null
  from?: StartFrom
  expected: Record<string, number> | RegExp
}[] = [
  { title: 'a new store begins at the log’s beginning, unasked', topics: ['fresh'], foreign: 0, expected: {} },
  { title: 'older documents and no offset: refused', topics: ['fresh'], foreign: 3, expected: /begin fresh:.*--from/ },
  { title: 'as many that they are not counted: refused', topics: ['fresh'], foreign: null, expected: /--from latest/ },
  { title: 'the older group’s offset is enough', topics: ['old'], foreign: 3, expected: {} },
  { title: 'a stored position is enough', topics: ['kept'], foreign: 3, expected: { kept: 4 } },
  {
    title: 'of several topics the one is named',
    topics: ['old', 'fresh'],
    foreign: 3,
    expected: /begin fresh: embedded/,
  },
  { title: 'nothing to guess about', topics: ['empty', 'missing'], foreign: 3, expected: {} },
  { title: '--from earliest', topics: ['fresh'], foreign: 3, from: 'earliest', expected: { fresh: 0 } },
  { title: '--from latest', topics: ['fresh'], foreign: 3, from: 'latest', expected: { fresh: 10 } },
  { title: '--from a time', topics: ['fresh'], foreign: 3, from: 1, expected: { fresh: 0 } },
  { title: '--from a time after the end', topics: ['fresh'], foreign: 3, from: 1e13, expected: { fresh: 10 } },
  { title: '--from counts in a new store too', topics: ['fresh'], foreign: 0, from: 'latest', expected: { fresh: 10 } },
  { title: '--from never moves', topics: ['kept', 'old', 'empty'], foreign: 3, from: 'latest', expected: { kept: 4 } },
]

for (const { title, topics, foreign, from = null, expected } of START_CASES) {
  test(`a first start: ${title}`, async (t) => {
    const [log, store] = await startPlace(temporaryDirectory(t), topics, foreign)
    try {
      const start = { group: 'g', topics, from }
      if (expected instanceof RegExp) {
        await assert.rejects(settleFirstStart(log, store, start), (error) => {
          assert.ok(error instanceof StartUndecided)
          assert.match(error.message, expected)
          assert.match(error.message, /group "g"/)
          return true
        })
        assert.deepEqual(await store.readPositions('g'), [])
        return
      }
      await settleFirstStart(log, store, start)
      const settled = await store.readPositions('g')
      assert.deepEqual(Object.fromEntries(settled.map(({ topic, offset }) => [topic, offset])), expected)
      // The word that was said stays, whatever the next start says.
      for (const next of ['earliest', 'latest'] as const) {
        if (Object.keys(expected).length > 0) await settleFirstStart(log, store, { ...start, from: next })
      }
      if (Object.keys(expected).length > 0) assert.deepEqual(await store.readPositions('g'), settled)
    } finally {
      await Promise.all([log.close(), store.close()])
    }
  })
}

/** Topics of one partition on an embedded log and store. */
async function startPlace(
  directory: string,
  topics: readonly string[],
  foreign: number | null,
): Promise<[EventLog, EventStore]> {
  const log = new SqliteLog({ path: join(directory, 'log.sqlite') })
  const store = new SqliteStore({ path: join(directory, 'store.sqlite') })
  await store.prepare()
  const there = topics.filter((name) => name !== 'missing')
  await log.ensureTopics(there.map((name) => ({ name, partitions: 1 })))
  for (const name of there.filter((one) => one !== 'empty')) {
    await log.append(
      name,
      Array.from({ length: 10 }, () => ({ key: null, value: Buffer.from('{}') })),
    )
  }
  for (const { name: topic, topicId } of await log.describe(there)) {
    const position = { topic, topicId, partition: 0, offset: 4 }
    if (topic === 'old') await log.resetOffsets('g', [position])
    if (topic === 'kept') await store.beginPositions('g', [position])
  }
  const counted = store.count.bind(store)
  // Only MongoDB's store can hold documents of others.
  Object.assign(store, { count: async () => ({ ...(await counted()), foreign }) })
  return [log, store]
}
