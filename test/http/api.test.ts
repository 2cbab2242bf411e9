// The reading routes over a real embedded store: what they answer, what they refuse, and that every error is a problem
// document which says nothing of the inside.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { GpuDocument, TokenDocument } from '../../src/domain/events/event.ts'
import { logEventId, ownEventId } from '../../src/domain/events/event-id.ts'
import { type DeadLetter, StoreError } from '../../src/store/event-store.ts'
import { goodSample, goodToken } from '../bad-records.ts'
import { liveModel, liveSlot, NOW_MS, openServer, replacing, TOPICS } from './fixture.ts'

function sample(id: string, offsetMs: number, change: Record<string, unknown> = {}): GpuDocument {
  const event = goodSample(NOW_MS + offsetMs, change)
  return { ...event, _id: ownEventId('h1', id), ts: new Date(NOW_MS + offsetMs) } as unknown as GpuDocument
}

function token(id: string, offsetMs: number, change: Record<string, unknown> = {}): TokenDocument {
  const priced = { cost_per_token: 1e-6, tokens_per_second: 4, price_per_hour_usd: 0.8, window_s: 30 }
  const event = { ...goodToken(NOW_MS + offsetMs, change), ...priced }
  return { ...event, _id: ownEventId('h1', id), ts: new Date(NOW_MS + offsetMs) } as unknown as TokenDocument
}

function letter(offset: number, value: Buffer | null, change: Partial<DeadLetter> = {}): DeadLetter {
  return {
    _id: logEventId('pt1l:topic:0:', offset, 1),
    reason: 'not_json',
    message: 'Not JSON: x',
    topic: TOPICS.token,
    topic_id: 'topic',
    partition: 0,
    offset,
    record_time: new Date(NOW_MS),
    time: new Date(NOW_MS + offset),
    key: Buffer.from('h1'),
    value,
    value_length: value?.length ?? 0,
    value_sha256: createHash('sha256')
      .update(value ?? '')
      .digest('hex'),
    headers: { a: 'b' },
    ...change,
  }
}

test('/gpu/info answers the latest sample of any slot, host, index or both, and 404 when there is none', async (t) => {
  const { app, store } = await openServer(t)
  const info = (query: Record<string, string>) => app.inject({ url: '/gpu/info', query })
  assert.equal((await info({})).statusCode, 404)
  await store.writeDocuments([sample('a', 0), sample('b', 10, { gpu_index: 1 }), sample('c', 5, { host: 'h2' })], [])
  const cases: [Record<string, string>, string | null][] = [
    [{}, 'b'],
    [{ host: 'h2' }, 'c'],
    [{ gpu_index: '0' }, 'c'],
    [{ host: 'h1', gpu_index: '0' }, 'a'],
    [{ host: 'h9' }, null],
  ]
  for (const [query, id] of cases) {
    const answer = await info(query)
    assert.equal(answer.statusCode, id === null ? 404 : 200)
    if (id !== null) assert.equal(answer.json()._id, ownEventId('h1', id))
  }
  assert.deepEqual((await info({ host: 'h1', gpu_index: '0' })).json(), JSON.parse(JSON.stringify(sample('a', 0))))
})

test('/api/v1/live gives models and slots in a fixed order', async (t) => {
  const { app, state } = await openServer(t)
  state.live.models = [liveModel('b', 1, 1), liveModel('a', 1, null)]
  state.live.slots = [liveSlot('h2', 0), liveSlot('h1', 10), liveSlot('h1', 2), liveSlot(null, 0)]
  const live = (await app.inject('/api/v1/live')).json()
  assert.deepEqual(
    live.models.map(({ model }: { model: string }) => model),
    ['a', 'b'],
  )
  assert.deepEqual(
    live.slots.map(({ host, gpu_index }: { host: string; gpu_index: number }) => `${host}/${gpu_index}`),
    ['null/0', 'h1/2', 'h1/10', 'h2/0'],
  )
  assert.equal(live.totals.usd_per_hour, 3.2)
  assert.deepEqual([live.stale, live.window_s, live.as_of], [false, 30, '2026-06-01T12:00:00.000Z'])
})

test('/api/v1/gpus joins stored and live slots of the last hour, and reports contradictions', async (t) => {
  const { app, store, state } = await openServer(t)
  const old = sample('old', -3_600_001, { gpu_index: 7 })
  const samples = [
    old,
    sample('a1', -2000, { uuid: 'GPU-1' }),
    sample('a2', -1000, { uuid: 'GPU-1', name: 'NVIDIA H100' }),
    sample('a3', 0, { uuid: 'GPU-1' }),
    sample('b', 0, { uuid: 'GPU-1', gpu_index: 1 }),
  ]
  await store.writeDocuments(samples, [])
  state.live.slots = [liveSlot('h1', 1), liveSlot('h3', 0)]
  const { slots, conflicts, conflicts_complete } = (await app.inject('/api/v1/gpus')).json()
  assert.deepEqual(
    slots.map((slot: { host: string; gpu_index: number; live: object | null; sample: { _id: string } | null }) => [
      `${slot.host}/${slot.gpu_index}`,
      slot.live !== null,
      slot.sample?._id ?? null,
    ]),
    [
      ['h1/0', false, ownEventId('h1', 'a3')],
      ['h1/1', true, ownEventId('h1', 'b')],
      ['h3/0', true, null],
    ],
  )
  assert.deepEqual(conflicts, [
    {
      kind: 'uuid_in_two_slots',
      uuid: 'GPU-1',
      slots: [
        { host: 'h1', gpu_index: 0 },
        { host: 'h1', gpu_index: 1 },
      ],
    },
    { kind: 'two_names_in_slot', host: 'h1', gpu_index: 0, names: ['NVIDIA H100', 'NVIDIA L4'] },
  ])
  assert.equal(conflicts_complete, true)
})

test('/api/v1/events pages through a collection, with every field as it is stored', async (t) => {
  const { app, store } = await openServer(t)
  const tokens = [token('a', 0, { tenant: 'x', extra: { deep: [1] } }), token('b', 1), token('c', 2, { host: 'h2' })]
  await store.writeDocuments([sample('s', 0)], tokens)
  const list = async (query: Record<string, string>) => (await app.inject({ url: '/api/v1/events', query })).json()
  const first = await list({ collection: 'token_usage', limit: '2' })
  assert.deepEqual(first.items, JSON.parse(JSON.stringify(tokens.slice(0, 2))))
  const second = await list({ collection: 'token_usage', limit: '2', cursor: first.cursor })
  assert.deepEqual(second, { items: JSON.parse(JSON.stringify(tokens.slice(2))), cursor: null })
  const cases: [Record<string, string>, string[]][] = [
    [{ tenant: 'x' }, ['a']],
    [{ host: 'h2' }, ['c']],
    [{ model: 'none' }, []],
    [{ gpu_index: '0' }, ['a', 'b', 'c']],
    [{ from: '2026-06-01T12:00:00.001Z', to: String(NOW_MS + 2) }, ['b']],
    [{ from: '2026-06-01T14:00:00.002+02:00' }, ['c']],
  ]
  for (const [query, ids] of cases) {
    const { items } = await list({ collection: 'token_usage', ...query })
    assert.deepEqual(
      items.map(({ _id }: { _id: string }) => _id),
      ids.map((id) => ownEventId('h1', id)),
      JSON.stringify(query),
    )
  }
  assert.equal((await list({ collection: 'gpu_metrics' })).items.length, 1)
})

test('wrong parameters are all named, with what is allowed', async (t) => {
  const { app } = await openServer(t)
  const cases: [string, [string, string][]][] = [
    ['/api/v1/events', [['collection', 'missing_parameter']]],
    ['/api/v1/events?collection=raw', [['collection', 'wrong_value']]],
    [
      '/api/v1/events?collection=token_usage&limit=0&gpu_index=-1&from=yesterday&modle=x',
      [
        ['modle', 'unknown_parameter'],
        ['from', 'wrong_value'],
        ['gpu_index', 'wrong_value'],
        ['limit', 'wrong_value'],
      ],
    ],
    ['/api/v1/events?collection=token_usage&limit=1e3', [['limit', 'wrong_value']]],
    ['/api/v1/events?collection=token_usage&limit=', [['limit', 'wrong_value']]],
    ['/api/v1/events?collection=token_usage&host=', [['host', 'wrong_value']]],
    ['/api/v1/events?collection=token_usage&host=a%00b', [['host', 'wrong_value']]],
    ['/api/v1/events?collection=token_usage&host=a&host=b', [['host', 'repeated_parameter']]],
    ['/api/v1/events?collection=token_usage&host[$gt]=', [['host[$gt]', 'unknown_parameter']]],
    ['/api/v1/events?collection=token_usage&__proto__=1', [['__proto__', 'unknown_parameter']]],
    ['/api/v1/events?collection=token_usage&from=2026-02-30T00:00:00Z', [['from', 'wrong_value']]],
    [
      '/api/v1/events?collection=token_usage&from=2026-06-02T00:00:00Z&to=2026-06-01T00:00:00Z',
      [['to', 'wrong_value']],
    ],
    ['/api/v1/events?collection=token_usage&cursor=nonsense', [['cursor', 'wrong_value']]],
    [
      '/api/v1/events?collection=gpu_metrics&model=a&tenant=b',
      [
        ['model', 'wrong_value'],
        ['tenant', 'wrong_value'],
      ],
    ],
    ['/gpu/info?gpu_index={"$gt":""}', [['gpu_index', 'wrong_value']]],
    ['/api/v1/live?window=10', [['window', 'unknown_parameter']]],
    ['/api/v1/dead-letters?reason=bad', [['reason', 'wrong_value']]],
    ['/api/v1/dead-letters?cursor=nonsense', [['cursor', 'wrong_value']]],
  ]
  for (const [url, expected] of cases) {
    const answer = await app.inject(url)
    assert.equal(answer.statusCode, 400, url)
    const { type, errors } = answer.json() as { type: string; errors: Record<string, string>[] }
    assert.equal(type, 'urn:pertoken:problem:bad-parameter', url)
    const found = errors.map(({ path, reason }) => [path, reason])
    assert.deepEqual(found, expected, url)
    for (const { message } of errors) assert.match(message!, /expected|allowed|Does not apply|begin again/, url)
  }
})

test('a filter of operators is only a name that nobody has', async (t) => {
  const { app, store } = await openServer(t)
  await store.writeDocuments([sample('a', 0)], [])
  const answer = await app.inject({ url: '/gpu/info', query: { host: '{"$gt":""}' } })
  assert.equal(answer.statusCode, 404)
})

test('/api/v1/dead-letters lists without values, newest first, and shows the bytes of one', async (t) => {
  const { app, store } = await openServer(t)
  const cut = Buffer.from('größe').subarray(0, 3)
  const letters = [
    letter(1, Buffer.from('{"a":')),
    letter(2, Buffer.from([0xff, 0]), { reason: 'not_utf8', key: null }),
    letter(3, null, { reason: 'tombstone', topic: TOPICS.metric }),
    letter(4, cut, { value_length: 100_000 }),
  ]
  await store.writeDeadLetters(letters)
  const list = (await app.inject('/api/v1/dead-letters')).json()
  const offsets = (items: { offset: number }[]) => items.map(({ offset }) => offset)
  assert.deepEqual(offsets(list.items), [4, 3, 2, 1])
  assert.deepEqual(Object.keys(list.items[0]).sort(), [
    ...['id', 'message', 'offset', 'partition', 'reason', 'record_time', 'redriven_at', 'time', 'topic'],
    ...['value_length', 'value_sha256'],
  ])
  const filtered = (await app.inject('/api/v1/dead-letters?reason=not_utf8')).json()
  assert.deepEqual(offsets(filtered.items), [2])
  const ofTopic = (await app.inject(`/api/v1/dead-letters?topic=${TOPICS.metric}`)).json()
  assert.deepEqual(offsets(ofTopic.items), [3])
  const page = (await app.inject('/api/v1/dead-letters?limit=3')).json()
  const rest = (await app.inject({ url: '/api/v1/dead-letters', query: { cursor: page.cursor } })).json()
  assert.deepEqual(offsets(rest.items), [1])

  const show = async (each: DeadLetter) =>
    (await app.inject(`/api/v1/dead-letters/${encodeURIComponent(each._id)}`)).json()
  const [text, binary, tombstone, beginning] = await Promise.all(letters.map(show))
  assert.deepEqual([text.value_text, text.key_text, text.headers, text.value_cut], ['{"a":', 'h1', { a: 'b' }, false])
  assert.equal(Buffer.from(text.value_base64, 'base64').toString(), '{"a":')
  assert.deepEqual([binary.value_text, binary.value_base64, binary.key_base64], [null, '/wA=', null])
  assert.deepEqual([tombstone.value_text, tombstone.value_base64], [null, null])
  assert.deepEqual([beginning.value_text, beginning.value_cut], ['gr', true])
  assert.equal((await app.inject('/api/v1/dead-letters/none')).statusCode, 404)
})

test('while the store is away its routes answer 503 with Retry-After, and say nothing of the inside', async (t) => {
  const gone = new StoreError('secret host', { retriable: true })
  const { app } = await openServer(t, ({ store }) => ({
    store: replacing(store, {
      latestSample: () => Promise.reject(gone),
      newestMs: () => Promise.reject(gone),
      listEvents: () => Promise.reject(gone),
    }),
  }))
  for (const url of ['/gpu/info', '/api/v1/gpus', '/api/v1/events?collection=token_usage&cursor=x']) {
    const answer = await app.inject(url)
    assert.deepEqual([answer.statusCode, answer.headers['retry-after']], [503, '5'], url)
    assert.doesNotMatch(answer.body, /secret/)
  }
})

test('an unexpected error is a 500 that names only the request id under which it is logged', async (t) => {
  const { app, logged } = await openServer(t, ({ store }) => ({
    store: replacing(store, { latestSample: () => Promise.reject(new TypeError('secret of the inside')) }),
  }))
  const answer = await app.inject('/gpu/info')
  assert.equal(answer.statusCode, 500)
  assert.doesNotMatch(answer.body, /secret/)
  const { level, fields } = logged[0]!
  assert.equal(level, 'error')
  assert.ok(answer.json().detail.includes((fields as { request_id: string }).request_id))
})

test('unknown paths are 404, wrong methods 405 with Allow, broken paths 400, all as problems', async (t) => {
  const { app } = await openServer(t)
  const cases: [string, string, number, string | undefined][] = [
    ['GET', '/nowhere', 404, undefined],
    ['GET', '/api/v1/alerts', 404, undefined],
    ['GET', '/health/', 404, undefined],
    ['GET', '/docs/static/nothing.js', 404, undefined],
    ['GET', '/docs/static/..%2f..%2fpackage.json', 404, undefined],
    ['DELETE', '/api/v1/dead-letters/x', 405, 'GET, HEAD'],
    ['POST', '/health', 405, 'GET, HEAD'],
    ['PUT', '/api/v1/events', 405, 'GET, HEAD, POST'],
    ['GET', '/%zz', 400, undefined],
  ]
  for (const [method, url, status, allow] of cases) {
    const answer = await app.inject({ method: method as 'GET', url })
    assert.deepEqual([answer.statusCode, answer.headers['allow']], [status, allow], `${method} ${url}`)
    assert.match(String(answer.headers['content-type']), /^application\/problem\+json/, url)
    assert.equal(answer.headers['x-content-type-options'], 'nosniff', url)
  }
})

test('the schemas are served as the package has them', async (t) => {
  const { app } = await openServer(t)
  const { schemas } = (await app.inject('/schemas')).json() as { schemas: { id: string; url: string }[] }
  assert.deepEqual(
    schemas.map(({ id }) => id),
    ['gpu.metrics.v1', 'token.usage.v1'],
  )
  for (const { id, url } of schemas) {
    const answer = await app.inject(url)
    assert.match(String(answer.headers['content-type']), /^application\/schema\+json/)
    assert.equal(answer.body, readFileSync(new URL(`../../docs/schemas/${id}.json`, import.meta.url), 'utf8'))
  }
})
