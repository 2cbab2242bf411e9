// What orchestrators and monitoring see: health, readiness, metrics, the OpenAPI document, headers.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { boundedModels } from '../../src/http/metrics/metrics-route.ts'
import { healthyHealth, liveModel, liveSlot, openServer } from './fixture.ts'

const PROBLEM = { code: 'unreachable', message: 'Cannot reach the log' }

test('/health is 200 while all is well and 503 with what is wrong otherwise; /livez never looks at it', async (t) => {
  const NOTE = { code: 'host_spelling', message: 'Tokens name a host of which no sample came' } as const
  const { app, state, log, store } = await openServer(t, () => ({ notes: () => [NOTE] }))
  const well = await app.inject('/health')
  assert.equal(well.statusCode, 200)
  const where = { log: log.description, store: store.description, version: '1.2.3', uptime_s: 0 }
  assert.deepEqual(well.json(), { ...healthyHealth(), notes: [NOTE], ...where })
  for (const status of ['error', 'starting', 'draining', 'stopped'] as const) {
    state.health = { ...healthyHealth(), status, problems: [PROBLEM] }
    const answer = await app.inject('/health')
    assert.equal(answer.statusCode, 503)
    assert.deepEqual([answer.json().status, answer.json().problems], [status, [PROBLEM]])
    assert.equal((await app.inject('/livez')).statusCode, 200)
  }
})

test('/readyz waits for the first good moment, outlives an outage, and ends with the drain', async (t) => {
  const { app, state } = await openServer(t)
  const steps = [
    ['starting', 503],
    ['error', 503],
    ['ok', 200],
    ['error', 200],
    ['draining', 503],
    ['stopped', 503],
  ] as const
  for (const [status, expected] of steps) {
    state.health = { ...healthyHealth(), status }
    assert.equal((await app.inject('/readyz')).statusCode, expected, status)
  }
})

test('/metrics shows outcomes, lag and live figures as they are now', async (t) => {
  const { app, state } = await openServer(t)
  const rejected = { not_json: 2, too_old: 1 }
  const outcomes = { read: 16, stored: 10, duplicate: 3, late: 4, rejected: 3, rejected_by_reason: rejected }
  state.health = { ...healthyHealth(), outcomes, lag: 7, open_steps: 2, slots: 2 }
  state.live.models = [liveModel('llama', 40, 2.5), liveModel('idle', 0, null)]
  state.live.slots = [liveSlot('h"1\n', 0), liveSlot(null, 1, { utilization: null })]
  const text = (await app.inject('/metrics')).body
  const lines = text.split('\n').filter((line) => line.startsWith('pertoken_'))
  assert.deepEqual(lines.sort(), [
    'pertoken_build_info{version="1.2.3"} 1',
    'pertoken_consumer_lag_records 7',
    'pertoken_cost_per_million_tokens_usd{model="llama",basis="live"} 2.5',
    'pertoken_fleet_cost_per_million_tokens_usd{basis="busy"} 16.666666666666668',
    'pertoken_fleet_cost_per_million_tokens_usd{basis="fully_loaded"} 22.222222222222225',
    'pertoken_fleet_price_per_hour_usd{kind="busy"} 1.2000000000000002',
    'pertoken_fleet_price_per_hour_usd{kind="idle"} 0.4',
    'pertoken_fleet_price_per_hour_usd{kind="uncovered"} 0',
    'pertoken_gpu_price_per_hour_usd{host="",gpu_index="1"} 0.8',
    'pertoken_gpu_price_per_hour_usd{host="h\\"1\\n",gpu_index="0"} 0.8',
    'pertoken_gpu_utilization_ratio{host="h\\"1\\n",gpu_index="0"} 0.5',
    'pertoken_healthy 1',
    'pertoken_live_slots 2',
    'pertoken_live_stale 0',
    'pertoken_records_late_total 4',
    'pertoken_records_rejected_total{reason="not_json"} 2',
    'pertoken_records_rejected_total{reason="too_old"} 1',
    'pertoken_records_total{outcome="duplicate"} 3',
    'pertoken_records_total{outcome="rejected"} 3',
    'pertoken_records_total{outcome="stored"} 10',
    'pertoken_steps_open 2',
    'pertoken_tokens_per_second{model="idle"} 0',
    'pertoken_tokens_per_second{model="llama"} 40',
  ])
  assert.match(text, /^process_resident_memory_bytes \d/m)

  state.health = { ...healthyHealth(), lag: null, status: 'error' }
  state.live = { stale: true, models: [], slots: [] }
  const later = (await app.inject('/metrics')).body
  assert.doesNotMatch(later, /^pertoken_(consumer_lag|cost_per|fleet_cost|tokens_per|gpu_utilization)\S* /m)
  assert.match(later, /^pertoken_healthy 0$/m)
  assert.match(later, /^pertoken_live_stale 1$/m)
})

test('labels are bounded: a hundred models and the sum of the others, a thousand slots', async (t) => {
  const { app, state } = await openServer(t)
  const models = Array.from({ length: 150 }, (_, i) => liveModel(`m${i}`, 1000 - i, 2))
  const bounded = boundedModels([...models, liveModel('other', 50, 4)])
  assert.equal(bounded.length, 101)
  const rest = models.slice(100).reduce((sum, model) => sum + model.tokens_per_second, 0)
  const other = bounded.at(-1)!
  assert.deepEqual([other.model, other.tokens_per_second], ['other', rest + 50])
  assert.ok(Math.abs(other.usd_per_million_tokens! - (rest * 2 + 50 * 4) / (rest + 50)) < 1e-9)

  state.live.models = models
  state.live.slots = Array.from({ length: 1500 }, (_, i) => liveSlot('h', i))
  const lines = (await app.inject('/metrics')).body.split('\n')
  const count = (name: string) => lines.filter((line) => line.startsWith(`${name}{`)).length
  assert.equal(count('pertoken_tokens_per_second'), 101)
  assert.equal(count('pertoken_gpu_utilization_ratio'), 1000)
})

interface OpenApi {
  openapi: string
  info: { title: string; version: string }
  paths: Record<string, Record<string, { summary: string; responses: Record<string, { description: string }> }>>
  components: { schemas: Record<string, unknown> }
}

test('the OpenAPI document is 3.1, lists every route, and its references lead somewhere', async (t) => {
  const { app } = await openServer(t)
  const document = (await app.inject('/openapi.json')).json() as OpenApi
  assert.match(document.openapi, /^3\.1\.\d+$/)
  assert.deepEqual([document.info.title, document.info.version], ['pertoken', '1.2.3'])
  const routes = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  )
  assert.deepEqual(routes.sort(), [
    'GET /api/v1/cost',
    'GET /api/v1/dead-letters',
    'GET /api/v1/dead-letters/{id}',
    'GET /api/v1/events',
    'GET /api/v1/explain',
    'GET /api/v1/gpus',
    'GET /api/v1/live',
    'GET /api/v1/prices',
    'GET /gpu/info',
    'GET /health',
    'GET /livez',
    'GET /metrics',
    'GET /openapi.json',
    'GET /readyz',
    'GET /schemas',
    'GET /schemas/gpu.metrics.v1.json',
    'GET /schemas/token.usage.v1.json',
    'POST /api/v1/events',
    'POST /api/v1/prices',
    'PUT /api/v1/prices',
  ])
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      assert.equal(typeof operation.summary, 'string', `${method} ${path}`)
      assert.ok(Object.keys(operation.responses).length > 0, `${method} ${path}`)
      for (const response of Object.values(operation.responses)) assert.equal(typeof response.description, 'string')
    }
  }
  const text = JSON.stringify(document)
  const references = [...text.matchAll(/"\$ref":"([^"]+)"/g)].map(([, to]) => to!)
  assert.ok(references.length > 0)
  for (const to of references) {
    assert.ok(Object.hasOwn(document.components.schemas, to.replace('#/components/schemas/', '')), to)
  }
  assert.doesNotMatch(text, /"nullable"/)
})

test('/docs is served whole from here: no address of elsewhere in its page or policy', async (t) => {
  const { app } = await openServer(t)
  const index = await app.inject('/docs/')
  assert.equal(index.statusCode, 200)
  assert.doesNotMatch(index.body, /https?:\/\//)
  assert.doesNotMatch(String(index.headers['content-security-policy']), /https?:|script-src[^;]*unsafe/)
  for (const [, path] of index.body.matchAll(/(?:src|href)="\.\/([^"]+)"/g)) {
    assert.equal((await app.inject(`/docs/${path}`)).statusCode, 200, `/docs/${path}`)
  }
})

test('answers carry headers that keep browsers from guessing, framing and caching', async (t) => {
  const { app } = await openServer(t)
  for (const url of ['/', '/health', '/api/v1/live', '/nowhere']) {
    const { headers } = await app.inject(url)
    assert.equal(headers['x-content-type-options'], 'nosniff', url)
    assert.equal(headers['x-frame-options'], 'DENY', url)
    assert.match(String(headers['content-security-policy']), /default-src 'none'/, url)
    assert.doesNotMatch(String(headers['content-security-policy']), /unsafe/, url)
    assert.match(String(headers['cache-control']), /no-store|no-cache/, url)
  }
  const page = (await app.inject('/')).body
  assert.doesNotMatch(page, /<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=/)
})
