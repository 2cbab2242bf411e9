// POST /api/v1/events: what is taken goes into the log byte for byte, what is not is named with its place, and nothing
// is answered with 202 that the log does not have.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { FastifyInstance, InjectOptions } from 'fastify'
import { LogError } from '../../src/log/event-log.ts'
import { badRecords, goodSample, goodToken } from '../bad-records.ts'
import { NOW_MS, openServer, replacing, TOPICS } from './fixture.ts'

const JSON_TYPE = { 'content-type': 'application/json' }
const STRUCTURED = { 'content-type': 'application/cloudevents+json; charset=utf-8' }
const BATCH = { 'content-type': 'application/cloudevents-batch+json' }

function post(app: FastifyInstance, payload: string | Buffer, options: InjectOptions = {}) {
  const headers = { ...JSON_TYPE, ...options.headers }
  return app.inject({ method: 'POST', url: '/api/v1/events', payload, ...options, headers })
}

function envelope(id: string, type: string, data: unknown): Record<string, unknown> {
  return { specversion: '1.0', id, source: '/gateway', type, data }
}

test('one event goes into the topic of its kind, byte for byte, keyed by host', async (t) => {
  const { app, appended } = await openServer(t)
  const token = ` ${JSON.stringify(goodToken(NOW_MS, { note: 'späť ✓', big: '@' })).replace('"@"', '12345678901234567.890')}\n`
  const sample = JSON.stringify(goodSample(NOW_MS, { host: undefined }))
  for (const text of [token, sample]) {
    const answer = await post(app, text)
    assert.deepEqual([answer.statusCode, answer.json()], [202, { accepted: 1 }])
  }
  assert.deepEqual(
    appended.map(({ topic, record }) => ({ topic, ...record, value: record.value?.toString() })),
    [
      { topic: TOPICS.token, key: 'h1', value: token },
      { topic: TOPICS.metric, key: null, value: sample },
    ],
  )
})

test('an array goes into both topics in order, each event as it was written', async (t) => {
  const { app, appended } = await openServer(t)
  const texts = [
    JSON.stringify(goodToken(NOW_MS, { note: 'a],[{"\\' })),
    JSON.stringify(goodSample(NOW_MS), null, 2),
    JSON.stringify(goodToken(NOW_MS, { extra: [[1], { a: '"' }], big: '@' })).replace('"@"', '1e40'),
  ]
  const answer = await post(app, `\n[ ${texts.join(' ,\n')} ]`)
  assert.deepEqual([answer.statusCode, answer.json()], [202, { accepted: 3 }])
  const valuesOf = (topic: string) =>
    appended.filter((each) => each.topic === topic).map(({ record }) => record.value?.toString())
  assert.deepEqual(valuesOf(TOPICS.token), [texts[0], texts[2]])
  assert.deepEqual(valuesOf(TOPICS.metric), [texts[1]])
})

test('an empty array is taken and changes nothing', async (t) => {
  const { app, appended } = await openServer(t)
  assert.deepEqual((await post(app, ' [ ] ')).json(), { accepted: 0 })
  assert.deepEqual(appended, [])
})

test('CloudEvents go into the log as its binding has them: structured, batch and binary', async (t) => {
  const { app, appended } = await openServer(t)
  const one = JSON.stringify(envelope('1', 'com.example.token.usage.v1', goodToken(NOW_MS)))
  const two = JSON.stringify(envelope('2', 'gpu.metrics.v1', goodSample(NOW_MS, { model: 'a field of its own' })))
  const bare = JSON.stringify(goodSample(NOW_MS))
  assert.equal((await post(app, one, { headers: STRUCTURED })).statusCode, 202)
  assert.deepEqual((await post(app, `[${one},${two}]`, { headers: BATCH })).json(), { accepted: 2 })
  const binary = {
    'ce-specversion': '1.0',
    'ce-id': '3',
    'ce-source': '/caf%C3%A9',
    'ce-type': 'other',
    'ce-time': 'x',
  }
  assert.equal((await post(app, bare, { headers: binary })).statusCode, 202)
  const structured = { 'content-type': 'application/cloudevents+json' }
  const ceHeaders = { ce_specversion: '1.0', ce_id: '3', ce_source: '/café', ce_type: 'other', ce_time: 'x' }
  assert.deepEqual(
    appended.map(({ topic, record }) => [topic, record.value?.toString(), record.headers]),
    [
      [TOPICS.token, one, structured],
      [TOPICS.metric, two, structured],
      [TOPICS.token, one, structured],
      [TOPICS.metric, bare, { 'content-type': 'application/json', ...ceHeaders }],
    ],
  )
})

test('quoted and percent-encoded header values of a CloudEvent are one event with the plain ones', async (t) => {
  const { app, appended } = await openServer(t)
  const bare = JSON.stringify(goodSample(NOW_MS))
  const plain = { 'ce-specversion': '1.0', 'ce-id': 'q"1', 'ce-source': '/my src', 'ce-type': 't' }
  const quoted = { 'ce-specversion': '"1.0"', 'ce-id': '"q\\"1"', 'ce-source': '"/my src"', 'ce-type': '"t"' }
  const encoded = { 'ce-specversion': '1.0', 'ce-id': 'q%221', 'ce-source': '/my%20src', 'ce-type': 't' }
  for (const headers of [plain, quoted, encoded]) assert.equal((await post(app, bare, { headers })).statusCode, 202)
  for (const { record } of appended) assert.deepEqual(record.headers, appended[0]!.record.headers)
  assert.deepEqual([appended.length, appended[0]!.record.headers?.['ce_id']], [3, 'q"1'])
  const invalid = await post(app, bare, { headers: { ...plain, 'ce-id': '%FF' } })
  assert.deepEqual([invalid.statusCode, invalid.json().errors[0].reason], [400, 'bad_cloudevent'])
})

test('a stray ce- header leaves a plain event plain, and an envelope is one without its content type', async (t) => {
  const { app, appended } = await openServer(t)
  const stray = { headers: { 'ce-knativeerrordest': 'x' } }
  assert.equal((await post(app, JSON.stringify(goodToken(NOW_MS, { tenant: null })), stray)).statusCode, 202)
  const data = goodToken(NOW_MS, { ts: undefined })
  const untimed = { ...envelope('1', 'x.token.usage.v1', data), time: new Date(NOW_MS).toISOString() }
  assert.equal((await post(app, JSON.stringify(untimed))).statusCode, 202)
  assert.deepEqual(
    appended.map(({ record }) => record.headers),
    [undefined, { 'content-type': 'application/cloudevents+json' }],
  )
})

test('?collection= decides the kind, whatever the shape looks like', async (t) => {
  const { app, appended } = await openServer(t)
  const sample = JSON.stringify(goodSample(NOW_MS, { model: 'looks like token usage' }))
  assert.equal((await post(app, sample)).statusCode, 400)
  assert.equal((await post(app, sample, { query: { collection: 'gpu_metrics' } })).statusCode, 202)
  assert.deepEqual(
    appended.map(({ topic }) => topic),
    [TOPICS.metric],
  )
  assert.equal((await post(app, sample, { query: { collection: 'gpus' } })).statusCode, 400)
})

test('every bad record is answered with a 4xx that names its reason, and nothing of it is taken', async (t) => {
  const { app, appended } = await openServer(t)
  const tried = badRecords(NOW_MS).filter(({ value, name }) => value !== null && !name.endsWith('array as root'))
  for (const { name, topic, value, reason, headers = {} } of tried) {
    const query = { collection: topic === 'gpu' ? 'gpu_metrics' : 'token_usage' }
    const sent = Object.fromEntries(
      Object.entries(headers).map(([key, each]) => [key.replace('ce_', 'ce-'), each.toString('latin1')]),
    )
    const answer = await post(app, value!, { query, headers: sent })
    assert.equal(answer.statusCode, 400, name)
    assert.equal(answer.headers['content-type'], 'application/problem+json; charset=utf-8', name)
    const { errors } = answer.json() as { errors: { reason: string }[] }
    assert.ok(
      errors.some((issue) => issue.reason === reason),
      `${name}: ${JSON.stringify(errors).slice(0, 300)}`,
    )
  }
  assert.ok(tried.length > 100)
  assert.deepEqual(appended, [])
})

test('the bad ones of an array are named with index and path, and none of it is taken', async (t) => {
  const { app, appended } = await openServer(t)
  const events = [
    goodToken(NOW_MS),
    goodToken(NOW_MS, { prompt_tokens: '7' }),
    7,
    goodSample(NOW_MS, { utilization: 70 }),
    goodToken(NOW_MS, { ts: '1970-01-01T00:00:00Z' }),
  ]
  const answer = await post(app, JSON.stringify(events))
  const problem = answer.json() as { detail: string; errors: { path: string; reason: string; message: string }[] }
  assert.equal(answer.statusCode, 400)
  assert.match(problem.detail, /^4 of 5 events are wrong, nothing was taken/)
  assert.deepEqual(
    problem.errors.map(({ path, reason }) => [path, reason]),
    [
      ['/1/prompt_tokens', 'wrong_type'],
      ['/2', 'not_an_object'],
      ['/3/utilization', 'out_of_range'],
      ['/4/ts', 'too_old'],
    ],
  )
  assert.match(problem.errors[2]!.message, /per cent/)
  assert.deepEqual(appended, [])
})

test('the bad event of a batch is named inside its envelope', async (t) => {
  const { app } = await openServer(t)
  const events = [envelope('1', 't', goodToken(NOW_MS, { model: '' })), { specversion: '0.3' }]
  const { errors } = (await post(app, JSON.stringify(events), { headers: BATCH })).json()
  assert.deepEqual(
    errors.map(({ path, reason }: { path: string; reason: string }) => [path, reason]),
    [
      ['/0/data/model', 'out_of_range'],
      ['/1', 'bad_cloudevent'],
    ],
  )
})

test('an answer lists a hundred issues and counts the rest', async (t) => {
  const { app } = await openServer(t)
  const problem = (await post(app, JSON.stringify(Array.from({ length: 250 }, () => 1)))).json()
  assert.deepEqual([problem.errors.length, problem.errors_omitted], [100, 150])
})

test('bodies that are no events are refused: the right status for each', async (t) => {
  const { app, appended } = await openServer(t)
  const event = JSON.stringify(goodToken(NOW_MS))
  const binary = { 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': 's', 'ce-type': 't' }
  const cases: [string, string | Buffer, Record<string, string>, number][] = [
    ['empty', '', JSON_TYPE, 400],
    ['blank', ' \n', JSON_TYPE, 400],
    ['not UTF-8', Buffer.from([0x7b, 0xff, 0x7d]), JSON_TYPE, 400],
    ['not UTF-8 in an array', Buffer.from([0x5b, 0xff, 0x5d]), JSON_TYPE, 400],
    ['truncated array', `[${event}`, JSON_TYPE, 400],
    ['nested array', `[[${event}]]`, JSON_TYPE, 400],
    ['arrays nested 1,000,000 deep', '['.repeat(1e6) + ']'.repeat(1e6), JSON_TYPE, 400],
    ['arrays never closed', '['.repeat(1e6), JSON_TYPE, 400],
    ['an event over 1 MiB', JSON.stringify(goodToken(NOW_MS, { x: 'x'.repeat(1_048_576) })), JSON_TYPE, 413],
    ['a body over 8 MiB', Buffer.alloc(8 * 1024 * 1024 + 1, 0x20), JSON_TYPE, 413],
    ['10,001 events', `[${'1,'.repeat(10_000)}1]`, JSON_TYPE, 413],
    ['array as one CloudEvent', `[${event}]`, STRUCTURED, 400],
    ['one event as batch', event, BATCH, 400],
    ['array with ce-* headers', `[${event}]`, { ...JSON_TYPE, ...binary }, 400],
    ['ce-* headers without id', event, { ...JSON_TYPE, 'ce-specversion': '1.0' }, 400],
    ['text', event, { 'content-type': 'text/plain' }, 415],
    ['a form', event, { 'content-type': 'application/x-www-form-urlencoded' }, 415],
    ['a name of Object.prototype', event, { 'content-type': 'constructor' }, 415],
    ['UTF-16', event, { 'content-type': 'application/json; charset=utf-16' }, 415],
    ['compressed', event, { ...JSON_TYPE, 'content-encoding': 'gzip' }, 415],
  ]
  for (const [name, body, headers, status] of cases) {
    const answer = await post(app, body, { headers })
    assert.equal(answer.statusCode, status, `${name}: ${answer.body}`)
    assert.match(String(answer.headers['content-type']), /^application\/problem\+json/, name)
    assert.deepEqual([answer.json().status, typeof answer.json().detail], [status, 'string'], name)
  }
  const untyped = await app.inject({ method: 'POST', url: '/api/v1/events' })
  assert.equal(untyped.statusCode, 415)
  assert.deepEqual(appended, [])
})

test('events are measured against the clock: one hour ahead is taken, more is not', async (t) => {
  const { app } = await openServer(t)
  assert.equal((await post(app, JSON.stringify(goodToken(NOW_MS + 3_600_000)))).statusCode, 202)
  assert.equal((await post(app, JSON.stringify(goodToken(NOW_MS + 3_600_001)))).statusCode, 400)
})

test('while the log does not take it the answer is 503 with Retry-After, and says nothing of the log inside', async (t) => {
  for (const error of [
    new LogError('secret broker name', { retriable: true }),
    new LogError('secret', { retriable: false }),
  ]) {
    const { app, logged } = await openServer(t, ({ log }) => ({
      log: replacing(log, { append: () => Promise.reject(error) }),
    }))
    const answer = await post(app, JSON.stringify(goodToken(NOW_MS)))
    assert.deepEqual([answer.statusCode, answer.headers['retry-after']], [503, '5'])
    assert.equal(answer.json().type, 'urn:pertoken:problem:log-unavailable')
    assert.doesNotMatch(answer.body, /secret/)
    assert.deepEqual(
      logged.map(({ level }) => level),
      ['warn'],
    )
  }
})

test('202 comes only after the log has confirmed', async (t) => {
  const confirm = Promise.withResolvers<void>()
  const asked = Promise.withResolvers<void>()
  const append = () => {
    asked.resolve()
    return confirm.promise
  }
  const { app } = await openServer(t, ({ log }) => ({ log: replacing(log, { append }) }))
  let isAnswered = false
  const answer = post(app, JSON.stringify(goodToken(NOW_MS))).finally(() => {
    isAnswered = true
  })
  await asked.promise
  await new Promise(setImmediate)
  assert.equal(isAnswered, false)
  confirm.resolve()
  assert.equal((await answer).statusCode, 202)
})

test('only programs on this machine may post: address, Host, Origin and proxies', async (t) => {
  const { app, appended } = await openServer(t)
  const attempt = (options: InjectOptions) => post(app, JSON.stringify(goodToken(NOW_MS)), options)
  const allowed: InjectOptions[] = [
    {},
    { remoteAddress: '::1', headers: { host: '[::1]:8080' } },
    { remoteAddress: '::ffff:127.0.0.1', headers: { host: '127.0.0.1' } },
    { headers: { host: 'LocalHost:8080', origin: 'http://localhost:8080' } },
  ]
  for (const options of allowed) assert.equal((await attempt(options)).statusCode, 202, JSON.stringify(options))
  const refused: InjectOptions[] = [
    { remoteAddress: '192.168.1.5' },
    { remoteAddress: '::ffff:10.0.0.1' },
    { headers: { host: 'rebound.attacker.example' } },
    { headers: { host: 'localhost.attacker.example' } },
    { headers: { host: '127.0.0.1.nip.example:8080' } },
    { headers: { host: 'localhost:8080@attacker.example' } },
    { headers: { host: '192.168.1.5:8080' } },
    { headers: { host: 'localhost:8080', origin: 'http://attacker.example' } },
    { headers: { host: 'localhost:8080', origin: 'http://localhost:3000' } },
    { headers: { host: 'localhost:8080', origin: 'null' } },
    { headers: { 'x-forwarded-for': '203.0.113.9' } },
    { headers: { forwarded: 'for=203.0.113.9' } },
  ]
  for (const options of refused) {
    const answer = await attempt(options)
    assert.equal(answer.statusCode, 403, JSON.stringify(options))
    assert.equal(answer.json().type, 'urn:pertoken:problem:forbidden')
  }
  assert.equal(appended.length, allowed.length)
})

test('no site may read or write across origins: there is no CORS and a preflight is refused', async (t) => {
  const { app } = await openServer(t)
  const headers = { origin: 'http://attacker.example', 'access-control-request-method': 'POST' }
  const answer = await app.inject({ method: 'OPTIONS', url: '/api/v1/events', headers })
  assert.equal(answer.statusCode, 405)
  assert.equal(answer.headers['access-control-allow-origin'], undefined)
})

test('posts that are worked on at once are bounded, and each gives its place back', async (t: TestContext) => {
  const confirm = Promise.withResolvers<void>()
  const { app } = await openServer(t, ({ log }) => ({ log: replacing(log, { append: () => confirm.promise }) }))
  const event = JSON.stringify(goodToken(NOW_MS))
  const waiting = Array.from({ length: 33 }, () => post(app, event))
  const first = await Promise.race(waiting)
  assert.deepEqual([first.statusCode, first.json().type], [503, 'urn:pertoken:problem:overloaded'])
  confirm.resolve()
  const statuses = (await Promise.all(waiting)).map(({ statusCode }) => statusCode)
  assert.equal(statuses.filter((status) => status === 202).length, 32)
  for (let i = 0; i < 40; i++) assert.equal((await post(app, event)).statusCode, 202)
})

for (const field of ['ts', 'model', 'prompt_tokens', 'extra', 'gpus']) {
  // typebox walks the values of a uniqueItems array by recursion: domain/decode.ts has to refuse these before it.
  test(`${field} nested 10,000 deep is refused like any other wrong value`, async (t) => {
    const { app } = await openServer(t)
    const deep = '['.repeat(10_000) + ']'.repeat(10_000)
    const answer = await post(app, JSON.stringify(goodToken(NOW_MS, { [field]: '@' })).replace('"@"', deep))
    assert.equal(answer.statusCode, 400, answer.body)
  })
}
