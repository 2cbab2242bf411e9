// The demo workload against the published figures that it is made from, and against the schemas of the events.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Compile } from 'typebox/compile'
import { checkEvent } from '../../src/domain/events/decode.ts'
import { type GpuSample, GpuSampleSchema, type TokenUsage, TokenUsageSchema } from '../../src/domain/events/event.ts'
import type { DemoService } from '../../src/producers/demo-fleet.ts'
import {
  type DemoEvent,
  type DemoOptions,
  generateDemo,
  PERCENTILES,
  TRACE_SHAPES,
} from '../../src/producers/demo-workload.ts'

const START_MS = Date.UTC(2026, 0, 5, 8)
const HOUR_MS = 3_600_000
const SEEDS = [0, 1, 2, 7, 42, 123_456_789, -5]

test('an hour of each service has the published quantiles and number of requests, whatever the seed', async (t) => {
  for (const seed of SEEDS) {
    const usage = usageOf(eventsUntil({ seed, startMs: START_MS, sampleIntervalMs: 60_000 }, HOUR_MS))
    for (const service of ['code', 'conversation'] as const) {
      await t.test(`seed ${seed}, ${service}`, () => compareWithTrace(usage, service))
    }
  }
})

test('each minute has the published number of requests, and the minutes begin again after the last one', () => {
  const usage = usageOf(eventsUntil({ seed: 3, startMs: START_MS, sampleIntervalMs: 60_000 }, HOUR_MS * 2))
  for (const service of ['code', 'conversation'] as const) {
    const counts = new Array<number>(120).fill(0)
    for (const event of ofService(usage, service)) counts[Math.floor((msOf(event) - START_MS) / 60_000)]!++
    const published = TRACE_SHAPES[service].requestsPerMinute
    assert.deepEqual(
      counts,
      counts.map((_, minute) => published[minute % published.length]),
      service,
    )
  }
})

test('every event obeys its schema and bounds, comes in event-time order and has an id of its own', () => {
  const validators = { gpu: Compile(GpuSampleSchema), token: Compile(TokenUsageSchema) }
  const ids = new Set<string>()
  let events = 0
  let lastMs = START_MS
  for (const { topic, event } of eventsUntil({ seed: 11, startMs: START_MS }, HOUR_MS / 4)) {
    assert.ok(validators[topic].Check(event), JSON.stringify(event))
    assert.equal(checkEvent(topic, { ...event }, msOf(event)), null)
    assert.ok(msOf(event) >= lastMs, `${event.event_id} is before the event before it`)
    lastMs = msOf(event)
    ids.add(event.event_id!)
    events++
  }
  assert.ok(events > 10_000)
  assert.equal(ids.size, events)
})

test('token events tell who, where and how long, and sometimes of cached tokens', () => {
  const usage = usageOf(eventsUntil({ seed: 5, startMs: START_MS, sampleIntervalMs: 60_000 }, HOUR_MS / 4))
  const modelsOf = (service: DemoService) => new Set(ofService(usage, service).map((event) => event.model))
  assert.equal(modelsOf('code').size, 1)
  assert.equal(modelsOf('conversation').size, 2)
  assert.equal(modelsOf('conversation').has([...modelsOf('code')][0]!), false)
  assert.ok([3, 4].includes(new Set(usage.map((event) => event.tenant)).size))
  assert.ok(usage.some((event) => event.gpus?.length === 2))
  for (const event of usage) {
    assert.ok((event.gpu_index === undefined) !== (event.gpus === undefined))
    assert.equal(event.latency_ms, event.prefill_ms! + event.decode_ms!)
    assert.ok((event.cached_prompt_tokens ?? 0) <= event.prompt_tokens)
  }
  const cachedShare = usage.filter((event) => event.cached_prompt_tokens !== undefined).length / usage.length
  assert.ok(cachedShare > 0.1 && cachedShare < 0.6, `${cachedShare}`)
})

test('six GPUs of three prices on three hosts are sampled once an interval; one is always idle', () => {
  const samples = samplesOf(eventsUntil({ seed: 5, startMs: START_MS }, 600_000))
  const bySlot = Map.groupBy(samples, (sample) => `${sample.host}/${sample.gpu_index}`)
  assert.equal(bySlot.size, 6)
  assert.equal(new Set(samples.map((sample) => sample.uuid)).size, 6)
  assert.equal(new Set(samples.map((sample) => sample.price_per_hour_usd)).size, 3)
  assert.equal(new Set(samples.map((sample) => sample.host)).size, 3)
  const idle = [...bySlot.values()].filter((slot) => slot.every((sample) => sample.utilization === 0))
  assert.equal(idle.length, 1)
  for (const slot of bySlot.values()) {
    assert.equal(slot.length, 600)
    for (const [i, sample] of slot.entries()) {
      assert.equal(msOf(sample), START_MS + i * 1000)
      assert.ok(sample.mem_used_mb! <= sample.mem_total_mb!)
      if (i > 0) {
        const gainedJ = sample.energy_j! - slot[i - 1]!.energy_j!
        assert.ok(Math.abs(gainedJ - sample.power_w!) < 0.2, `${gainedJ} J in a second at ${sample.power_w} W`)
      }
    }
  }
})

test('utilization and power follow the load: minutes with more requests are busier', () => {
  const events = [...eventsUntil({ seed: 9, startMs: START_MS }, 16 * 60_000)]
  const meanOf = (minute: number) => {
    const slot = samplesOf(events).filter((sample) => {
      return sample.host === 'demo-a100' && Math.floor((msOf(sample) - START_MS) / 60_000) === minute
    })
    return {
      utilization: slot.reduce((sum, sample) => sum + sample.utilization!, 0) / slot.length,
      powerW: slot.reduce((sum, sample) => sum + sample.power_w!, 0) / slot.length,
    }
  }
  // Requests of the code service in these minutes: 0, 130 and 632.
  const [silent, some, full] = [13, 5, 14].map(meanOf) as [Mean, Mean, Mean]
  assert.ok(silent.utilization < 0.02 && some.utilization > silent.utilization && full.utilization > 0.5)
  assert.ok(silent.powerW < some.powerW && some.powerW < full.powerW)
})

test('the same options give the same events, another seed or start other ids, and sampling does not move tokens', () => {
  const options = { seed: 1, startMs: START_MS }
  const events = [...eventsUntil(options, 120_000)]
  assert.deepEqual([...eventsUntil(options, 120_000)], events)
  assert.deepEqual(usageOf(eventsUntil({ ...options, sampleIntervalMs: 7000 }, 120_000)), usageOf(events))
  const ids = new Set(events.map(({ event }) => event.event_id))
  for (const other of [
    { seed: 2, startMs: START_MS },
    { seed: 1, startMs: START_MS + 1 },
  ]) {
    for (const { event } of eventsUntil(other, 120_000)) assert.ok(!ids.has(event.event_id))
  }
})

test('options out of their bounds are refused by name', () => {
  for (const [options, name] of [
    [{ seed: 0.5, startMs: 0 }, 'seed'],
    [{ seed: 1, startMs: -1 }, 'startMs'],
    [{ seed: 1, startMs: 0, sampleIntervalMs: 0 }, 'sampleIntervalMs'],
  ] as const) {
    assert.throws(() => generateDemo(options), { name: 'RangeError', message: new RegExp(name) })
  }
})

interface Mean {
  utilization: number
  powerW: number
}

function compareWithTrace(usage: readonly TokenUsage[], service: DemoService): void {
  const shape = TRACE_SHAPES[service]
  const events = ofService(usage, service)
  const times = events.map(msOf)
  const inTrace = shape.requestsPerMinute.reduce((sum, count) => sum + count, 0)
  assertNear(events.length, inTrace, 0.05, 'number of requests')
  for (const [name, values, published] of [
    ['input', events.map((event) => event.prompt_tokens), shape.inputTokens],
    ['output', events.map((event) => event.completion_tokens), shape.outputTokens],
    ['gap', times.slice(1).map((time, i) => time - times[i]!), shape.gapMs],
  ] as const) {
    const sorted = values.toSorted((a, b) => a - b)
    for (const percentile of [0.5, 0.9]) {
      const made = sorted[Math.floor(sorted.length * percentile)]!
      assertNear(made, published[PERCENTILES.indexOf(percentile)]!, 0.1, `${name} p${percentile * 100}`)
    }
  }
}

function assertNear(value: number, expected: number, tolerance: number, what: string): void {
  assert.ok(
    Math.abs(value / expected - 1) <= tolerance,
    `${what} is ${value}, expected ${expected} ± ${tolerance * 100} %`,
  )
}

function* eventsUntil(options: DemoOptions, durationMs: number): Generator<DemoEvent> {
  for (const item of generateDemo(options)) {
    if (msOf(item.event) >= options.startMs + durationMs) return
    yield item
  }
}

function usageOf(events: Iterable<DemoEvent>): TokenUsage[] {
  return [...events].flatMap((item) => (item.topic === 'token' ? [item.event] : []))
}

function samplesOf(events: Iterable<DemoEvent>): GpuSample[] {
  return [...events].flatMap((item) => (item.topic === 'gpu' ? [item.event] : []))
}

function ofService(usage: readonly TokenUsage[], service: DemoService): TokenUsage[] {
  return usage.filter((event) => event.request_id!.startsWith(`${service}-`))
}

function msOf(event: { ts: string | number }): number {
  return Date.parse(event.ts as string)
}
