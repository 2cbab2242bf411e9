// What an engine did in a time, as events of topic token.usage.v1. A time that is longer than one event may sum over
// becomes several events whose whole numbers add up to exactly the same. Each gets its identity here, once. Pure.

import type { TokenUsage } from '../../domain/events/event.ts'
import { MAX_INTERVAL_S } from '../../domain/events/event-interval.ts'
import type { EngineGauges } from '../engine/engine-page.ts'
import type { EngineUsage } from '../engine/engine-usage.ts'

/** An event as the agent sends it: beside the published fields the engine's state at its end. */
export type EngineEvent = TokenUsage & {
  base_model?: string
  requests_running?: number
  requests_waiting?: number
  /** Share of the engine's cache that is in use, 0 to 1. */
  kv_cache_usage?: number
}

export interface EventContext {
  host: string
  gpus: readonly number[]
  engine: string
  /** The time that the usage sums over, epoch milliseconds; the same: an instant. */
  fromMs: number
  atMs: number
  gauges: EngineGauges | undefined
  nextId: () => string
}

/** Largest count that one event may carry. */
const MAX_COUNT = 1_000_000_000
const MAX_TIME_MS = 1e9

/** Whether there is anything to report of it. */
export function isUsed({ prompt, completion, requests }: EngineUsage): boolean {
  return (prompt ?? 0) + (completion ?? 0) + (requests ?? 0) > 0
}

/**
 * The events of one model, oldest first. An engine that counts no requests sums none: without the field an event is
 * one. `cached` is at most `prompt`.
 */
export function tokenEvents(usage: EngineUsage & { model: string }, context: EventContext): EngineEvent[] {
  const { fromMs, atMs, host, gpus, engine, nextId, gauges } = context
  const cached = usage.cached ?? 0
  const counts = [(usage.prompt ?? 0) - cached, cached, usage.completion ?? 0, usage.requests ?? 0].map(Math.round)
  const spanMs = atMs - fromMs
  const pieces = Math.max(
    1,
    Math.ceil(spanMs / (MAX_INTERVAL_S * 1000)),
    Math.ceil((2 * Math.max(...counts)) / MAX_COUNT),
  )
  const edge = (i: number) => fromMs + Math.round((spanMs * i) / pieces)
  return Array.from({ length: pieces }, (_, i) => {
    const [uncached, ofCache, completion, requests] = counts.map((count) => part(count, i, pieces)) as [
      number,
      number,
      number,
      number,
    ]
    return {
      ts: new Date(edge(i + 1)).toISOString(),
      host,
      gpus: [...gpus],
      engine,
      model: usage.model,
      prompt_tokens: uncached + ofCache,
      completion_tokens: completion,
      requests,
      ...(usage.cached === null ? {} : { cached_prompt_tokens: ofCache }),
      ...(spanMs === 0 ? {} : { interval_s: (edge(i + 1) - edge(i)) / 1000 }),
      ...(usage.base === null ? {} : { base_model: usage.base }),
      ...times(usage, pieces),
      ...(i === pieces - 1 ? stateOf(gauges) : {}),
      event_id: nextId(),
    }
  })
}

/** The i-th of so many whole parts that add up to the count. */
function part(count: number, i: number, parts: number): number {
  const upTo = (k: number) => Number((BigInt(count) * BigInt(k)) / BigInt(parts))
  return upTo(i + 1) - upTo(i)
}

function times({ prefillSeconds, decodeSeconds }: EngineUsage, pieces: number): Partial<EngineEvent> {
  const ms = (seconds: number) => Math.min(MAX_TIME_MS, Math.round((seconds * 1e6) / pieces) / 1000)
  return {
    ...(prefillSeconds === null ? {} : { prefill_ms: ms(prefillSeconds) }),
    ...(decodeSeconds === null ? {} : { decode_ms: ms(decodeSeconds) }),
  }
}

function stateOf(gauges: EngineGauges | undefined): Partial<EngineEvent> {
  const { running = null, waiting = null, kvUse = null } = gauges ?? {}
  return {
    ...(running === null ? {} : { requests_running: running }),
    ...(waiting === null ? {} : { requests_waiting: waiting }),
    ...(kvUse === null ? {} : { kv_cache_usage: kvUse }),
  }
}
