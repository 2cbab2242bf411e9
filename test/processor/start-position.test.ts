import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AssignedPartition, Position } from '../../src/log/event-log.ts'
import { startOf } from '../../src/processor/start-position.ts'

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
