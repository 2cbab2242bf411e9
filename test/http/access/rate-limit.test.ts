// Limits: how much one caller may ask for, what it is told when that is too much, that the others notice nothing, and
// that remembering callers takes a bounded memory.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { InjectOptions } from 'fastify'
import { networkOf, RateLimiter, TokenBucket } from '../../../src/http/access/rate-limit.ts'
import { goodSample } from '../../bad-records.ts'
import { NOW_MS, openServer } from '../fixture.ts'
import { accessOf, bearer, makeToken } from './tokens-fixture.ts'

test('a bucket gives its burst at once and its rate from then on, whatever the clock does', () => {
  const bucket = new TokenBucket(10, 20)
  const takeAt = (ms: number, most: number) => {
    let taken = 0
    for (; taken < most && bucket.waitMs(ms) === 0; taken++) bucket.spend(1, ms)
    return taken
  }
  const steps: [atMs: number, taken: number][] = [
    [0, 20],
    [0, 0],
    [100, 1],
    [1100, 10],
    [900, 0],
    [1000, 1],
    [1_000_000, 20],
  ]
  for (const [atMs, taken] of steps) assert.equal(takeAt(NOW_MS + atMs, 100), taken, `at ${atMs}`)
})

test('a bucket may be overdrawn, and gives nothing until the debt is paid', () => {
  const bucket = new TokenBucket(100, 200)
  bucket.spend(1000, NOW_MS)
  assert.equal(bucket.waitMs(NOW_MS), 8000)
  assert.equal(bucket.waitMs(NOW_MS + 7999), 1)
  assert.equal(bucket.waitMs(NOW_MS + 8010), 0)
})

test('an IPv6 address counts as its /64, an IPv4 address as itself however it is written', () => {
  const cases: [string, string][] = [
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8::6', '2001:db8:0:0::/64'],
    ['2001:db8:1::2:3:4:5', '2001:db8:1:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['unknown', 'unknown'],
  ]
  for (const [address, network] of cases) assert.equal(networkOf(address), network)
})

test('at most 10,000 addresses are remembered: those that are idle are forgotten, then strangers share', () => {
  const limiter = new RateLimiter({ requestsPerS: 10, eventsPerS: 10 })
  const address = (i: number) => `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`
  const use = (i: number, ms: number) => limiter.ofAddress(address(i), ms).requests.spend(1, ms)
  for (let i = 0; i < 10_000; i++) use(i, NOW_MS)
  assert.equal(limiter.remembered, 10_000)
  // All are busy: whoever comes now shares one allowance, and those that are known keep theirs.
  const stranger = limiter.ofAddress(address(20_000), NOW_MS)
  assert.equal(limiter.ofAddress(address(20_001), NOW_MS), stranger)
  assert.notEqual(limiter.ofAddress(address(5), NOW_MS), stranger)
  stranger.requests.spend(1000, NOW_MS)
  assert.ok(limiter.ofAddress(address(30_000), NOW_MS).requests.waitMs(NOW_MS) > 0)
  // A moment later their buckets are full again: they are as good as unknown.
  const laterMs = NOW_MS + 60_000
  for (let i = 40_000; i < 45_000; i++) assert.notEqual(limiter.ofAddress(address(i), laterMs), stranger)
  assert.equal(limiter.remembered, 10_000)
  // One that is long in debt is kept, and does not hide the others behind it.
  const debtor = limiter.ofAddress(address(40_000), laterMs)
  debtor.requests.spend(1e9, laterMs)
  for (let i = 50_000; i < 70_000; i++) limiter.ofAddress(address(i), laterMs + i)
  assert.equal(limiter.ofAddress(address(40_000), laterMs + 1e6), debtor)
  assert.equal(limiter.remembered, 10_000)
})

test('requests over the limit are answered 429 with the time to wait; other tokens and probes notice nothing', async (t) => {
  const [noisy, quiet] = [makeToken('noisy', ['read']), makeToken('quiet', ['read'])]
  const access = accessOf(t, [noisy, quiet], { limits: { requestsPerS: 5, eventsPerS: 0 } })
  let nowMs = NOW_MS
  const { app } = await openServer(t, () => ({ access, now: () => nowMs }))
  const get = (token: typeof noisy | null, options: InjectOptions = {}) =>
    app.inject({ url: '/api/v1/live', headers: token === null ? {} : bearer(token), ...options })
  const statuses = []
  for (let i = 0; i < 12; i++) statuses.push((await get(noisy)).statusCode)
  assert.deepEqual(statuses, [...Array(10).fill(200), 429, 429])
  const refused = await get(noisy)
  assert.deepEqual(
    [refused.headers['retry-after'], refused.json().type],
    ['1', 'urn:pertoken:problem:too-many-requests'],
  )
  assert.match(refused.json().detail, /wait 1 s and try again/)
  // From the same address.
  assert.equal((await get(quiet)).statusCode, 200)
  assert.equal((await get(null)).statusCode, 401)
  for (const url of ['/livez', '/readyz', '/health'])
    for (let i = 0; i < 20; i++) assert.equal((await app.inject(url)).statusCode, 200)
  nowMs += 1000
  assert.equal((await get(noisy)).statusCode, 200)
  assert.equal(access.denied.too_many_requests, 3)
})

test('requests without a token count against their address; open files and unknown paths as well', async (t) => {
  const access = accessOf(t, [makeToken('a', ['read'])], { limits: { requestsPerS: 5, eventsPerS: 0 } })
  const { app } = await openServer(t, () => ({ access }))
  const statusesOf = async (url: string, remoteAddress: string) => {
    const found = new Set<number>()
    for (let i = 0; i < 12; i++) found.add((await app.inject({ url, remoteAddress })).statusCode)
    return [...found]
  }
  assert.deepEqual(await statusesOf('/api/v1/live', '192.0.2.1'), [401, 429])
  assert.deepEqual(await statusesOf('/', '192.0.2.2'), [200, 429])
  assert.deepEqual(await statusesOf('/nothing', '2001:db8::1'), [404, 429])
  assert.deepEqual(await statusesOf('/nothing', '2001:db8::2'), [429])
  assert.deepEqual(await statusesOf('/docs/', '192.0.2.3'), [200, 429])
})

test('wrong tokens count against their address, and never lock out a right one from the same address', async (t) => {
  const right = makeToken('right', ['read'])
  const access = accessOf(t, [right], { limits: { requestsPerS: 10, eventsPerS: 0 } })
  const { app } = await openServer(t, () => ({ access }))
  const get = (headers: { authorization: string }) => app.inject({ url: '/api/v1/live', headers })
  const statuses = []
  for (let i = 0; i < 25; i++) statuses.push((await get({ authorization: `Bearer wrong-${i}` })).statusCode)
  assert.deepEqual(statuses, [...Array(20).fill(401), ...Array(5).fill(429)])
  assert.match((await get({ authorization: 'Bearer x' })).json().detail, /More requests a second than one caller may/)
  assert.equal((await get(bearer(right))).statusCode, 200)
})

test('posted events count, wrong ones and large ones too; a post is taken whole or not at all', async (t) => {
  const nowOf = { ms: NOW_MS }
  const sender = makeToken('sender', ['ingest'])
  const event = JSON.stringify(goodSample(NOW_MS))
  const bodies: [name: string, body: string, answer: number, eventsWorth: number][] = [
    ['an array', `[${Array(500).fill(event).join(',')}]`, 202, 500],
    ['wrong ones', `[${Array(500).fill('1').join(',')}]`, 400, 500],
    ['a large one', JSON.stringify(goodSample(NOW_MS, { note: 'x'.repeat(500 * 1024) })), 202, 500.2],
    ['one that is no JSON', 'x'.repeat(500 * 1024), 400, 500],
  ]
  for (const [name, payload, expected, worth] of bodies) {
    const access = accessOf(t, [sender], { limits: { requestsPerS: 0, eventsPerS: 100 } })
    const { app, appended } = await openServer(t, () => ({ access, now: () => nowOf.ms }))
    const headers = { 'content-type': 'application/json', ...bearer(sender) }
    const post = (body: string) => app.inject({ method: 'POST', url: '/api/v1/events', headers, payload: body })
    nowOf.ms = NOW_MS
    assert.equal((await post(payload)).statusCode, expected, name)
    const taken = appended.length
    const refused = await post(event)
    assert.equal(refused.statusCode, 429, name)
    // 200 are there at the start, 100 come each second.
    const waitS = Number(refused.headers['retry-after'])
    assert.equal(waitS, Math.ceil((worth - 200) / 100), name)
    assert.equal(appended.length, taken, name)
    nowOf.ms += waitS * 1000 + 10
    assert.equal((await post(event)).statusCode, 202, name)
  }
})
