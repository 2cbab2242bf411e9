// An engine's usage as events: whole numbers that add up, however long the time and however large the counts, each
// event valid by the published schema.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { EngineUsage } from '../../../src/agent/engine/engine-usage.ts'
import { tokenEvents } from '../../../src/agent/watch/token-events.ts'
import { checkEvent } from '../../../src/domain/events/decode.ts'

const T0 = 1_790_000_000_000
const USAGE: EngineUsage & { model: string } = {
  model: 'otter',
  base: null,
  prompt: 100,
  cached: 40,
  completion: 9,
  requests: 3,
  prefillSeconds: 0.25,
  decodeSeconds: 1.5,
}

function eventsOf(usage: Partial<EngineUsage>, spanMs: number) {
  let ids = 0
  const gauges = { running: 2, waiting: 0, kvUse: 0.5 }
  const context = { host: 'box', gpus: [0, 1], engine: 'vllm', fromMs: T0 - spanMs, atMs: T0, gauges }
  return tokenEvents({ ...USAGE, ...usage, model: 'otter' }, { ...context, nextId: () => `e-${ids++}` })
}

test('one look is one event', () => {
  assert.deepEqual(eventsOf({}, 5000), [
    {
      ts: new Date(T0).toISOString(),
      host: 'box',
      gpus: [0, 1],
      engine: 'vllm',
      model: 'otter',
      prompt_tokens: 100,
      completion_tokens: 9,
      requests: 3,
      cached_prompt_tokens: 40,
      interval_s: 5,
      prefill_ms: 250,
      decode_ms: 1500,
      requests_running: 2,
      requests_waiting: 0,
      kv_cache_usage: 0.5,
      event_id: 'e-0',
    },
  ])
})

test('what is unknown is left out; an engine that counts no requests sums none; an adapter has its base', () => {
  const [event] = eventsOf(
    { cached: null, requests: null, prefillSeconds: null, decodeSeconds: null, base: 'quail' },
    0,
  )
  assert.deepEqual(
    [event!.cached_prompt_tokens, event!.requests, event!.prefill_ms, event!.interval_s, event!.base_model],
    [undefined, 0, undefined, undefined, 'quail'],
  )
})

test('a gap of any length and counts of any size become valid events that sum exactly and lie end to end', () => {
  const count = fc.oneof(fc.nat(1000), fc.nat(20_000_000_000))
  fc.assert(
    fc.property(count, count, count, fc.nat(3 * 86_400_000), (prompt, cached, completion, spanMs) => {
      const all = eventsOf({ prompt: prompt + cached, cached, completion }, spanMs)
      const sum = (field: 'prompt_tokens' | 'cached_prompt_tokens' | 'completion_tokens' | 'requests') =>
        all.reduce((total, event) => total + event[field]!, 0)
      assert.deepEqual(
        [sum('prompt_tokens'), sum('cached_prompt_tokens'), sum('completion_tokens'), sum('requests')],
        [prompt + cached, cached, completion, 3],
      )
      let edgeMs = T0 - spanMs
      for (const event of all) {
        const endMs = Date.parse(event.ts as string)
        assert.equal(Math.round(endMs - (event.interval_s ?? 0) * 1000), edgeMs)
        edgeMs = endMs
      }
      assert.equal(edgeMs, T0)
      for (const event of all.slice(0, 3)) assert.equal(checkEvent('token', { ...event }, T0), null)
    }),
    { numRuns: 200 },
  )
})
