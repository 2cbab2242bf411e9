// Forwarding, over a sink that the test scripts: what is taken is marked, what is wrong is given up by name, what is
// too large is halved, what fails is sent again and again, and a drain ends in time.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createState } from '../../src/agent/agent-state.ts'
import { type ForwarderOptions, runForwarder } from '../../src/agent/forwarder.ts'
import { memorySpool } from '../../src/agent/memory-spool.ts'
import type { SendResult } from '../../src/agent/sink.ts'
import { quietLogger, until } from './agent-fixture.ts'

const TAKEN: SendResult = { kind: 'taken' }
const failed = (more: object = {}): SendResult => ({
  kind: 'failed',
  message: 'Away',
  retryAfterMs: null,
  needsOperator: false,
  ...more,
})

/** A forwarder over `count` records that are numbers; `answer` is the sink. */
function start(count: number, answer: (numbers: number[], call: number) => SendResult, maxRecords = 500) {
  const { lines, logger } = quietLogger()
  const state = createState(logger)
  const spool = memorySpool(state)
  const [draining, aborted] = [new AbortController(), new AbortController()]
  const calls: number[][] = []
  const taken: number[] = []
  const values = Array.from({ length: count }, (_, i) => ({ key: null, value: Buffer.from(String(i)) }))
  const options: ForwarderOptions = {
    spool,
    sink: {
      description: 'test',
      maxRecords,
      async send(_kind, records) {
        const numbers = records.map(({ value }) => Number(String(value)))
        calls.push(numbers)
        const said = answer(numbers, calls.length - 1)
        if (said.kind === 'taken') taken.push(...numbers)
        return said
      },
      close: async () => {},
    },
    state,
    logger,
    draining: draining.signal,
    aborted: aborted.signal,
    random: () => 0,
  }
  const done = spool.add('gpu', values).then(() => runForwarder(options))
  return {
    state,
    spool,
    lines,
    calls,
    taken,
    draining,
    aborted,
    done,
    drained: async () => {
      draining.abort()
      await done
    },
  }
}

const upTo = (count: number) => Array.from({ length: count }, (_, i) => i)

test('everything is sent once, in order, in batches, and marked as done', async () => {
  const run = start(1234, () => TAKEN)
  await run.drained()
  assert.deepEqual(
    run.calls.map(({ length }) => length),
    [500, 500, 234],
  )
  assert.deepEqual(run.taken, upTo(1234))
  assert.equal((await run.spool.status()).records, 0)
  assert.equal(run.state.counters.sent, 1234)
  assert.ok(run.state.lastSentMs !== null)
})

test('what fails is sent again until it is taken, nothing before it is marked, and it is said once', async () => {
  const waiting: number[] = []
  const run = start(10, (_numbers, call) => {
    void run.spool.status().then(({ records }) => waiting.push(records))
    return call < 3 ? failed({ retryAfterMs: 1 }) : TAKEN
  })
  await until('all is taken', () => run.taken.length === 10)
  await run.drained()
  assert.deepEqual(waiting.slice(0, 4), [10, 10, 10, 10])
  assert.deepEqual(run.calls, [upTo(10), upTo(10), upTo(10), upTo(10)])
  assert.equal(run.state.counters.sendFailures, 3)
  assert.deepEqual(run.lines, ['warn Away', 'info Over: Away'])
})

test('what the other side calls wrong is given up, counted and logged; all else arrives', async () => {
  const isBad = (n: number) => n % 10 === 3
  const run = start(200, (numbers) => {
    // As the server does it: it names a part of them only.
    const wrong = numbers.map((n, index) => ({ n, index })).filter(({ n }) => isBad(n))
    if (wrong.length === 0) return TAKEN
    return { kind: 'rejected', rejected: wrong.slice(0, 7).map(({ index }) => ({ index, message: '/ts: bad' })) }
  })
  await run.drained()
  assert.deepEqual(
    run.taken,
    upTo(200).filter((n) => !isBad(n)),
  )
  assert.deepEqual([run.state.counters.refused, run.state.counters.sent], [20, 180])
  assert.equal((await run.spool.status()).records, 0)
  assert.ok(run.lines.every((line) => line.startsWith('error ')) && run.lines.length <= 20, String(run.lines))
  assert.match(run.lines[0]!, /given up.*\/ts: bad/)
})

test('a batch that is too large is halved until it is taken, and the size is remembered', async () => {
  const run = start(1000, (numbers) => (numbers.length > 100 ? { kind: 'too-large' } : TAKEN))
  await run.drained()
  assert.deepEqual(run.taken, upTo(1000))
  assert.ok(run.calls.filter(({ length }) => length > 100).length < 12, 'it does not begin at 500 again each time')
})

test('all of a batch wrong ends, too', async () => {
  const run = start(30, (numbers) => ({
    kind: 'rejected',
    rejected: numbers.map((_, index) => ({ index, message: 'wrong' })),
  }))
  await run.drained()
  assert.equal(run.state.counters.refused, 30)
  assert.equal((await run.spool.status()).records, 0)
})

test('where a person is needed it waits long and says so as an error; a drain tries once more at once', async () => {
  let isRepaired = false
  const run = start(5, () => (isRepaired ? TAKEN : failed({ message: 'Token is wrong', needsOperator: true })))
  await until('it has failed', () => run.state.counters.sendFailures === 1)
  assert.deepEqual(run.lines, ['error Token is wrong'])
  isRepaired = true
  const startedMs = performance.now()
  await run.drained()
  assert.ok(performance.now() - startedMs < 1000)
  assert.equal(run.taken.length, 5)
})

test('a drain against another side that is away ends when told to, and keeps what is not taken', async () => {
  const run = start(5, () => failed())
  await until('it has failed', () => run.state.counters.sendFailures === 1)
  run.draining.abort()
  await until('it tries again while draining', () => run.state.counters.sendFailures >= 2)
  run.aborted.abort()
  await run.done
  assert.equal((await run.spool.status()).records, 5)
})
