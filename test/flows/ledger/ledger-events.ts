// A hundred thousand events that are hard on a ledger, the same ones each time: five hosts, one of them unknown, slots
// whose samples stop or lack utilisation, one event on several GPUs, cached tokens, several requests, none at all,
// names that files and databases could trip over, and a third of an afternoon that comes late.

import type { GpuDocument, TokenDocument } from '../../../src/domain/events/event.ts'
import { ownEventId } from '../../../src/domain/events/event-id.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
/** Two midnights' worth of edges, the hours of the trace, and a piece of a day by itself. */
const WINDOWS = [
  { fromMs: Date.UTC(2023, 10, 15, 22), toMs: Date.UTC(2023, 10, 16, 2) },
  { fromMs: Date.UTC(2023, 10, 16, 17), toMs: Date.UTC(2023, 10, 16, 20) },
  { fromMs: Date.UTC(2023, 10, 17, 11, 30), toMs: Date.UTC(2023, 10, 17, 12, 30) },
]
const LENGTH_MS = WINDOWS.reduce((sum, { fromMs, toMs }) => sum + toMs - fromMs, 0)
const HOSTS = ['h1', 'h2', 'h3', 'ü-host', null]
const MODELS = ['llama', 'qwen', 'größe/70b', 'a "quoted", name', '=SUM(A1)', 'Llama']
const TENANTS = ['chat', 'batch', 'ads\tx', 'other', 'zoë', null]
const SAMPLE_EVERY_MS = 30_000

export interface LedgerEvents {
  samples: GpuDocument[]
  tokens: TokenDocument[]
}

/** Numbers from 0 to 1, the same for the same seed. */
export function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

/** `count` events; those that came late are marked so, as a processor does. */
export function hardEvents(count: number): LedgerEvents {
  const random = randomOf(3)
  const samples = slotSamples(random)
  const tokens = Array.from({ length: count - samples.length }, (_, n) => tokenEvent(n, random))
  return { samples, tokens }
}

function slotSamples(random: () => number): GpuDocument[] {
  const samples: GpuDocument[] = []
  for (const host of HOSTS) {
    for (let gpu = 0; gpu < 4; gpu++) {
      // The unknown host has one GPU with samples; the other three are only named by events.
      if (host === null && gpu > 0) continue
      for (const { fromMs, toMs } of WINDOWS) {
        for (let atMs = fromMs + gpu * 777; atMs < toMs; atMs += SAMPLE_EVERY_MS) {
          // Some samples are lost; now and then an agent is silent for longer than a sample reaches.
          if (random() < 0.05) continue
          if (random() < 0.01) atMs += 3 * MINUTE
          samples.push(sampleOf({ host, gpu, atMs }, random))
        }
      }
    }
  }
  return samples
}

function sampleOf(slot: { host: string | null; gpu: number; atMs: number }, random: () => number): GpuDocument {
  const { host, gpu, atMs } = slot
  return {
    _id: ownEventId(host ?? '', `s-${gpu}-${atMs}`),
    ts: new Date(atMs),
    ...{ host, gpu_index: gpu },
    ...(gpu === 3 ? {} : { utilization: Math.round(random() * 1000) / 1000 }),
    ...(host === 'h2' ? { uuid: `GPU-${gpu}-${atMs < WINDOWS[1]!.fromMs ? 'old' : 'new'}` } : {}),
    ...(host === 'h3' ? { name: 'NVIDIA H100 80GB HBM3', power_w: 300 + gpu, energy_j: atMs / 3 } : {}),
    ...(gpu === 1 ? { price_per_hour_usd: 2.35 } : {}),
    ...(gpu === 2 ? { model_loaded: 'llama' } : { mem_used_mb: gpu * 4000, mem_total_mb: 80_000 }),
  } as GpuDocument
}

function tokenEvent(n: number, random: () => number): TokenDocument {
  const pick = <V>(values: readonly V[]): V => values[Math.floor(random() * values.length)]!
  let atMs = Math.floor(random() * LENGTH_MS)
  const window = WINDOWS.find(({ fromMs, toMs }) => {
    if (atMs < toMs - fromMs) return true
    atMs -= toMs - fromMs
    return false
  })!
  const host = pick(HOSTS)
  const tenant = pick(TENANTS)
  const prompt = random() < 0.02 ? 0 : Math.floor(random() * 8000)
  const gpu = Math.floor(random() * 4)
  const isLate = n % 3 === 0 && window === WINDOWS[1]
  const gpus = random() < 0.1 ? { gpus: [3, 0, 2].slice(0, 2 + Math.floor(random() * 2)) } : { gpu_index: gpu }
  return {
    _id: ownEventId(host ?? '', `t-${n}`),
    ts: new Date(window.fromMs + atMs),
    host,
    ...gpus,
    // A GPU serves two models: more would only make rows.
    model: MODELS[(2 * gpu + Math.floor(random() * 2)) % MODELS.length]!,
    ...(tenant === null ? {} : { tenant }),
    prompt_tokens: prompt,
    completion_tokens: random() < 0.02 ? 0 : Math.floor(random() * 900),
    ...(random() < 0.3 ? { cached_prompt_tokens: Math.floor(prompt * random()) } : {}),
    ...(random() < 0.1 ? { requests: Math.floor(random() * 5) } : {}),
    latency_ms: 5,
    ...{ cost_per_token: null, tokens_per_second: null, price_per_hour_usd: 1, window_s: 30 },
    ...(isLate ? { late: true } : {}),
  } as TokenDocument
}

/** A price book with a rule of each kind, over the hours of the second window; GPU 0 of h1 is paid for until 22:00. */
export const HARD_BOOK = {
  currency: 'USD',
  weights: { input: 1, cached: 0.1, output: 4 },
  rules: [
    {
      ...{ id: 'slot', match: { host: 'h1', gpu_index: 0 }, kind: 'reserved', usd_per_hour: 1.37 },
      ...{ from: '2023-11-16T18:00:30Z', to: new Date(Date.UTC(2023, 10, 16, 22) - HOUR / 2).toISOString() },
    },
    { id: 'uuid', match: { uuid: 'GPU-2-new' }, kind: 'spot', usd_per_hour: 0.77 },
    { id: 'host', match: { host: 'ü-host' }, kind: 'on-demand', usd_per_hour: 3.33, from: '2023-11-16T17:30:10Z' },
    {
      ...{ id: 'own', match: { name: 'NVIDIA H100*' }, kind: 'owned', purchase_usd: 33_120, salvage_usd: 6840 },
      ...{ life_years: 3, usd_per_kwh: 0.2, pue: 1.4 },
    },
  ],
} as const
