// Sampling: at its pace, past readings that fail or hang, past a spool that refuses, past clocks that are set back.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createState } from '../../src/agent/agent-state.ts'
import { type GpuReading, type GpuSource, GpuSourceError } from '../../src/agent/gpu/gpu-source.ts'
import { type Clock, runSampler } from '../../src/agent/sampler.ts'
import type { NewRecord } from '../../src/log/event-log.ts'
import { quietLogger, reading, until } from './agent-fixture.ts'

interface Run {
  read: (n: number) => Promise<GpuReading[]> | GpuReading[]
  faults?: () => string[]
  repeats?: boolean
  add?: (n: number) => void
  clock?: Clock
  intervalMs?: number
}

/** A sampler that runs until `stop`, over a source and a spool that the test scripts. */
function start({ read, faults = () => [], repeats = false, add = () => {}, clock, intervalMs = 2 }: Run) {
  const stop = new AbortController()
  const { lines, logger } = quietLogger()
  const state = createState(logger)
  const records: NewRecord[] = []
  let reads = 0
  let adds = 0
  const source: GpuSource = {
    name: 'nvml',
    repeats,
    read: async () => read(reads++),
    get faults() {
      return faults()
    },
    close: async () => {},
  }
  const done = runSampler({
    source,
    spool: {
      async add(_kind, added) {
        add(adds++)
        records.push(...added)
      },
    },
    state,
    settings: { host: 'box', models: () => null, pricePerHourUsd: null },
    intervalMs,
    signal: stop.signal,
    ...(clock === undefined ? {} : { clock }),
  })
  const events = () => records.map(({ value }) => JSON.parse(String(value)) as Record<string, unknown>)
  return {
    state,
    lines,
    records,
    events,
    reads: () => reads,
    end: async () => {
      stop.abort()
      await done
    },
  }
}

test('every GPU of every reading is spooled, keyed by host, in order', async () => {
  const run = start({ read: () => [reading({}), reading({ gpuIndex: 1 })] })
  await until('there are ten samples', () => run.records.length >= 10)
  await run.end()
  assert.ok(run.records.every(({ key }) => key === 'box'))
  const events = run.events()
  assert.deepEqual(
    events.map((event) => Number(String(event['event_id']).split('-').at(-1))),
    events.map((_, n) => n),
  )
  const { read, spooled, unspooled } = run.state.counters
  assert.deepEqual([read, spooled, unspooled], [events.length, events.length, 0])
  assert.deepEqual(run.lines, [], 'silent when well')
})

test('readings that fail are said once and tried again; one GPU that fails does not stop the others', async () => {
  let lost: string[] = []
  const run = start({
    read(n) {
      if (n < 5) throw new GpuSourceError('The driver does not answer: restart it')
      lost = n < 10 ? ['GPU 1 is lost: reset it'] : []
      return [reading({})]
    },
    faults: () => lost,
  })
  await until('the readings failed', () => run.state.counters.readFailures === 5)
  await until('one GPU is lost', () => run.state.faults.some(({ message }) => message.startsWith('GPU 1')))
  await until('all is well', () => run.state.faults.length === 0 && run.reads() > 12)
  await run.end()
  assert.deepEqual(run.lines, [
    'warn The driver does not answer: restart it',
    'warn GPU 1 is lost: reset it',
    'info Over: GPU 1 is lost: reset it',
  ])
  assert.equal(run.state.counters.spooled, run.reads() - 5)
})

test('samples that the spool does not take are counted and said, and sampling goes on', async () => {
  const run = start({
    read: () => [reading({})],
    add(n) {
      if (n < 3) throw new Error('No space left')
    },
  })
  await until('the spool takes samples again', () => run.state.counters.spooled > 3)
  await run.end()
  assert.equal(run.state.counters.unspooled, 3)
  assert.match(run.lines[0]!, /^error Samples are lost, the spool does not take them: No space left/)
  const ids = run.events().map((event) => Number(String(event['event_id']).split('-').at(-1)))
  assert.equal(ids[0], 3, 'the gap shows in the ids')
})

test('a reading that hangs does not hold up the end', async () => {
  const hanging = start({ read: () => new Promise(() => {}) })
  await until('it reads', () => hanging.reads() === 1)
  const startedMs = performance.now()
  await hanging.end()
  assert.ok(performance.now() - startedMs < 1000)
})

test('a slow reading skips beats instead of queueing them', async () => {
  let monotonicMs = 0
  const clock: Clock = { wallMs: () => 1_800_000_000_000 + monotonicMs, monotonicMs: () => monotonicMs }
  const run = start({
    read() {
      monotonicMs += 95
      return [reading({})]
    },
    clock,
    intervalMs: 10,
  })
  await until('there are five samples', () => run.records.length >= 5)
  await run.end()
  const times = run.events().map((event) => Date.parse(String(event['ts'])))
  for (let i = 1; i < times.length; i++) assert.equal(times[i]! - times[i - 1]!, 95, 'one reading, one time')
})

test('a clock that is set back is said and survived: ids stay unique, times are the clock’s', async () => {
  let wallMs = Date.UTC(2026, 5, 1)
  let monotonicMs = 0
  const clock: Clock = { wallMs: () => wallMs, monotonicMs: () => monotonicMs }
  const run = start({
    read(n) {
      monotonicMs += 10
      wallMs += n === 3 ? -600_000 : 10
      return [reading({})]
    },
    clock,
  })
  await until('it sampled on', () => run.records.length >= 8)
  await run.end()
  const events = run.events()
  assert.equal(new Set(events.map((event) => event['event_id'])).size, events.length)
  const times = events.map((event) => Date.parse(String(event['ts'])))
  assert.equal(times[3]! - times[2]!, -600_000)
  assert.equal(run.state.counters.clockSteps, 1)
  assert.deepEqual(run.lines, ['warn The clock was set back by 600.0 s: samples carry the new time, none is lost'])
  assert.equal(run.state.faults[0]!.part, 'clock')
})

test('of a source that repeats, figures that rest are sampled now and then', async () => {
  for (const [repeats, isSampled] of [
    [true, (count: number) => count === 1],
    [false, (count: number) => count >= 5],
  ] as const) {
    const run = start({ repeats, read: () => [reading({})] })
    await until('five readings were made', () => run.reads() > 5)
    await run.end()
    assert.ok(isSampled(run.records.length), `${run.records.length} samples`)
    assert.ok(run.state.counters.read >= 5)
  }
})
