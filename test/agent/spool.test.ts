// The spool: what is added comes out again in order until it is marked as done, also after a restart; when it is full
// the oldest go first, counted, and the newest stay. On the embedded log as the agent opens it, and in memory.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createState } from '../../src/agent/agent-state.ts'
import { memorySpool } from '../../src/agent/memory-spool.ts'
import { DROPPED_TOPICS, openSpool, type Spool, type SpoolRun } from '../../src/agent/spool.ts'
import type { NewRecord } from '../../src/log/event-log.ts'
import { SqliteLog, type SqliteLogOptions } from '../../src/log/sqlite/sqlite-log.ts'
import { quietLogger, temporaryDirectory, until } from './agent-fixture.ts'

const never = new AbortController().signal

function numbered(from: number, count: number, bytes = 0): NewRecord[] {
  return Array.from({ length: count }, (_, i) => ({ key: 'box', value: Buffer.from(String(from + i).padEnd(bytes)) }))
}

const numbers = (run: SpoolRun) => run.records.map(({ value }) => Number(String(value)))

async function open(path: string, options: Partial<SqliteLogOptions> = {}): Promise<{ spool: Spool; log: SqliteLog }> {
  const log = new SqliteLog({ path, leaseMs: 300, ...options })
  return { spool: await openSpool(log), log }
}

/** The next run; waits for the spool to be this process's. */
async function nextRun(spool: Spool): Promise<SpoolRun> {
  const runs: SpoolRun[] = []
  await until('there is a run', async () => {
    const run = await spool.next(never)
    if (run !== null) runs.push(run)
    return run !== null
  })
  return runs[0]!
}

for (const [name, make] of [
  ['on the disk', async (t: TestContext) => (await open(join(temporaryDirectory(t), 'spool.sqlite'))).spool],
  ['in memory', async () => memorySpool(createState(quietLogger().logger))],
] as const) {
  test(`a spool ${name} gives what was added, in order, and forgets what is done`, async (t) => {
    const spool = await make(t)
    t.after(() => spool.close())
    await spool.add('gpu', numbered(0, 3))
    const first = await nextRun(spool)
    assert.deepEqual([first.kind, numbers(first)], ['gpu', [0, 1, 2]])
    assert.equal(String(first.records[0]!.key), 'box')
    assert.equal((await spool.status()).records, 3, 'handed out is not done')
    await spool.done(first, first.records[2]!.offset)
    assert.equal((await spool.status()).records, 1)
    await spool.done(first, first.nextOffset)
    assert.equal((await spool.status()).records, 0)
    assert.ok((await spool.status()).bytes >= 0)

    const waiting = nextRun(spool)
    await spool.add('gpu', numbered(3, 1))
    const startedMs = performance.now()
    assert.deepEqual(numbers(await waiting), [3])
    assert.ok(performance.now() - startedMs < 500, 'adding wakes who waits')
    const stop = new AbortController()
    const idle = spool.next(stop.signal)
    stop.abort()
    const answer = await idle
    assert.ok(answer === null || numbers(answer).includes(3))
  })
}

test('a spool that is opened again goes on where it was done', async (t) => {
  const path = join(temporaryDirectory(t), 'spool.sqlite')
  const { spool } = await open(path)
  await spool.add('gpu', numbered(0, 10))
  const run = await nextRun(spool)
  await spool.done(run, run.records[4]!.offset)
  await spool.close()
  const { spool: again } = await open(path)
  t.after(() => again.close())
  assert.deepEqual(numbers(await nextRun(again)), [4, 5, 6, 7, 8, 9])
})

test('a full spool drops the oldest, says how many, keeps the newest and stays within its bound', async (t) => {
  const drops: [string, number][] = []
  const maxBytes = 400_000
  const { spool, log } = await open(join(temporaryDirectory(t), 'spool.sqlite'), {
    maxBytes,
    keepBytes: 50_000,
    dropOldest: { topics: DROPPED_TOPICS, onDropped: (topic, count) => void drops.push([topic, count]) },
  })
  t.after(() => spool.close())
  for (let i = 0; i < 2000; i += 8) await spool.add('gpu', numbered(i, 8, 400))
  assert.ok(log.heldBytes() < maxBytes * 1.1, `${log.heldBytes()} bytes`)
  const dropped = drops.reduce((sum, [, count]) => sum + count, 0)
  assert.ok(dropped > 500 && drops.every(([topic]) => topic === 'gpu'), `${dropped} dropped`)
  const { records } = await spool.status()
  assert.equal(records + dropped, 2000, 'all are accounted for')
  const kept: number[] = []
  while (kept.length < records) {
    const run = await nextRun(spool)
    kept.push(...numbers(run))
    await spool.done(run, run.nextOffset)
  }
  assert.deepEqual(
    kept,
    Array.from({ length: records }, (_, i) => dropped + i),
  )
  await spool.add('gpu', numbered(2000, 8, 400))
  assert.ok(log.heldBytes() <= 60_000, `what was sent is cleared away: ${log.heldBytes()} bytes`)
})

test('the log drops topics in the given order, a later one only when nothing is left of those before it', async (t) => {
  const drops = new Map<string, number>()
  const log = new SqliteLog({
    path: join(temporaryDirectory(t), 'log.sqlite'),
    maxBytes: 200_000,
    dropOldest: {
      topics: ['gpu', 'token'],
      onDropped: (topic, count) => void drops.set(topic, (drops.get(topic) ?? 0) + count),
    },
  })
  t.after(() => log.close())
  await log.ensureTopics(['gpu', 'token'].map((name) => ({ name, partitions: 1 })))
  for (let i = 0; i < 300; i += 10) await log.append('gpu', numbered(i, 10, 400))
  assert.deepEqual([...drops.keys()], [])
  for (let i = 0; i < 300; i += 10) await log.append('token', numbered(i, 10, 400))
  assert.deepEqual([...drops.keys()], ['gpu'])
  for (let i = 300; i < 900; i += 10) await log.append('token', numbered(i, 10, 400))
  assert.equal(drops.get('gpu'), 300)
  const left = (await log.describe(['token']))[0]!.partitions[0]!
  assert.equal(left.endOffset, 900)
  assert.equal(left.earliestOffset, drops.get('token'))
})

test('a spool in memory drops the oldest as well, counted and said', async () => {
  const { lines, logger } = quietLogger()
  const state = createState(logger)
  const spool = memorySpool(state, 10)
  await spool.add('gpu', numbered(0, 8))
  const run = await nextRun(spool)
  await spool.add('gpu', numbered(8, 8))
  assert.equal(state.counters.dropped, 6)
  assert.match(lines[0]!, /oldest are dropped/)
  await spool.done(run, run.nextOffset)
  assert.deepEqual(numbers(await nextRun(spool)), [8, 9, 10, 11, 12, 13, 14, 15])
})

test('token events and the state that they lead to are stored together, and the state has one record', async (t) => {
  const path = join(temporaryDirectory(t), 'spool.sqlite')
  const { spool, log } = await open(path)
  assert.equal(await spool.lastState(), null)
  await spool.add('gpu', numbered(0, 1))
  for (let i = 1; i <= 50; i += 1) await spool.addTokens(numbered(i, 1), Buffer.from(`state ${i}`))
  await spool.addTokens([], Buffer.from('state without events'))
  const [state] = await log.describe(['engine-state'])
  assert.equal(state!.partitions[0]!.endOffset - state!.partitions[0]!.earliestOffset, 1)
  await spool.close()
  const { spool: again } = await open(path)
  t.after(() => again.close())
  assert.equal(String(await again.lastState()), 'state without events')
  const runs = [await nextRun(again), await nextRun(again)]
  assert.deepEqual(new Set(runs.map(({ kind }) => kind)), new Set(['gpu', 'token']))
  assert.deepEqual(
    numbers(runs.find(({ kind }) => kind === 'token')!),
    Array.from({ length: 50 }, (_, i) => i + 1),
  )
})

test('a spool that is full of token events refuses more, and keeps the state as it was', async (t) => {
  const { spool } = await open(join(temporaryDirectory(t), 'spool.sqlite'), {
    maxBytes: 400_000,
    dropOldest: { topics: DROPPED_TOPICS, onDropped: () => {} },
  })
  t.after(() => spool.close())
  let stored = 0
  await assert.rejects(async () => {
    for (; stored < 1000; stored += 1) await spool.addTokens(numbered(stored, 1, 2000), Buffer.from(`${stored}`))
  }, /Log is full/)
  assert.equal(Number(String(await spool.lastState())), stored - 1)
})
