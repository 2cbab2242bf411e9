// The agent's pure parts, as tables: model names, samples, what an answer means, how long a pause is, what is shown.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { healthOf, metricsText } from '../../src/agent/agent-server.ts'
import { createState } from '../../src/agent/agent-state.ts'
import { classifyResponse } from '../../src/agent/classify-response.ts'
import { pauseOf } from '../../src/agent/forwarder.ts'
import type { GpuReading } from '../../src/agent/gpu/gpu-source.ts'
import { parseModelNames } from '../../src/agent/model-names.ts'
import { sampleMaker } from '../../src/agent/sampler.ts'
import { checkEvent } from '../../src/domain/events/decode.ts'
import { quietLogger, reading } from './agent-fixture.ts'

const T0 = Date.UTC(2026, 5, 1, 12)

test('--model takes one name, or names by index; all else is refused with what was expected', () => {
  const on = (text: string, gpu: number) => parseModelNames(text)(gpu)
  assert.equal(on('meta-llama/Llama-3.1-8B', 7), 'meta-llama/Llama-3.1-8B')
  assert.equal(on('0=a,1= b =c ', 1), 'b =c', 'only the first = separates')
  assert.equal(on('0=a,1=b', 2), null)
  for (const [text, expected] of [
    ['', /0 characters/],
    ['x'.repeat(257), /257 characters/],
    ['0=a,b', /"b": expected INDEX=NAME/],
    ['0=a,0=b', /GPU 0 twice/],
    ['0=', /0 characters/],
    ['5000=a', /"5000=a"/],
  ] as const) {
    assert.throws(() => parseModelNames(text), { name: 'RangeError', message: expected }, text)
  }
})

test('a sample has what the reading has: null is left out, never 0, and the log takes it', () => {
  const bare: GpuReading = {
    gpuIndex: 3,
    uuid: null,
    name: null,
    utilization: null,
    memUsedMb: null,
    memTotalMb: null,
    powerW: null,
    energyJ: null,
    migProfile: null,
    pricePerHourUsd: null,
  }
  const settings = { host: 'box', source: 'nvml', models: () => null, pricePerHourUsd: null } as const
  const common = { ts: '2026-06-01T12:00:00.000Z', host: 'box', source: 'nvml' }
  assert.deepEqual(sampleMaker(settings, 'r')([bare], T0), [{ ...common, gpu_index: 3, event_id: 'agent-r-0' }])
  const full = sampleMaker(settings, 'r')([reading({ migProfile: '3g.40gb', energyJ: 5, utilization: 0 })], T0)
  assert.deepEqual(full, [
    {
      ...common,
      gpu_index: 0,
      uuid: 'GPU-0',
      name: 'NVIDIA H100',
      utilization: 0,
      mem_used_mb: 1000,
      mem_total_mb: 81_559,
      power_w: 71.15,
      energy_j: 5,
      mig_profile: '3g.40gb',
      event_id: 'agent-r-0',
    },
  ])
  for (const event of [bare, reading({})].flatMap((one) => sampleMaker(settings)([one], T0)))
    assert.equal(checkEvent('gpu', { ...event }, T0), null)
})

test('model and price come from people where they say them; ids are a counter without gaps, of a run of its own', () => {
  const settings = { host: 'box', source: 'seed', models: parseModelNames('1=llama'), pricePerHourUsd: 2.5 } as const
  const make = sampleMaker(settings)
  const readings = [reading({ pricePerHourUsd: 1 }), reading({ gpuIndex: 1 })]
  const events = [...make(readings, T0), ...make(readings, T0 - 60_000)]
  assert.deepEqual(
    events.map(({ model_loaded, price_per_hour_usd }) => [model_loaded, price_per_hour_usd]),
    [
      [undefined, 2.5],
      ['llama', 2.5],
      [undefined, 2.5],
      ['llama', 2.5],
    ],
  )
  const run = events[0]!.event_id!.replace(/-0$/, '')
  assert.deepEqual(
    events.map(({ event_id }) => event_id),
    [0, 1, 2, 3].map((n) => `${run}-${n}`),
  )
  assert.notEqual(sampleMaker(settings)(readings, T0)[0]!.event_id, events[0]!.event_id)
  const own = sampleMaker({ ...settings, pricePerHourUsd: null })(readings, T0)
  assert.equal(own[0]!.price_per_hour_usd, 1, 'the source’s own price, where nobody said another')
})

test('an event is given up only where a pertoken says that this event is wrong; all else keeps the batch', () => {
  const problem = (code: string, more: object = {}) => ({
    headers: { 'content-type': 'application/problem+json' },
    body: JSON.stringify({ type: `urn:pertoken:problem:${code}`, detail: 'what to do', ...more }),
  })
  const plain = { headers: {}, body: '<html>' }
  const person = { kind: 'failed', retryAfterMs: null, needsOperator: true }
  const passing = { kind: 'failed', retryAfterMs: null, needsOperator: false }
  const errors = [
    { path: '/1/ts', message: 'Is late' },
    { path: '/1/host', message: 'twice' },
    { path: '/2', message: 'whole' },
    { path: '/9/ts', message: 'not of this batch' },
    { path: '', message: 'none' },
    null,
  ]
  const refused = [
    { index: 1, message: '/ts: Is late' },
    { index: 2, message: 'event: whole' },
  ]
  const rows: [number, object, number, object, RegExp?][] = [
    [202, { headers: {}, body: '{"accepted":3}' }, 3, { kind: 'taken' }],
    [202, { headers: {}, body: '{"accepted":2}' }, 3, person, /without having taken all 3/],
    [200, { headers: {}, body: '{"accepted":3}' }, 3, person, /not what a pertoken answers/],
    [200, plain, 3, person, /check the address/],
    [400, problem('bad-event', { errors }), 3, { kind: 'rejected', rejected: refused }],
    [400, problem('bad-event'), 3, { kind: 'too-large' }],
    [400, problem('bad-event'), 1, { kind: 'rejected', rejected: [{ index: 0, message: 'what to do' }] }],
    [400, problem('bad-parameter', { errors }), 3, person, /what to do/],
    [400, plain, 1, person],
    [400, { ...problem('bad-event', { errors }), headers: { 'content-type': 'text/html' } }, 3, person],
    [401, problem('unauthorized'), 3, person, /token is missing, wrong.*what to do/],
    [403, problem('missing-scope'), 3, person, /scope ingest.*what to do/],
    [404, plain, 3, person],
    [413, plain, 3, { kind: 'too-large' }],
    [413, plain, 1, person],
    [413, problem('too-large'), 1, { kind: 'rejected', rejected: [{ index: 0, message: 'what to do' }] }],
    [301, { headers: { location: 'https://other/' }, body: '' }, 3, person, /redirects are not followed.*other/],
    [429, { headers: { 'retry-after': '7' }, body: '' }, 3, { ...passing, retryAfterMs: 7000 }],
    [
      503,
      { headers: { 'retry-after': new Date(T0 + 9000).toUTCString() }, body: '' },
      3,
      { ...passing, retryAfterMs: 9000 },
    ],
    [503, { headers: { 'retry-after': 'soon' }, body: '' }, 3, passing, /come again later/],
    [503, problem('log-unavailable'), 3, passing, /what to do/],
    [500, plain, 3, passing],
    [408, plain, 3, passing],
  ]
  for (const [status, answer, count, expected, message] of rows) {
    const { message: text, ...meaning } = classifyResponse({ status, headers: {}, body: '', ...answer }, count, T0) as {
      kind: string
      message?: string
    }
    assert.deepEqual(meaning, expected, `${status} ${JSON.stringify(answer)}`)
    if (message !== undefined) assert.match(text!, message)
  }
})

test('pauses grow to a bound, are spread by luck, follow Retry-After, and are long where a person is needed', () => {
  const passing = { retryAfterMs: null, needsOperator: false }
  for (const [answer, failures, luck, expected] of [
    [passing, 1, 0, 250],
    [passing, 1, 1, 500],
    [passing, 4, 1, 4000],
    [passing, 1000, 1, 30_000],
    [{ retryAfterMs: null, needsOperator: true }, 1, 1, 60_000],
    [{ retryAfterMs: 7000, needsOperator: false }, 9, 0, 7000],
    [{ retryAfterMs: 0, needsOperator: false }, 1, 0, 500],
    [{ retryAfterMs: 1e9, needsOperator: false }, 1, 0, 600_000],
  ] as const) {
    assert.equal(pauseOf(answer, failures, luck), expected)
  }
})

test('a problem is logged when it begins and when it is over, and not for each repeat in between', () => {
  const { lines, logger } = quietLogger()
  let nowMs = T0
  const state = createState(logger, () => nowMs)
  state.report('sink', ['away'])
  state.report('sink', ['away'])
  state.report('source', ['GPU 1 is gone', 'GPU 2 is gone'])
  assert.deepEqual(
    state.faults.map(({ part, message, sinceMs }) => [part, message, sinceMs - T0]),
    [
      ['sink', 'away', 0],
      ['source', 'GPU 1 is gone', 0],
      ['source', 'GPU 2 is gone', 0],
    ],
  )
  state.report('source', ['GPU 2 is gone'])
  state.report('sink', [])
  for (let i = 0; i < 100; i++) {
    state.report('sink', ['away'])
    state.report('sink', [])
  }
  assert.deepEqual(lines, ['warn away', 'warn GPU 1 is gone', 'warn GPU 2 is gone', 'info Over: away'])
  nowMs += 61_000
  state.report('sink', ['away'], 'error')
  assert.equal(lines.at(-1), 'error away')
})

test('a notice is logged once, whatever numbers it has, and is no problem', () => {
  const { lines, logger } = quietLogger()
  const state = createState(logger, () => T0)
  for (let pid = 0; pid < 10; pid++)
    state.note([`line "[Msg(${pid}:libvgpu.c:837)]: Init"`, `line "[Msg(${pid}:libvgpu.c:9)]: Init"`])
  assert.deepEqual(lines, ['warn line "[Msg(0:libvgpu.c:837)]: Init"', 'warn line "[Msg(0:libvgpu.c:9)]: Init"'])
  assert.deepEqual([state.faults, state.notices.length], [[], 2])
  state.note([])
  assert.deepEqual(state.notices, [])
})

test('/metrics is Prometheus text with every name once, /health says what is wrong', () => {
  const state = createState(quietLogger().logger, () => T0)
  const view = { state, source: 'nvml', sink: 'kafka', spool: { status: async () => ({ records: 0, bytes: 0 }) } }
  const whole = { ...view, maxSpoolBytes: 1024, version: '1.2.3' }
  assert.equal((healthOf(whole, null) as { status: string }).status, 'starting')
  Object.assign(state.counters, { read: 5, sent: 3 })
  state.lastReadMs = state.lastSentMs = T0
  const text = metricsText(whole, { records: 2, bytes: 4096 })
  const samples = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  const names = samples.map((line) => /^(pertoken_agent_[a-z_]+)(\{[^}]*\})? -?[\d.e+]+$/.exec(line)?.[1])
  assert.ok(!names.includes(undefined), text)
  assert.equal(new Set(names).size, names.length)
  for (const name of names) assert.match(text, new RegExp(`# TYPE ${name} (counter|gauge)\n`))
  for (const line of [
    'pertoken_agent_info{version="1.2.3",source="nvml"} 1',
    'pertoken_agent_samples_read_total 5',
    'pertoken_agent_samples_sent_total 3',
    'pertoken_agent_spool_records 2',
    `pertoken_agent_last_sent_timestamp_seconds ${T0 / 1000}`,
  ])
    assert.ok(samples.includes(line), line)
  state.report('sink', ['away'])
  const health = healthOf(whole, { records: 2, bytes: 4096 }) as Record<string, unknown>
  assert.equal(health['status'], 'error')
  assert.deepEqual(health['problems'], [{ part: 'sink', message: 'away', since: '2026-06-01T12:00:00.000Z' }])
})
