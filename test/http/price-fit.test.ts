// Whether prices fit the GPUs that were seen, over HTTP on a real embedded store: what the answer to a new book states,
// what the listing does, and that a question about a GPU that nothing shows is a 404.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { GpuDocument, TokenDocument } from '../../src/domain/events/event.ts'
import { ownEventId } from '../../src/domain/events/event-id.ts'
import { DAY_MS, floorTo } from '../../src/domain/ledger/buckets.ts'
import type { CellRow } from '../../src/domain/ledger/types.ts'
import type { LedgerBucket } from '../../src/store/ledger-store.ts'
import { row } from '../report/rows.ts'
import { type Fixture, NOW_MS, openServer } from './fixture.ts'

const TODAY = floorTo(DAY_MS, NOW_MS)
const iso = (ms: number) => new Date(ms).toISOString()

function sample(id: string, change: Partial<GpuDocument>): GpuDocument {
  const base = { ts: new Date(NOW_MS - 9000), gpu_index: 0, utilization: 0.5, ...change }
  return { _id: ownEventId('h1', id), ...base } as unknown as GpuDocument
}

function dayOf(startMs: number, host: string, rows: CellRow[]): LedgerBucket {
  const rest = { rev: 0, bookVersions: [1], totals: null, capped: 0, computedMs: NOW_MS }
  return { level: 'day', startMs, host, rows, ...rest }
}

const put = (app: Fixture['app'], payload: object) =>
  app.inject({
    method: 'PUT',
    url: '/api/v1/prices',
    headers: { host: 'localhost', 'content-type': 'application/json' },
    payload,
  })

test('setting and listing state which rules fit no GPU that was seen, and which GPUs get the default', async (t) => {
  const { app, store } = await openServer(t)
  const priced = { name: 'NVIDIA L4', host: 'e7', price_per_hour_usd: 0.7 }
  const samples = [sample('a', { name: 'NVIDIA L40S', host: 'e6', gpu_index: 1 }), sample('b', priced)]
  await store.writeDocuments(samples, [])
  // A GPU of another day is known by the ledger alone.
  const yesterday = TODAY - DAY_MS
  const old = row({ gpu_name: 'NVIDIA A100', covered_ms: 1000n })
  await store.ledger.replaceBuckets([dayOf(yesterday, 'old', [old])])
  const rule = (name: string) => ({ id: name, match: { name }, kind: 'spot', usd_per_hour: 1 })
  const book = { currency: 'USD', default_usd_per_hour: 2, rules: [rule('NVIDIA-L40S'), rule('*A100'), rule('*A100*')] }
  const { fit } = (await put(app, book)).json()
  assert.deepEqual([fit.seen_since, fit.gpus_seen], [iso(yesterday - 29 * DAY_MS), 3])
  assert.deepEqual(fit.unmatched_rules_count, 1)
  assert.deepEqual(
    fit.unmatched_rules.map((found: Record<string, unknown>) => [found['id'], found['state'], found['nearest']]),
    [['NVIDIA-L40S', 'never_seen', 'NVIDIA L40S']],
  )
  assert.deepEqual(fit.default_gpus, [{ host: 'e6', gpu_index: 1, name: 'NVIDIA L40S', usd_per_hour: 2 }])
  assert.deepEqual((await app.inject('/api/v1/prices')).json().fit, fit)
})

test('explain of a GPU that was never seen is a 404 with what to do', async (t) => {
  const { app, store } = await openServer(t)
  const ours = { id: 'ours', match: { host: 'h1', gpu_index: 0 }, kind: 'spot', usd_per_hour: 1 }
  await put(app, { currency: 'USD', rules: [ours] })
  const token = { _id: ownEventId('h1', 't'), ts: new Date(NOW_MS), host: 'used', gpu_index: 9, gpus: [1, 3] }
  const counts = { model: 'm', prompt_tokens: 1, completion_tokens: 1 }
  await store.writeDocuments(
    [sample('a', { ts: new Date(NOW_MS - 40 * DAY_MS), host: 'seen', gpu_index: 2 })],
    [{ ...token, ...counts } as unknown as TokenDocument],
  )
  const kept = row({ gpu_index: 5, covered_ms: 1000n })
  await store.ledger.replaceBuckets([dayOf(TODAY, 'purged', [kept])])
  const cases: [string, number, number][] = [
    ['seen', 2, 200],
    ['seen', 0, 404],
    ['used', 3, 200],
    ['used', 0, 404],
    ['purged', 5, 200],
    // Only a rule names it.
    ['h1', 0, 200],
    ['h1', 1, 404],
    ['nowhere', 0, 404],
  ]
  for (const [host, index, status] of cases) {
    const answer = await app.inject(`/api/v1/explain?host=${host}&gpu_index=${index}`)
    assert.equal(answer.statusCode, status, `${host}/${index} ${answer.body}`)
  }
  const answer = await app.inject('/api/v1/explain?host=nowhere&gpu_index=7')
  assert.match(String(answer.headers['content-type']), /^application\/problem\+json/)
  const { type, detail } = answer.json()
  assert.equal(type, 'urn:pertoken:problem:not-found')
  assert.match(detail, /^No GPU 7 of host "nowhere" was ever seen: see \/api\/v1\/gpus/)
})
