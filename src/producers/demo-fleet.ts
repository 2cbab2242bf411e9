// The demo's invented fleet: six GPUs of three kinds on three hosts, the models on them, and how requests show in GPU
// samples. Utilization follows the mean number of concurrent requests in the interval that a sample covers, by a curve
// that saturates (a knee, as with batching); power follows utilization, energy is the integral of power, memory is
// weights plus cache. Prices are examples of on-demand prices, not quotes; host names, UUIDs and speeds are invented as
// well. One GPU holds no model and is always idle, so that the page has unallocated cost to show.

import type { GpuSample, TokenUsage } from '../domain/events/event.ts'

/** A service of the trace that the demo is modelled on. */
export type DemoService = 'code' | 'conversation'

/** A model that serves requests on GPUs of one host. Speeds are per request. */
export interface Deployment {
  model: string
  host: string
  gpus: readonly number[]
  service: DemoService
  /** Share of the service's requests that it serves; the shares of a service sum to 1. */
  share: number
  prefillTokensPerSecond: number
  decodeMsPerToken: number
  /** Concurrent requests at which its GPUs are about 62 % busy. */
  kneeRequests: number
  /** Memory of the weights on each GPU. */
  weightsMb: number
}

/** Three models: one sharded over two GPUs, one with two replicas, one on a single GPU. */
const DEPLOYMENTS: readonly Deployment[] = [
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

/** A GPU of the fleet: constant fields of its samples, and its power draw when idle and when fully busy. */
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

/** Six GPUs of three kinds on three hosts; the last holds no model and is always idle. */
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

/** A request, with the deployment that serves it and from when to when. */
export interface DemoRequest {
  deployment: Deployment
  startMs: number
  endMs: number
  event: TokenUsage
}

/** The deployment that serves a request of the service; `draw` is uniform from 0 to below 1. */
export function pickDeployment(service: DemoService, draw: number): Deployment {
  const candidates = DEPLOYMENTS.filter((deployment) => deployment.service === service)
  let upTo = 0
  for (const deployment of candidates) {
    upTo += deployment.share
    if (draw < upTo) return deployment
  }
  return candidates.at(-1)!
}

/**
 * Simulates the fleet: takes requests as they arrive and samples every GPU. Holds only requests that are being served.
 */
export class DemoFleet {
  readonly #run: string
  readonly #intervalMs: number
  readonly #served = new Map<Deployment, DemoRequest[]>(DEPLOYMENTS.map((deployment) => [deployment, []]))
  readonly #energyJ = new Map<FleetGpu, number>(FLEET.map((gpu) => [gpu, 0]))
  #samples = 0

  /** `run` is the prefix of every sample's id; `intervalMs` the time between two samples of a GPU, milliseconds. */
  constructor(run: string, intervalMs: number) {
    this.#run = run
    this.#intervalMs = intervalMs
  }

  /** Adds a request that has arrived; it counts in each sample from its start to its end. */
  serve(request: DemoRequest): void {
    this.#served.get(request.deployment)!.push(request)
  }

  /**
   * One sample of each GPU at `nowMs`, epoch milliseconds; to be called once per interval, after all earlier requests.
   */
  sample(nowMs: number): GpuSample[] {
    const loads = DEPLOYMENTS.map((deployment) => ({
      deployment,
      concurrency: this.#meanConcurrency(deployment, nowMs),
    }))
    const ts = new Date(nowMs).toISOString()
    return FLEET.map((gpu) => {
      const load = loads.find(
        ({ deployment }) => deployment.host === gpu.host && deployment.gpus.includes(gpu.gpuIndex),
      )
      return this.#sampleOf(gpu, ts, load)
    })
  }

  /** Mean number of concurrent requests in the interval that ends at `nowMs`; removes those that have ended. */
  #meanConcurrency(deployment: Deployment, nowMs: number): number {
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

  #sampleOf(gpu: FleetGpu, ts: string, load: { deployment: Deployment; concurrency: number } | undefined): GpuSample {
    const concurrency = load?.concurrency ?? 0
    const utilization = round(0.99 * (1 - Math.exp(-concurrency / (load?.deployment.kneeRequests ?? 1))), 3)
    const powerW = round(gpu.idleW + (gpu.maxW - gpu.idleW) * utilization, 1)
    const energyJ = this.#energyJ.get(gpu)! + (powerW * this.#intervalMs) / 1000
    this.#energyJ.set(gpu, energyJ)
    const usedMb = load === undefined ? DRIVER_MB : load.deployment.weightsMb + concurrency * CACHE_MB_PER_REQUEST
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
