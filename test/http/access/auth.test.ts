// Who may do what: every route has a scope, every kind of caller meets every route, and what is refused says why and
// what to do. Expiry, removal, foreign origins, and what happens when there are no tokens at all.

import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import Fastify, { type InjectOptions } from 'fastify'
import { addAuth, DENIAL_REASONS } from '../../../src/http/access/auth.ts'
import { goodSample } from '../../bad-records.ts'
import { NOW_MS, openServer } from '../fixture.ts'
import { accessOf, bearer, makeToken, writeTokens } from './tokens-fixture.ts'

/** Every route of the server; a new one gets a line here. */
const ROUTES: Record<string, string> = {
  'GET /health': 'probe',
  'GET /livez': 'probe',
  'GET /readyz': 'probe',
  'GET /': 'open',
  'GET /page.js': 'open',
  'GET /page.css': 'open',
  'GET /openapi.json': 'open',
  'GET /schemas': 'open',
  'GET /schemas/gpu.metrics.v1.json': 'open',
  'GET /schemas/token.usage.v1.json': 'open',
  'GET /metrics': 'read',
  'GET /gpu/info': 'read',
  'GET /api/v1/gpus': 'read',
  'GET /api/v1/live': 'read',
  'GET /api/v1/events': 'read',
  'GET /api/v1/cost': 'read',
  'GET /api/v1/prices': 'read',
  'GET /api/v1/explain': 'read',
  'GET /api/v1/dead-letters': 'read',
  'GET /api/v1/dead-letters/:id': 'read',
  'POST /api/v1/events': 'ingest',
  'PUT /api/v1/prices': 'admin',
  'POST /api/v1/prices': 'admin',
}
const SAMPLE = JSON.stringify(goodSample(NOW_MS))
const JSON_TYPE = { 'content-type': 'application/json' }

/** A server with tokens of all kinds. Its clock goes on by a second with each look, so that limits play no part. */
async function openWithTokens(t: TestContext) {
  const tokens = {
    reader: makeToken('reader', ['read']),
    sender: makeToken('sender', ['ingest']),
    both: makeToken('both', ['read', 'ingest']),
    admin: makeToken('admin', ['admin']),
    expired: makeToken('expired', ['admin'], { expiresMs: NOW_MS }),
  }
  const access = accessOf(t, Object.values(tokens), { limits: { requestsPerS: 10, eventsPerS: 100 } })
  let nowMs = NOW_MS
  const fixture = await openServer(t, () => ({ access, now: () => (nowMs += 1000) }))
  return { ...fixture, access, tokens }
}

test('every route has a scope, and it is the one that is written down here', async (t) => {
  const { app } = await openWithTokens(t)
  const declared = [...app.routeScopes].filter(([route]) => !route.startsWith('HEAD ') && !route.includes(' /docs'))
  assert.deepEqual(Object.fromEntries(declared.sort()), Object.fromEntries(Object.entries(ROUTES).sort()))
  for (const [route, scope] of app.routeScopes) {
    if (route.includes(' /docs')) assert.equal(scope, 'open', route)
    else if (route.startsWith('HEAD ')) assert.equal(scope, app.routeScopes.get(route.replace('HEAD', 'GET')), route)
  }
})

test('a route that declares no scope keeps the server from starting', () => {
  const app = Fastify()
  addAuth(app, { now: Date.now })
  assert.throws(() => app.get('/api/v1/new', () => 'x'), /Route GET \/api\/v1\/new declares no scope/)
})

test('every kind of caller meets every route: answered, 401 or 403', async (t) => {
  const { app, tokens } = await openWithTokens(t)
  const may: Record<string, string[]> = {
    nobody: [],
    unknown: [],
    expired: [],
    reader: ['read'],
    sender: ['ingest'],
    both: ['read', 'ingest'],
    admin: ['read', 'ingest', 'admin'],
  }
  const headersOf = (caller: string) =>
    caller === 'nobody' ? {} : bearer(tokens[caller as keyof typeof tokens] ?? makeToken('unknown', ['admin']))
  for (const [route, scope] of Object.entries(ROUTES)) {
    const [method, url] = route.replace(':id', 'x').split(' ') as ['GET' | 'POST' | 'PUT', string]
    for (const [caller, scopes] of Object.entries(may)) {
      const body = method === 'GET' ? {} : { payload: url.endsWith('events') ? SAMPLE : '{}' }
      const headers = { ...(method === 'GET' ? {} : JSON_TYPE), ...headersOf(caller) }
      const { statusCode } = await app.inject({ method, url, headers, ...body })
      const isFree = scope === 'probe' || scope === 'open'
      const expected = isFree || scopes.includes(scope) ? 'answered' : scopes.length === 0 ? 401 : 403
      const found = [401, 403, 429].includes(statusCode) || statusCode >= 500 ? statusCode : 'answered'
      assert.equal(found, expected, `${caller}: ${route}: ${statusCode}`)
    }
  }
})

test('what is refused says why and what to do, as problem details with the challenge of RFC 6750', async (t) => {
  const { app, tokens, access } = await openWithTokens(t)
  const cases: [InjectOptions, number, string, RegExp, string][] = [
    [
      { url: '/api/v1/live' },
      401,
      'unauthorized',
      /has no API token: send Authorization: Bearer TOKEN with a token of scope read/,
      'missing_token',
    ],
    [
      { url: '/api/v1/live', headers: { authorization: 'Basic cHQ6eA==' } },
      401,
      'unauthorized',
      /has no API token/,
      'missing_token',
    ],
    [
      { url: '/api/v1/live', query: { token: tokens.admin.secret } },
      401,
      'unauthorized',
      /has no API token/,
      'missing_token',
    ],
    [
      { url: '/api/v1/live', headers: { authorization: 'Bearer x' } },
      401,
      'unauthorized',
      /wrong or was removed/,
      'unknown_token',
    ],
    [
      { url: '/api/v1/live', headers: bearer(tokens.expired) },
      401,
      'unauthorized',
      /expired at 2026-06-01T12:00:00.000Z/,
      'expired_token',
    ],
    [
      { url: '/api/v1/live', headers: bearer(tokens.sender) },
      403,
      'missing-scope',
      /token "sender" is for ingest: use one of scope read/,
      'missing_scope',
    ],
    [
      { method: 'PUT', url: '/api/v1/prices', headers: bearer(tokens.both) },
      403,
      'missing-scope',
      /for read, ingest: use one of scope admin/,
      'missing_scope',
    ],
    [
      {
        method: 'POST',
        url: '/api/v1/events',
        headers: { ...bearer(tokens.sender), origin: 'https://elsewhere.example' },
      },
      ...([403, 'forbidden', /Origin header is "https:\/\/elsewhere.example"/, 'foreign_origin'] as const),
    ],
  ]
  const counts: Record<string, number> = Object.fromEntries(DENIAL_REASONS.map((reason) => [reason, 0]))
  for (const [options, status, type, detail, reason] of cases) {
    const answer = await app.inject(options)
    counts[reason]!++
    assert.equal(answer.statusCode, status, answer.body)
    assert.match(String(answer.headers['content-type']), /^application\/problem\+json/)
    assert.equal(answer.json().type, `urn:pertoken:problem:${type}`)
    assert.match(answer.json().detail, detail)
    const challenge = answer.headers['www-authenticate']
    if (status === 401) assert.match(String(challenge), /^Bearer realm="pertoken"/)
    if (reason === 'unknown_token' || reason === 'expired_token')
      assert.match(String(challenge), /error="invalid_token"/)
    if (reason === 'missing_scope') assert.match(String(challenge), /error="insufficient_scope", scope="\w+"/)
  }
  assert.deepEqual(access.denied, counts)
  const metrics = (await app.inject({ url: '/metrics', headers: bearer(tokens.reader) })).body
  for (const [reason, count] of Object.entries(counts))
    assert.match(metrics, new RegExp(`^pertoken_http_refused_total\\{reason="${reason}"\\} ${count}$`, 'm'))
})

test('with a token writes are taken from anywhere and through a proxy; a page of another site is refused', async (t) => {
  const { app, tokens, appended } = await openWithTokens(t)
  const post = (options: InjectOptions) =>
    app.inject({
      ...{ method: 'POST', url: '/api/v1/events', payload: SAMPLE, ...options },
      headers: { ...JSON_TYPE, ...bearer(tokens.sender), ...options.headers },
    })
  const taken: InjectOptions[] = [
    {},
    { remoteAddress: '203.0.113.9', headers: { host: 'pertoken.example' } },
    { headers: { 'x-forwarded-for': '203.0.113.9', host: 'pertoken.example' } },
    { headers: { host: 'pertoken.example', origin: 'https://pertoken.example' } },
    { headers: { authorization: `bearer  ${tokens.sender.secret} ` } },
  ]
  for (const options of taken) assert.equal((await post(options)).statusCode, 202, JSON.stringify(options))
  const refused: InjectOptions[] = [
    { headers: { host: 'pertoken.example', origin: 'https://evil.example' } },
    { headers: { host: 'pertoken.example', origin: 'https://pertoken.example.evil.example' } },
    { headers: { host: 'pertoken.example', origin: 'https://evil.example/pertoken.example' } },
    { headers: { host: 'pertoken.example', origin: 'null' } },
  ]
  for (const options of refused) assert.equal((await post(options)).statusCode, 403, JSON.stringify(options))
  assert.equal(appended.length, taken.length)
})

test('who may not write is told before its body is looked at', async (t) => {
  const { app, tokens } = await openWithTokens(t)
  const url = '/api/v1/events'
  for (const [headers, status] of [
    [{}, 401],
    [bearer(tokens.reader), 403],
    [{ ...bearer(tokens.sender), 'content-type': 'text/plain' }, 415],
  ] as const) {
    const answer = await app.inject({ method: 'POST', url, headers, payload: 'x'.repeat(9 * 1024 * 1024) })
    assert.equal(answer.statusCode, status)
  }
})

test('a token is good up to its end and no longer', async (t) => {
  const token = makeToken('short', ['read'], { expiresMs: NOW_MS + 10_000 })
  let nowMs = NOW_MS
  const access = accessOf(t, [token])
  const { app } = await openServer(t, () => ({ access, now: () => nowMs }))
  const statusAt = async (ms: number) => {
    nowMs = ms
    return (await app.inject({ url: '/api/v1/live', headers: bearer(token) })).statusCode
  }
  assert.equal(await statusAt(NOW_MS + 9_999), 200)
  assert.equal(await statusAt(NOW_MS + 10_000), 401)
})

test('a changed file is in force without a restart: new tokens are good, removed ones are not', async (t) => {
  const [old, stays, added] = [makeToken('old', ['read']), makeToken('stays', ['read']), makeToken('added', ['read'])]
  const access = accessOf(t, [old, stays])
  const { app } = await openServer(t, () => ({ access }))
  const statuses = async () =>
    Promise.all(
      [old, stays, added].map(async (token) => {
        const { statusCode } = await app.inject({ url: '/api/v1/live', headers: bearer(token) })
        return statusCode
      }),
    )
  assert.deepEqual(await statuses(), [200, 200, 401])
  writeTokens(access.path, [stays, added])
  access.tokens.look()
  assert.deepEqual(await statuses(), [401, 200, 200])
  writeTokens(access.path, [])
  access.tokens.look()
  assert.deepEqual(await statuses(), [401, 401, 401], 'an empty file lets nobody in')
})

test('a file that breaks leaves the last good one in force and says so in /health and in the log', async (t) => {
  const token = makeToken('reader', ['read'])
  const told: string[] = []
  const write = (_fields: object, message: string) => void told.push(message)
  const logger = { debug: write, info: write, warn: write, error: write }
  const access = accessOf(t, [token], { logger })
  const { app } = await openServer(t, () => ({ access }))
  const status = async () => (await app.inject({ url: '/api/v1/live', headers: bearer(token) })).statusCode
  const health = async () => {
    const answer = await app.inject('/health')
    return [answer.statusCode, answer.json().problems.map(({ code }: { code: string }) => code)]
  }
  writeFileSync(access.path, `${token.secret}\n`)
  access.tokens.look()
  assert.deepEqual(await health(), [200, []], 'somebody may still be writing it')
  access.tokens.look()
  access.tokens.look()
  assert.deepEqual(await health(), [503, ['api_tokens']])
  assert.equal((await app.inject('/readyz')).statusCode, 200)
  assert.equal(await status(), 200)
  assert.equal(told.length, 1)
  assert.match(told[0]!, /line 1: is not JSON.*the API tokens before stay in force/)
  assert.ok(!told[0]!.includes(token.secret.slice(0, 10)))

  rmSync(access.path)
  for (let i = 0; i < 3; i++) access.tokens.look()
  assert.equal(await status(), 200)
  assert.match(told.at(-1)!, /does not exist/)

  writeTokens(access.path, [token])
  access.tokens.look()
  assert.deepEqual(await health(), [200, []])
  assert.match(told.at(-1)!, /Changed API tokens are in force/)
})

test('without tokens all is as ever: reads are open, writes are for this machine, and nothing is limited', async (t) => {
  const { app } = await openServer(t)
  const remote = { remoteAddress: '203.0.113.9' }
  for (const [route, scope] of Object.entries(ROUTES)) {
    const [method, url] = route.replace(':id', 'x').split(' ') as ['GET' | 'POST' | 'PUT', string]
    const { statusCode } = await app.inject({ method, url, headers: bearer(makeToken('any', ['admin'])), ...remote })
    assert.equal(statusCode === 403, scope === 'ingest' || scope === 'admin', `${route}: ${statusCode}`)
    assert.notEqual(statusCode, 401)
  }
  const many = await Promise.all(Array.from({ length: 500 }, () => app.inject({ url: '/schemas', ...remote })))
  assert.ok(many.every(({ statusCode }) => statusCode === 200))
})
