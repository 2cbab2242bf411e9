// A two-GPU fleet for the trace, and what it costs, as somebody would work it out in a spreadsheet: plain numbers, one
// line a minute and GPU, then the split over models and tenants. Written apart from src/ on purpose: it imports nothing
// from there. GPU 0 has no price of its own (the default applies) and nothing loaded; GPU 1 says its price and the
// model it holds, and is silent for 150 s in the trace's fourth minute, so that there is time which no sample covers.

import type { TraceRow } from '../trace/trace-file.ts'

export const HOST = 'gpu-host'
export const DEFAULT_USD = 1.8
const SAMPLE_USD = 2.35
const LOADED_MODEL = 'qwen'
const EVERY_MS = 10_000
const MAX_GAP_MS = 90_000
const MINUTE = 60_000

/** The trace is dealt out to four users: row i is for user i % 4. */
export const USERS = [
  { gpu: 0, model: 'code', tenant: 'chat' },
  { gpu: 1, model: 'code', tenant: 'chat' },
  { gpu: 0, model: 'code', tenant: 'batch' },
  { gpu: 1, model: LOADED_MODEL, tenant: 'batch' },
] as const

export interface FleetSample {
  ts: string
  host: string
  gpu_index: number
  utilization: number
  mem_used_mb: number
  mem_total_mb: number
  price_per_hour_usd?: number
  model_loaded?: string
}

/** Samples of both GPUs every 10 s, from two minutes before the trace to two minutes after it. */
export function fleetSamples(rows: readonly TraceRow[]): FleetSample[] {
  const firstMs = Math.floor(rows[0]!.atMs / MINUTE) * MINUTE
  const samples: FleetSample[] = []
  for (let n = 0, atMs = firstMs - 2 * MINUTE + 3000; atMs < rows.at(-1)!.atMs + 2 * MINUTE; n++, atMs += EVERY_MS) {
    const common = { ts: new Date(atMs).toISOString(), host: HOST, mem_used_mb: 800, mem_total_mb: 80_000 }
    samples.push({ ...common, gpu_index: 0, utilization: ((n * 37) % 101) / 100 })
    const isSilent = atMs > firstMs + 3 * MINUTE + 3000 && atMs < firstMs + 5 * MINUTE + 33_000
    if (isSilent) continue
    const own = { price_per_hour_usd: SAMPLE_USD, model_loaded: LOADED_MODEL }
    samples.push({ ...common, gpu_index: 1, utilization: ((n * 53) % 89) / 100, ...own })
  }
  return samples
}

/** A line of the spreadsheet; `user` null: of a minute without tokens. */
export interface Line {
  startMs: number
  gpu: number
  model: string | null
  tenant: string | null
  requests: number
  prompt: number
  completion: number
  coveredS: number
  assumedS: number
  busyUsd: number
  loadedIdleUsd: number
  unallocatedUsd: number
  assumedUsd: number
}

/** What each minute of each GPU cost, and the same split over models and tenants. `priceOf` in USD/h by GPU. */
export function spreadsheet(
  rows: readonly TraceRow[],
  samples: readonly FleetSample[],
  priceOf: readonly number[] = [DEFAULT_USD, SAMPLE_USD],
): { byGpu: Line[]; byUser: Line[] } {
  const times = samples.map((sample) => Date.parse(sample.ts))
  const firstMs = Math.floor(Math.min(...times) / MINUTE) * MINUTE
  const lastMs = Math.max(...times)
  const byGpu: Line[] = []
  const byUser: Line[] = []
  for (let startMs = firstMs; startMs <= lastMs; startMs += MINUTE) {
    for (const gpu of [0, 1]) {
      const users = usersOf(rows, startMs, gpu)
      const whole = wholeOf(samples, { startMs, gpu, usd: priceOf[gpu]!, isUsed: users.length > 0 })
      if (whole.coveredS + whole.assumedS === 0) continue
      byGpu.push({ ...whole, ...sumOf(users) })
      byUser.push(...split(whole, users))
    }
  }
  return { byGpu, byUser }
}

interface User {
  model: string
  tenant: string
  requests: number
  prompt: number
  completion: number
}

function usersOf(rows: readonly TraceRow[], startMs: number, gpu: number): User[] {
  const users = new Map<string, User>()
  rows.forEach(({ atMs, prompt, completion }, i) => {
    const { model, tenant, gpu: on } = USERS[i % 4]!
    if (on !== gpu || atMs < startMs || atMs >= startMs + MINUTE) return
    const user = users.get(`${model} ${tenant}`) ?? { model, tenant, requests: 0, prompt: 0, completion: 0 }
    users.set(`${model} ${tenant}`, user)
    user.requests += 1
    user.prompt += prompt
    user.completion += completion
  })
  return [...users.values()]
}

/** The GPU's minute as a whole: covered time, busy by utilisation, the rest idle; without samples but used: busy. */
function wholeOf(
  samples: readonly FleetSample[],
  { startMs, gpu, usd, isUsed }: { startMs: number; gpu: number; usd: number; isUsed: boolean },
): Line {
  const mine = samples.filter((sample) => sample.gpu_index === gpu)
  let coveredS = 0
  let busyUsd = 0
  for (let i = 1; i < mine.length; i++) {
    const [before, at] = [Date.parse(mine[i - 1]!.ts), Date.parse(mine[i]!.ts)]
    if (at - before > MAX_GAP_MS) continue
    const seconds = Math.max(0, Math.min(at, startMs + MINUTE) - Math.max(before, startMs)) / 1000
    coveredS += seconds
    busyUsd += (seconds / 3600) * usd * mine[i]!.utilization
  }
  const assumedS = isUsed ? 60 - coveredS : 0
  const assumedUsd = cents((assumedS / 3600) * usd)
  const total = cents(((coveredS + assumedS) / 3600) * usd)
  const busy = cents(busyUsd + (assumedS / 3600) * usd)
  const isHeld = isUsed || gpu === 1
  return {
    ...{ startMs, gpu, model: null, tenant: null, requests: 0, prompt: 0, completion: 0, coveredS, assumedS },
    ...{ busyUsd: busy, assumedUsd },
    loadedIdleUsd: isHeld ? total - busy : 0,
    unallocatedUsd: isHeld ? 0 : total - busy,
  }
}

/** Rounded to 10⁻⁹ USD, as money is counted. */
function cents(usd: number): number {
  return Math.round(usd * 1e9) / 1e9
}

function sumOf(users: readonly User[]): Pick<Line, 'requests' | 'prompt' | 'completion'> {
  const sum = (of: (user: User) => number) => users.reduce((total, user) => total + of(user), 0)
  return { requests: sum((u) => u.requests), prompt: sum((u) => u.prompt), completion: sum((u) => u.completion) }
}

/** By tokens; a minute without any goes to the model that is loaded, or to nobody. */
function split(whole: Line, users: readonly User[]): Line[] {
  if (users.length === 0) return [{ ...whole, model: whole.gpu === 1 ? LOADED_MODEL : null }]
  const { prompt, completion } = sumOf(users)
  return users.map((user) => {
    const share = (user.prompt + user.completion) / (prompt + completion)
    return {
      ...{ startMs: whole.startMs, gpu: whole.gpu, ...user },
      coveredS: whole.coveredS * share,
      assumedS: whole.assumedS * share,
      busyUsd: whole.busyUsd * share,
      loadedIdleUsd: whole.loadedIdleUsd * share,
      unallocatedUsd: whole.unallocatedUsd * share,
      assumedUsd: whole.assumedUsd * share,
    }
  })
}
