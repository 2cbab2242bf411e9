// The whole way of a posted event on the embedded default: POST → log → processor → store → GET, and a second post of
// the same events, which changes nothing.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { LivePrices } from '../../src/processor/ingest/live-prices.ts'
import { Processor } from '../../src/processor/ingest/processor.ts'
import { PriceBookVersions } from '../../src/processor/prices/price-book-versions.ts'
import { goodSample, goodToken } from '../bad-records.ts'
import { openServer, TOPICS } from './fixture.ts'

test('posted events are documents soon after, once, however often they are posted', async (t) => {
  const nowMs = Date.now()
  let processor!: Processor
  const { app } = await openServer(t, ({ log, store, logger }) => {
    processor = new Processor(log, store, {
      group: 'processor',
      topicMetric: TOPICS.metric,
      topicToken: TOPICS.token,
      topicDead: 'dead.letter.v1',
      partitions: 1,
      live: new LivePrices(new PriceBookVersions(store.ledger), {
        windowSeconds: 30,
        allowedLatenessSeconds: 10,
        defaultHost: null,
        defaultUsdPerHour: 0.85,
      }),
      log: logger,
    })
    return { processor, now: Date.now }
  })
  const stop = new AbortController()
  const running = processor.run(stop.signal)
  t.after(() => stop.abort())
  const events = [
    goodSample(nowMs - 1000, { event_id: 's1' }),
    goodToken(nowMs, { event_id: 't1', gpus: [0, 1], gpu_index: undefined }),
    goodToken(nowMs, { event_id: 't2' }),
  ]
  const ofBatch = events.map((data, i) => ({ specversion: '1.0', id: String(i), source: 'x', type: 'any', data }))
  const post = (payload: object, type = 'application/json') =>
    app.inject({ method: 'POST', url: '/api/v1/events', payload, headers: { 'content-type': type } })
  for (let i = 0; i < 2; i++) assert.equal((await post(events)).statusCode, 202)
  for (let i = 0; i < 2; i++) assert.equal((await post(ofBatch, 'application/cloudevents-batch+json')).statusCode, 202)

  const deadlineMs = Date.now() + 20_000
  const outcomes = () => processor.health().outcomes
  while (outcomes().stored + outcomes().duplicate + outcomes().rejected < 12 && Date.now() < deadlineMs) await sleep(20)
  assert.deepEqual(
    [outcomes().read, outcomes().stored, outcomes().duplicate, outcomes().rejected],
    [12, 6, 6, 0],
    JSON.stringify(processor.health()),
  )
  const list = (collection: string) => app.inject({ url: '/api/v1/events', query: { collection } })
  const tokens = (await list('token_usage')).json().items as { cost_per_token: number; event_id: string }[]
  assert.equal(tokens.length, 4)
  for (const { cost_per_token } of tokens) assert.ok(cost_per_token > 0)
  assert.equal((await list('gpu_metrics')).json().items.length, 2)
  assert.equal((await app.inject('/gpu/info')).json().name, 'NVIDIA L4')
  assert.equal((await app.inject('/health')).statusCode, 200)
  assert.equal((await app.inject('/api/v1/live')).json().models[0].model, 'llama')
  stop.abort()
  await running
})
