// The demo workload: an endless, seeded stream of token usage and GPU samples in event-time order, so that a first run
// shows realistic traffic. Sizes, requests per minute and gaps between arrivals follow the published figures of the
// Azure LLM inference trace 2023, code and conversation service, each generated separately and merged by time (the code
// service has silent minutes). Source of the figures: Microsoft, Azure/AzurePublicDataset, licence CC-BY; attribution:
// Patel et al., "Splitwise: Efficient generative LLM inference using phase splitting", ISCA 2024. Only statistics of
// the trace are here, none of its rows. Hosts, GPUs, models, tenants, speeds and prices are invented: the prices are
// examples of on-demand prices, not quotes. Pure: the same options generate the same events.

import type { GpuSample, TokenUsage } from '../domain/events/event.ts'
import { DemoFleet, type DemoRequest, type DemoService, pickDeployment } from './demo-fleet.ts'
import { seededRandom } from './seeded-random.ts'

/** One demo event and the topic that it is for. */
export type DemoEvent = { topic: 'gpu'; event: GpuSample } | { topic: 'token'; event: TokenUsage }

/** Options of `generateDemo`. */
export interface DemoOptions {
  /** Any integer; the same seed generates the same workload. */
  seed: number
  /** Event time of the first samples, epoch milliseconds, and start of minute 0 of the trace's figures. */
  startMs: number
  /** Time between two samples of one GPU, milliseconds; 1000 when absent. */
  sampleIntervalMs?: number
}

/** The trace's values at the percentiles of `PERCENTILES`. */
type Quantiles = readonly number[]

/** The published statistics of one service of the trace. */
export interface TraceShape {
  inputTokens: Quantiles
  outputTokens: Quantiles
  gapMs: Quantiles
  /** Requests in each minute of the trace, from its first one. */
  requestsPerMinute: readonly number[]
  /** How far a minute's gaps may be stretched to fill it: 1 leaves the rest of a quiet minute silent (bursts). */
  maxGapStretch: number
}

/** Shares of the values that are at most the quantile's. */
export const PERCENTILES: readonly number[] = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999]

/** Statistics of the trace: the generator's input, and what its test compares its output with. */
export const TRACE_SHAPES: Readonly<Record<DemoService, TraceShape>> = {
  code: {
    inputTokens: [17, 75, 147, 578, 1469, 2745, 5194, 7315, 7436, 7437],
    outputTokens: [6, 6, 7, 9, 13, 24, 55, 90, 252, 831],
    gapMs: [0, 0, 0, 2, 64, 104, 273, 401, 2205, 82752],
    requestsPerMinute: [
      63, 0, 0, 531, 187, 130, 15, 42, 38, 476, 421, 63, 0, 0, 632, 299, 0, 20, 396, 315, 116, 78, 306, 447, 252, 34,
      128, 111, 406, 234, 118, 169, 130, 306, 158, 0, 339, 55, 285, 191, 0, 28, 205, 245, 99, 0, 0, 32, 0, 0, 0, 97,
      212, 22, 32, 113, 47, 196,
    ],
    maxGapStretch: 1,
  },
  conversation: {
    inputTokens: [29, 181, 207, 396, 1020, 1189, 2735, 4083, 4142, 6212],
    outputTokens: [16, 41, 54, 85, 129, 395, 424, 451, 601, 954],
    gapMs: [1, 6, 16, 48, 118, 247, 421, 565, 891, 1431],
    requestsPerMinute: [
      191, 265, 329, 353, 307, 273, 268, 261, 322, 298, 301, 302, 345, 326, 283, 279, 280, 308, 343, 351, 351, 343, 408,
      396, 386, 398, 432, 480, 476, 453, 448, 507, 438, 413, 423, 418, 465, 311, 329, 316, 333, 355, 319, 360, 334, 375,
      330, 249, 221, 249, 265, 280, 256, 254, 242, 260, 246, 225, 37,
    ],
    maxGapStretch: 3,
  },
}

const P90 = PERCENTILES.indexOf(0.9)
const MINUTE_MS = 60_000
/** Tokens per block of an engine's prefix cache. */
const CACHE_BLOCK_TOKENS = 16

/** Tenants of each service; a name that is listed twice gets twice the requests. */
const TENANTS: Readonly<Record<DemoService, readonly string[]>> = {
  code: ['ide-plugin', 'ide-plugin', 'ide-plugin', 'code-review'],
  conversation: ['support-chat', 'support-chat', 'support-chat', 'research', 'research', 'code-review'],
}

/**
 * Generates an endless stream of the demo's events, in event-time order. A token event's `ts` is the request's arrival,
 * as in the trace; a GPU's utilization at `ts` is that of the interval that ends there. Token events do not depend on
 * `sampleIntervalMs`. Ids consist of seed, start and a counter, so that runs with different starts do not collide.
 * @throws RangeError when an option is not an integer or the interval is below 1 ms.
 */
export function generateDemo(options: DemoOptions): Generator<DemoEvent, never, void> {
  const { seed, startMs, sampleIntervalMs = 1000 } = options
  for (const [name, value, minimum] of [
    ['seed', seed, Number.MIN_SAFE_INTEGER],
    ['startMs', startMs, 0],
    ['sampleIntervalMs', sampleIntervalMs, 1],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < minimum) {
      throw new RangeError(`Cannot generate the demo: ${name} is ${value}, expected an integer of at least ${minimum}`)
    }
  }
  return eventsOf({ seed, startMs, sampleIntervalMs })
}

function* eventsOf({ seed, startMs, sampleIntervalMs }: Required<DemoOptions>): Generator<DemoEvent, never, void> {
  const run = `demo-${seed}-${startMs.toString(36)}`
  const services = (['code', 'conversation'] as const).map((service, index) =>
    requests(service, run, startMs, seededRandom(seed * 2 + index)),
  )
  const next = services.map((service) => service.next().value)
  const fleet = new DemoFleet(run, sampleIntervalMs)
  for (let sampleMs = startMs; ; sampleMs += sampleIntervalMs) {
    for (;;) {
      const first = next[0]!.startMs <= next[1]!.startMs ? 0 : 1
      const request = next[first]!
      if (request.startMs > sampleMs) break
      next[first] = services[first]!.next().value
      fleet.serve(request)
      yield { topic: 'token', event: request.event }
    }
    for (const event of fleet.sample(sampleMs)) yield { topic: 'gpu', event }
  }
}

/** The requests of one service, by arrival. */
function* requests(
  service: DemoService,
  run: string,
  startMs: number,
  random: () => number,
): Generator<DemoRequest, never, void> {
  const shape = TRACE_SHAPES[service]
  const tenants = TENANTS[service]
  const times = arrivals(shape, startMs, random)
  for (let counter = 0; ; counter++) {
    const arrivalMs = times.next().value
    const deployment = pickDeployment(service, random())
    const promptTokens = Math.round(quantile(shape.inputTokens, random()))
    const completionTokens = Math.round(quantile(shape.outputTokens, random()))
    // A third of the prompts begin like one before: up to 90 % of their whole blocks are cached.
    const hit = random() < 0.35 ? random() * 0.9 : 0
    const cachedTokens = Math.floor((promptTokens * hit) / CACHE_BLOCK_TOKENS) * CACHE_BLOCK_TOKENS
    const prefillMs = Math.ceil(15 + ((promptTokens - cachedTokens) * 1000) / deployment.prefillTokensPerSecond)
    const decodeMs = Math.ceil(completionTokens * deployment.decodeMsPerToken * (0.9 + 0.2 * random()))
    const event: TokenUsage = {
      ts: new Date(arrivalMs).toISOString(),
      host: deployment.host,
      ...(deployment.gpus.length === 1 ? { gpu_index: deployment.gpus[0]! } : { gpus: [...deployment.gpus] }),
      model: deployment.model,
      tenant: tenants[Math.floor(random() * tenants.length)]!,
      prompt_tokens: promptTokens,
      completion_tokens: completionTokens,
      ...(cachedTokens > 0 ? { cached_prompt_tokens: cachedTokens } : {}),
      latency_ms: prefillMs + decodeMs,
      prefill_ms: prefillMs,
      decode_ms: decodeMs,
      request_id: `${service}-${counter}`,
      event_id: `${run}-${service}-${counter}`,
    }
    yield { deployment, startMs: arrivalMs, endMs: arrivalMs + prefillMs + decodeMs, event }
  }
}

/**
 * Arrival times: each minute has exactly its number of requests, with gaps from the quantile table. The draws of a
 * minute are spread over the table (one from each n-th), which keeps the quantiles of an hour close to the table. Where
 * they are too long for the minute they are shortened; where too short, stretched as far as the service's shape allows,
 * and the rest of the minute is silent. The table's longest gaps are those silences: one a minute, so not drawn.
 */
function* arrivals(shape: TraceShape, startMs: number, random: () => number): Generator<number, never, void> {
  const counts = shape.requestsPerMinute
  const drawnShare = 1 - counts.length / counts.reduce((sum, count) => sum + count, 0)
  for (let minute = 0; ; minute++) {
    const count = counts[minute % counts.length]!
    if (count === 0) continue
    const drawn = Array.from({ length: count }, (_, i) => quantile(shape.gapMs, ((i + random()) / count) * drawnShare))
    const gaps = fitMinute(drawn, shape)
    shuffle(gaps, random)
    const silenceMs = MINUTE_MS - gaps.reduce((sum, gap) => sum + gap, 0)
    let offsetMs = random() * (silenceMs + gaps[0]!)
    for (let i = 0; i < count; i++) {
      if (i > 0) offsetMs += gaps[i]!
      yield startMs + minute * MINUTE_MS + Math.min(Math.max(0, Math.floor(offsetMs)), MINUTE_MS - 1)
    }
  }
}

/**
 * Fits gaps, in ascending order, into one minute. Too long: the longest are cut to one length, not below the table's
 * p90, so that the table's middle stays; where that is not enough, all are shrunk. Too short: all are stretched.
 */
function fitMinute(gaps: readonly number[], shape: TraceShape): number[] {
  let sumMs = gaps.reduce((sum, gap) => sum + gap, 0)
  if (sumMs <= MINUTE_MS) return gaps.map((gap) => gap * Math.min(shape.maxGapStretch, MINUTE_MS / sumMs))
  let capMs = Number.POSITIVE_INFINITY
  for (let kept = gaps.length - 1; kept >= 0; kept--) {
    sumMs -= gaps[kept]!
    capMs = (MINUTE_MS - sumMs) / (gaps.length - kept)
    if (kept === 0 || capMs >= gaps[kept - 1]!) break
  }
  const cut = gaps.map((gap) => Math.min(gap, Math.max(capMs, shape.gapMs[P90]!)))
  const cutSumMs = cut.reduce((sum, gap) => sum + gap, 0)
  return cut.map((gap) => gap * Math.min(1, MINUTE_MS / cutSumMs))
}

/** Inverse CDF: log-linear between the table's percentiles (of value + 1, as gaps can be 0), flat outside of them. */
function quantile(values: Quantiles, share: number): number {
  const above = PERCENTILES.findIndex((percentile) => percentile >= share)
  if (above === 0) return values[0]!
  if (above === -1) return values.at(-1)!
  const low = PERCENTILES[above - 1]!
  const part = (share - low) / (PERCENTILES[above]! - low)
  return Math.exp(Math.log1p(values[above - 1]!) * (1 - part) + Math.log1p(values[above]!) * part) - 1
}

function shuffle(values: number[], random: () => number): void {
  for (let i = values.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    const value = values[i]!
    values[i] = values[j]!
    values[j] = value
  }
}
