// When buckets are due, in which runs they are computed, and what is logged while catching up.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CatchUp } from '../../../src/processor/ledger/catch-up.ts'
import { isDue, RunLength, runsOf, staggerRuns } from '../../../src/processor/ledger/schedule.ts'
import type { DirtyBucket } from '../../../src/store/ledger-store.ts'
import { Lines, MINUTE, T0 } from './ledger-place.ts'

const dirty = (minute: number, fields: Partial<DirtyBucket> = {}): DirtyBucket => {
  return { startMs: T0 + minute * MINUTE, marks: 1, firstAtMs: T0, lastAtMs: T0, ...fields }
}

test('a bucket is due when its newest mark has settled or its oldest has waited long enough, after its end', () => {
  const rule = { settleMs: 15_000, maxWaitMs: 60_000, lagMs: 165_000, jitterMs: 0, seed: 1 }
  const lateMs = T0 + 1_000_000
  const cases: [string, DirtyBucket, number, boolean][] = [
    ['not over', dirty(0), T0 + 164_999, false],
    ['over', dirty(0), T0 + 165_000, true],
    ['not settled', dirty(0, { firstAtMs: lateMs, lastAtMs: lateMs }), lateMs + 14_999, false],
    ['settled', dirty(0, { firstAtMs: lateMs, lastAtMs: lateMs }), lateMs + 15_000, true],
    ['marked all the time', dirty(0, { firstAtMs: lateMs - 59_999, lastAtMs: lateMs }), lateMs, false],
    ['marked for a minute', dirty(0, { firstAtMs: lateMs - 60_000, lastAtMs: lateMs }), lateMs, true],
    ['in the future', dirty(60), T0 + 165_000, false],
  ]
  for (const [name, span, nowMs, expected] of cases) assert.equal(isDue(span, nowMs, rule), expected, name)
})

test('keepers wait a little longer, each for itself and never longer than the jitter', () => {
  const rule = { settleMs: 0, maxWaitMs: 0, lagMs: 0, jitterMs: 1000 }
  const dueAt = (seed: number, minute: number) => {
    for (let ms = 0; ; ms++)
      if (
        isDue(dirty(minute, { firstAtMs: 0, lastAtMs: T0 + 9e6 }), T0 + 9e6 + ms, {
          ...rule,
          settleMs: 9e9,
          maxWaitMs: T0 + 9e6,
          seed,
        })
      )
        return ms
  }
  const waits = [1, 2].map((seed) => [1, 2, 3, 4].map((minute) => dueAt(seed, minute)))
  assert.ok(waits.flat().every((ms) => ms <= 1000))
  assert.notDeepEqual(waits[0], waits[1])
})

test('due minutes become runs of one hour, without long gaps, of bounded length and marks', () => {
  const minutes = (runs: number[][]) => runs.map((run) => run.map((ms) => (ms - T0) / MINUTE))
  const never = () => false
  const newestFirst = (...all: number[]) => all.toSorted((a, b) => b - a).map((minute) => dirty(minute))
  assert.deepEqual(minutes(runsOf(newestFirst(58, 59, 60, 61), 60 * MINUTE, never)), [
    [60, 61],
    [58, 59],
  ])
  assert.deepEqual(minutes(runsOf(newestFirst(1, 2, 5, 9), 60 * MINUTE, never)), [[9], [1, 2, 5]])
  assert.deepEqual(minutes(runsOf(newestFirst(1, 2, 3, 4, 5), 2 * MINUTE, never)), [[4, 5], [2, 3], [1]])
  const alone = (ms: number) => ms === T0 + 2 * MINUTE
  assert.deepEqual(minutes(runsOf(newestFirst(1, 2, 3), 60 * MINUTE, alone)), [[3], [2], [1]])
  const many = [3, 2, 1].map((minute) => dirty(minute, { marks: 15_000 }))
  assert.deepEqual(minutes(runsOf(many, 60 * MINUTE, never)), [[3], [2], [1]])
  assert.deepEqual(runsOf([], 60 * MINUTE, never), [])
})

test('keepers that catch up start at the newest run and continue at different ones; all come once', () => {
  const runs = Array.from({ length: 21 }, (_, i) => i)
  for (const seed of [0, 1, 2, 12_345]) {
    const order = staggerRuns(runs, seed)
    assert.equal(order[0], 0)
    assert.deepEqual(
      order.toSorted((a, b) => a - b),
      runs,
    )
  }
  assert.notEqual(staggerRuns(runs, 1)[1], staggerRuns(runs, 2)[1])
})

test('runs grow while there is little in a minute and shrink at once when there is much', () => {
  const length = new RunLength()
  assert.equal(length.ms, 5 * MINUTE)
  for (let i = 0; i < 5; i++) length.learn(length.ms, 10)
  assert.equal(length.ms, 60 * MINUTE)
  length.learn(60 * MINUTE, 60 * 10_000)
  assert.equal(length.ms, 5 * MINUTE)
  length.learn(5 * MINUTE, 5_000_000)
  assert.equal(length.ms, MINUTE)
})

test('catching up is logged every ten seconds and at its end, keeping up is not', () => {
  const log = new Lines()
  const catchUp = new CatchUp(log)
  catchUp.report({ minutes: 1, left: 5, nowMs: T0 })
  assert.equal(log.lines.length, 0)
  for (let i = 0; i < 25; i++) catchUp.report({ minutes: 60, left: 60 * (25 - i), nowMs: T0 + i * 1000 })
  catchUp.report({ minutes: 60, left: 0, nowMs: T0 + 25_000 })
  assert.deepEqual(
    log.lines.map(({ fields, message }) => [message.split(' ')[0], fields]),
    [
      ['Catching', { minutes_done: 11 * 60, minutes_left: 15 * 60, times_real_time: 66 * 60 }],
      ['Catching', { minutes_done: 21 * 60, minutes_left: 5 * 60, times_real_time: 63 * 60 }],
      ['Caught', { minutes_done: 26 * 60, minutes_left: 0, times_real_time: 3744 }],
    ],
  )
})
