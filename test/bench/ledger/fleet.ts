// The fleet of the ledger's benchmarks: 8 hosts with 8 GPUs each, 8 models (each GPU serves one, as inference servers
// do; `modelsPerGpu` mixes them), 20 tenants. Events come from counters, so that millions of them need no memory and
// two runs are the same. As JSON they go into the log, as documents straight into a store, with the marks a processor
// makes.

import type { GpuDocument, TokenDocument } from '../../../src/domain/events/event.ts'
import { logEventId } from '../../../src/domain/events/event-id.ts'
import { CELL_MS, TouchedCells } from '../../../src/domain/ledger/buckets.ts'
import type { EventStore } from '../../../src/store/event-store.ts'

export const HOSTS = 8
export const GPUS_PER_HOST = 8
export const SLOTS = HOSTS * GPUS_PER_HOST
export const MODELS = 8
export const TENANTS = 20
export const USD_PER_HOUR = 0.85

/** Documents of one write, as many as a processor's step has. */
const WRITE_EVENTS = 4000
const ID_PREFIXES = Array.from({ length: 12 }, (_, partition) => `pt1l:AAAAAAAAAAAAAAAAAAAAAQ:${partition}:`)

/** A sample of a slot, `n` counts them. */
export function sampleOf(slot: number, n: number) {
  return {
    host: `gpu-host-${Math.floor(slot / GPUS_PER_HOST)}`,
    gpu_index: slot % GPUS_PER_HOST,
    uuid: `GPU-0c1d2e3f-4a5b-6c7d-8e9f-0000000000${String(slot).padStart(2, '0')}`,
    name: 'NVIDIA L4',
    utilization: ((n * 37 + slot) % 101) / 100,
    mem_used_mb: 18_000 + (n % 999),
    mem_total_mb: 23_034,
    power_w: 60 + ((n + slot) % 12),
    model_loaded: `model-${slot % MODELS}`,
  }
}

/** Token usage, `n` counts it: slots in turn, tenants and sizes mixed. */
export function usageOf(n: number, modelsPerGpu = 1) {
  const slot = n % SLOTS
  const turn = Math.floor(n / SLOTS)
  return {
    host: `gpu-host-${Math.floor(slot / GPUS_PER_HOST)}`,
    gpu_index: slot % GPUS_PER_HOST,
    model: `model-${(slot + (Math.floor(turn / TENANTS) % modelsPerGpu)) % MODELS}`,
    tenant: `tenant-${(turn + slot) % TENANTS}`,
    prompt_tokens: 100 + (n % 1900),
    cached_prompt_tokens: n % 3 === 0 ? 64 : 0,
    completion_tokens: 20 + (n % 480),
    latency_ms: 300 + (n % 500),
  }
}

export interface FleetRange {
  /** Whole minutes. */
  fromMs: number
  toMs: number
  sampleEveryMs: number
  tokensPerMinute: number
  modelsPerGpu?: number
  /** Only the first so many minutes of each day have events; all when absent. */
  minutesOfDay?: number
}

/** Writes the fleet's events and their marks straight into a store; returns how many events. */
export async function writeFleet(store: EventStore, range: FleetRange, firstId = 0): Promise<number> {
  let samples: GpuDocument[] = []
  let tokens: TokenDocument[] = []
  let cells = new TouchedCells()
  let n = firstId
  const flush = async () => {
    await store.writeDocuments(samples, tokens, (samples.length + tokens.length) * 330)
    await store.ledger.insertMarks('minute', cells.dirtyMinutes(), range.toMs)
    samples = []
    tokens = []
    cells = new TouchedCells()
  }
  for (const startMs of minutesOf(range)) {
    for (const document of minuteOf(startMs, range, n)) {
      n++
      if ('model' in document) {
        tokens.push(document)
        cells.touch(document.host, document.ts.getTime())
      } else {
        samples.push(document)
        cells.touchAround(document.host, document.ts.getTime())
      }
      if (samples.length + tokens.length >= WRITE_EVENTS) await flush()
    }
  }
  await flush()
  return n - firstId
}

function* minutesOf({ fromMs, toMs, minutesOfDay = 1440 }: FleetRange): Generator<number> {
  for (let startMs = fromMs; startMs < toMs; startMs += CELL_MS) {
    if ((startMs / CELL_MS) % 1440 < minutesOfDay) yield startMs
  }
}

/** The documents of a minute: samples of all slots at each instant, then the usage, spread over the minute. */
function* minuteOf(startMs: number, range: FleetRange, firstId: number): Generator<GpuDocument | TokenDocument> {
  const { sampleEveryMs, tokensPerMinute, modelsPerGpu } = range
  let n = firstId
  for (let atMs = startMs; atMs < startMs + CELL_MS; atMs += sampleEveryMs) {
    for (let slot = 0; slot < SLOTS; slot++) {
      // Agents do not tick together: each slot has a fraction of a second of its own.
      const ts = new Date(atMs + slot * 11)
      yield { _id: idOf(n++, slot), ts, ...sampleOf(slot, atMs / 1000), price_per_hour_usd: 0.8 } as GpuDocument
    }
  }
  for (let i = 0; i < tokensPerMinute; i++) {
    const ts = new Date(startMs + Math.floor((i * CELL_MS) / tokensPerMinute))
    const usage = usageOf(n, modelsPerGpu)
    const priced = { cost_per_token: 1.7e-7, tokens_per_second: 1250.5, price_per_hour_usd: 0.8, window_s: 30 }
    yield { _id: idOf(n, n), ts, ...usage, ...priced } as TokenDocument
    n++
  }
}

function idOf(n: number, key: number): string {
  return logEventId(ID_PREFIXES[key % 12]!, n, Math.imul(n, 0x9e3779b1) >>> 0)
}
