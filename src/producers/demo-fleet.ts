// The demo's made-up fleet: six GPUs of three kinds on three hosts, the models on them, and how serving requests shows in
// GPU samples. Utilization follows the mean number of requests at once in the interval that a sample covers, by a curve
// that saturates (a knee, as batching has it); power follows utilization, energy is power summed up, memory is weights
// plus cache. Prices are examples of on-demand prices, not quotes; host names, UUIDs and speeds are invented as well.
// One GPU holds no model and is always idle, so that the page has unallocated cost to show.

import type { GpuSample, TokenUsage } from '../domain/events/schemas.ts'

/** A service of the trace that the demo is shaped like. */
export type DemoService = 'code' | 'conversation'

/** A model that serves requests on GPUs of one host. Speeds are those of one request. */
export interface Deployment {
  model: string
  host: string
  gpus: readonly number[]
  service: DemoService
  /** Share of the service's requests that it takes; those of a service sum to 1. */
  share: number
  prefillTokensPerSecond: number
  decodeMsPerToken: number
  /** Requests at once at which its GPUs are about 62 % busy. */
  kneeRequests: number
  /** Memory of its weights on each of its GPUs. */
  weightsMb: number
}

/** Three models: one on two GPUs together, one as two replicas, one on one GPU. */
export const DEPLOYMENTS: readonly Deployment[] = [
  {
    model: 'qwen2.5-coder-32b',
    host: 'demo-a100',
    gpus: [0],
    service: 'code',
    share: 0.5,
    prefillTokensPerSecond: 9000,
    decodeMsPerToken: 28,
    kneeRequests: 3,
    weightsMb: 65_800,
  },
  {
    model: 'qwen2.5-coder-32b',
    host: 'demo-a100',
    gpus: [1],
    service: 'code',
    share: 0.5,
    prefillTokensPerSecond: 9000,
    decodeMsPerToken: 28,
    kneeRequests: 3,
    weightsMb: 65_800,
  },
  {
    model: 'llama-3.3-70b',
    host: 'demo-h100',
    gpus: [0, 1],
    service: 'conversation',
    share: 0.45,
    prefillTokensPerSecond: 11_000,
    decodeMsPerToken: 21,
    kneeRequests: 12,
    weightsMb: 37_400,
  },
  {
    model: 'llama-3.1-8b',
    host: 'demo-l40s',
    gpus: [0],
    service: 'conversation',
    share: 0.55,
    prefillTokensPerSecond: 14_000,
    decodeMsPerToken: 13,
    kneeRequests: 8,
    weightsMb: 16_300,
  },
]

/** A GPU of the fleet: what its samples say of it, and its power draw when idle and when wholly busy. */
export interface FleetGpu {
  host: string
  gpuIndex: number
  name: string
  uuid: string
  memTotalMb: number
  idleW: number
  maxW: number
  pricePerHourUsd: number
}

const H100 = { name: 'NVIDIA H100 80GB HBM3', memTotalMb: 81_559, idleW: 72, maxW: 690, pricePerHourUsd: 3.9 }
const A100 = { name: 'NVIDIA A100-SXM4-80GB', memTotalMb: 81_920, idleW: 58, maxW: 395, pricePerHourUsd: 2.2 }
const L40S = { name: 'NVIDIA L40S', memTotalMb: 46_068, idleW: 34, maxW: 345, pricePerHourUsd: 1.1 }

/** Six GPUs of three kinds on three hosts; the last one holds no model and is always idle. */
export const FLEET: readonly FleetGpu[] = [
  { host: 'demo-h100', gpuIndex: 0, uuid: 'GPU-de300000-0000-4000-8000-000000000001', ...H100 },
  { host: 'demo-h100', gpuIndex: 1, uuid: 'GPU-de300000-0000-4000-8000-000000000002', ...H100 },
  { host: 'demo-a100', gpuIndex: 0, uuid: 'GPU-de300000-0000-4000-8000-000000000003', ...A100 },
  { host: 'demo-a100', gpuIndex: 1, uuid: 'GPU-de300000-0000-4000-8000-000000000004', ...A100 },
  { host: 'demo-l40s', gpuIndex: 0, uuid: 'GPU-de300000-0000-4000-8000-000000000005', ...L40S },
  { host: 'demo-l40s', gpuIndex: 1, uuid: 'GPU-de300000-0000-4000-8000-000000000006', ...L40S },
]

/** Memory in use on a GPU without a model. */
const DRIVER_MB = 480
const CACHE_MB_PER_REQUEST = 420

/** A request and when it keeps which deployment busy. */
export interface DemoRequest {
  deployment: Deployment
  startMs: number
  endMs: number
  event: TokenUsage
}

/** The deployment that takes a request of the service; `draw` is uniform from 0 to below 1. */
export function pickDeployment(service: DemoService, draw: number): Deployment {
  const candidates = DEPLOYMENTS.filter((deployment) => deployment.service === service)
  let upTo = 0
  for (const deployment of candidates) {
    upTo += deployment.share
    if (draw < upTo) return deployment
  }
  return candidates.at(-1)!
}

/** The fleet at work: takes requests as they arrive and samples every GPU. Memory: the requests being served. */
export class DemoFleet {
  readonly #run: string
  readonly #intervalMs: number
  readonly #served = new Map<Deployment, DemoRequest[]>(DEPLOYMENTS.map((deployment) => [deployment, []]))
  readonly #energyJ = new Map<FleetGpu, number>(FLEET.map((gpu) => [gpu, 0]))
  #samples = 0

  /** `run` begins every sample's id; `intervalMs` is the time between two samples of a GPU, milliseconds. */
  constructor(run: string, intervalMs: number) {
    this.#run = run
    this.#intervalMs = intervalMs
  }

  /** A request has arrived: it counts in each sample from its start to its end. */
  serve(request: DemoRequest): void {
    this.#served.get(request.deployment)!.push(request)
  }

  /** One sample of each GPU at `nowMs`, epoch milliseconds; call it once an interval, with every earlier request served. */
  sample(nowMs: number): GpuSample[] {
    const loads = DEPLOYMENTS.map((deployment) => ({ deployment, atOnce: this.#requestsAtOnce(deployment, nowMs) }))
    const ts = new Date(nowMs).toISOString()
    return FLEET.map((gpu) => {
      const load = loads.find(
        ({ deployment }) => deployment.host === gpu.host && deployment.gpus.includes(gpu.gpuIndex),
      )
      return this.#sampleOf(gpu, ts, load)
    })
  }

  /** Mean number of requests at once in the interval that ends at `nowMs`; forgets those that have ended. */
  #requestsAtOnce(deployment: Deployment, nowMs: number): number {
    const served = this.#served.get(deployment)!
    const sinceMs = nowMs - this.#intervalMs
    const sumMs = served.reduce((sum, { startMs, endMs }) => {
      return sum + Math.max(0, Math.min(endMs, nowMs) - Math.max(startMs, sinceMs))
    }, 0)
    this.#served.set(
      deployment,
      served.filter(({ endMs }) => endMs > nowMs),
    )
    return sumMs / this.#intervalMs
  }

  #sampleOf(gpu: FleetGpu, ts: string, load: { deployment: Deployment; atOnce: number } | undefined): GpuSample {
    const atOnce = load?.atOnce ?? 0
    const utilization = round(0.99 * (1 - Math.exp(-atOnce / (load?.deployment.kneeRequests ?? 1))), 3)
    const powerW = round(gpu.idleW + (gpu.maxW - gpu.idleW) * utilization, 1)
    const energyJ = this.#energyJ.get(gpu)! + (powerW * this.#intervalMs) / 1000
    this.#energyJ.set(gpu, energyJ)
    const usedMb = load === undefined ? DRIVER_MB : load.deployment.weightsMb + atOnce * CACHE_MB_PER_REQUEST
    return {
      ts,
      host: gpu.host,
      gpu_index: gpu.gpuIndex,
      name: gpu.name,
      uuid: gpu.uuid,
      utilization,
      mem_used_mb: Math.round(Math.min(usedMb, gpu.memTotalMb * 0.97)),
      mem_total_mb: gpu.memTotalMb,
      power_w: powerW,
      energy_j: round(energyJ, 1),
      price_per_hour_usd: gpu.pricePerHourUsd,
      ...(load === undefined ? {} : { model_loaded: load.deployment.model }),
      event_id: `${this.#run}-gpu-${this.#samples++}`,
    }
  }
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
