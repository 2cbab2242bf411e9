// The events of the benchmarks: about 155 bytes of JSON each, 64 hosts, half samples and half token usage, in order of
// time, keyed by host; made each time from a counter, so that a million of them needs no memory.

import type { NewRecord } from '../../src/log/event-log.ts'

const HOSTS = 64
const MODELS = 8
const START_MS = Date.UTC(2026, 0, 1)

/** One event's bytes; `atMs` is its time. */
export function benchEvent(kind: 'gpu' | 'token', i: number, atMs: number): NewRecord {
  const host = `gpu-host-${String(i % HOSTS).padStart(2, '0')}`
  const ts = new Date(atMs).toISOString()
  const value =
    kind === 'gpu'
      ? {
          ts,
          host,
          gpu_index: i % 4,
          name: 'NVIDIA L4',
          utilization: (i % 100) / 100,
          mem_used_mb: 8000 + (i % 999),
          power_w: 71.5,
          price_per_hour_usd: 0.8,
        }
      : {
          ts,
          host,
          gpu_index: i % 4,
          model: `model-${i % MODELS}`,
          prompt_tokens: 100 + (i % 1000),
          completion_tokens: i % 200,
          latency_ms: 300 + (i % 500),
        }
  return { key: host, value: Buffer.from(JSON.stringify(value)) }
}

export interface EventBatch {
  kind: 'gpu' | 'token'
  /** The default one of its kind. */
  topic: string
  records: NewRecord[]
}

/** `count` events in batches of one kind, 2,000 events a second of event time. */
export function* benchEvents(count: number, batchSize: number): Generator<EventBatch> {
  for (let from = 0, turn = 0; from < count; from += batchSize, turn++) {
    const kind = turn % 2 === 0 ? 'gpu' : 'token'
    const records: NewRecord[] = []
    for (let i = from; i < Math.min(from + batchSize, count); i++)
      records.push(benchEvent(kind, i, START_MS + Math.floor(i / 2)))
    yield { kind, topic: kind === 'gpu' ? 'gpu.metrics.v1' : 'token.usage.v1', records }
  }
}
