import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LogProblem, Subscription } from '../../../src/log/event-log.ts'
import { healthOf } from '../../../src/processor/ingest/health.ts'
import { Outcomes } from '../../../src/processor/ingest/outcomes.ts'

function subscription(change: Partial<Subscription> = {}): Subscription {
  return {
    next: async () => [],
    commit: async () => {},
    assigned: [{ topic: 't', partition: 0 }],
    ownsAll: true,
    lag: () => [
      { topic: 't', partition: 0, position: 5, endOffset: 12 },
      { topic: 't', partition: 1, position: null, endOffset: 99 },
    ],
    problems: [],
    close: async () => {},
    ...change,
  }
}

const base = {
  phase: 'running' as const,
  failing: [],
  runningMs: 1000,
  outcomes: new Outcomes(),
  lastEventMs: null,
  openSteps: 0,
  slots: 0,
}
const problem: LogProblem = { code: 'unreachable', message: 'Kafka is away' }

const CASES: [string, Parameters<typeof healthOf>[0], string][] = [
  ['it has partitions and no problem', { ...base, subscription: subscription() }, 'ok'],
  ['it was given no partition yet', { ...base, subscription: subscription({ assigned: [] }) }, 'starting'],
  [
    'there are more members than partitions: it stands by',
    { ...base, runningMs: 60_000, subscription: subscription({ assigned: [] }) },
    'ok',
  ],
  ['the log is away', { ...base, subscription: subscription({ problems: [problem] }) }, 'error'],
  [
    'the store is away',
    { ...base, subscription: subscription(), failing: [{ what: 'write', message: 'no', sinceMs: 0 }] },
    'error',
  ],
  ['it drains', { ...base, phase: 'draining', subscription: subscription() }, 'draining'],
  ['it has not begun', { ...base, phase: 'starting', subscription: null }, 'starting'],
]

for (const [title, input, status] of CASES) {
  test(`${title}: ${status}`, () => assert.equal(healthOf(input).status, status))
}

test('lag is of this member’s partitions only, and null before anything is known', () => {
  assert.equal(healthOf({ ...base, subscription: subscription() }).lag, 7)
  assert.equal(healthOf({ ...base, subscription: subscription({ lag: () => [] }) }).lag, null)
})
