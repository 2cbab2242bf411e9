// The seed: a JSON array that describes GPUs (as existing deployments have it for machines without one), and the stream
// of pairs that is made from it: a GPU sample and a token event of the same GPU, in turn, with small jitter around the
// seed's figures. A figure that the seed does not have is not made up in samples; tokens and latency, which a seed
// rarely has, come from defaults. Seed files are checked as a whole: all problems at once, each with what is allowed.
// Pure: time, host name and the seed of the random numbers come in.

import type { GpuSample, TokenUsage } from '../domain/events/schemas.ts'
import { seededRandom } from './seeded-random.ts'

/** One GPU of a seed file. Fields that are not listed are ignored. */
export interface SeedGpu {
  /** Index on its host; its place in the file when the file does not say. */
  gpu_index: number
  host?: string
  name?: string
  uuid?: string
  utilization?: number
  mem_used_mb?: number
  mem_total_mb?: number
  power_w?: number
  price_per_hour_usd?: number
  /** Model that the token events name; `seed-model` when absent. */
  model?: string
  tenant?: string
  /** Typical figures of one request. */
  prompt_tokens?: number
  completion_tokens?: number
  latency_ms?: number
}

/** One thing that is wrong in a seed file; `index` is the GPU's place in the array, null for the file as a whole. */
export interface SeedProblem {
  index: number | null
  field: string | null
  value: unknown
  allowed: string
}

/** A seed file that cannot be used, with everything that is wrong in it. */
export class SeedError extends Error {
  readonly problems: readonly SeedProblem[]

  constructor(source: string, problems: readonly SeedProblem[]) {
    super(`Cannot use seed ${quote(source)}: ${problems.map(describe).join('; ')}`)
    this.name = 'SeedError'
    this.problems = problems
  }
}

/** Options of `pairs`. */
export interface PairOptions {
  /** Event time of the first pair, epoch milliseconds. */
  startMs: number
  /** Any integer; the same number gives the same jitter. */
  seedNumber: number
  /** Host of GPUs to which the seed gives none. */
  hostname: string
  /** Number of hosts with the same GPUs: `hostname`, or `hostname-1` and so on; the seed's own hosts when absent. */
  eventHosts?: number
  /** Number of GPUs on each host, the seed's in turn, numbered from 0; as many as in the seed when absent. */
  gpus?: number
  /** Event time between two pairs, milliseconds; 500 when absent. */
  intervalMs?: number
  /** Says the event time of each pair, epoch milliseconds, instead of startMs and intervalMs: for a paced producer. */
  nowMs?: () => number
}

/** A GPU sample and a token event of the same GPU and time. */
export interface SeedPair {
  gpu: GpuSample
  token: TokenUsage
}

interface Rule {
  kind: 'integer' | 'number' | 'text'
  maximum: number
}

const RULES: Readonly<Record<keyof SeedGpu, Rule>> = {
  gpu_index: { kind: 'integer', maximum: 1023 },
  host: { kind: 'text', maximum: 256 },
  name: { kind: 'text', maximum: 256 },
  uuid: { kind: 'text', maximum: 256 },
  utilization: { kind: 'number', maximum: 1 },
  mem_used_mb: { kind: 'number', maximum: 1e9 },
  mem_total_mb: { kind: 'number', maximum: 1e9 },
  power_w: { kind: 'number', maximum: 1e6 },
  price_per_hour_usd: { kind: 'number', maximum: 1e6 },
  model: { kind: 'text', maximum: 256 },
  tenant: { kind: 'text', maximum: 256 },
  prompt_tokens: { kind: 'integer', maximum: 1e9 },
  completion_tokens: { kind: 'integer', maximum: 1e9 },
  latency_ms: { kind: 'number', maximum: 1e9 },
}
const FIELDS = Object.keys(RULES) as (keyof SeedGpu)[]

/**
 * Parses the text of a seed file; `source` is how messages name it. A field that is null counts as absent.
 * @throws SeedError with all problems: not a JSON array of objects, empty, a value out of its bounds, a GPU there twice.
 */
export function parseSeed(text: string, source = 'seed'): SeedGpu[] {
  let parsed: unknown
  try {
    parsed = JSON.parse(text.replace(/^\ufeff/, ''))
  } catch (error) {
    const allowed = `a JSON array of GPU objects (${(error as Error).message.slice(0, 120)})`
    throw new SeedError(source, [{ index: null, field: null, value: text.slice(0, 80), allowed }])
  }
  if (!Array.isArray(parsed) || parsed.length === 0) {
    throw new SeedError(source, [
      { index: null, field: null, value: parsed, allowed: 'a JSON array with at least one GPU object' },
    ])
  }
  const problems: SeedProblem[] = []
  const gpus = parsed.map((value: unknown, index) => parseGpu(value, index, problems))
  findRepeated(gpus, problems)
  if (problems.length > 0) throw new SeedError(source, problems)
  return gpus
}

/**
 * Generates pairs for ever, one GPU after the other, host by host. Utilization, memory and power move by up to 5 % of
 * the seed's figure, tokens and latency by up to 20 %, all within their bounds; names and prices stay. Ids are made of
 * seedNumber, startMs and a counter (events of two runs with the same three are the same events).
 * @throws RangeError when the seed is empty or `eventHosts`, `gpus` or `intervalMs` is no integer of at least 1.
 */
export function pairs(seed: readonly SeedGpu[], options: PairOptions): Generator<SeedPair, never, void> {
  const { intervalMs = 500 } = options
  const slots = slotsOf(seed, options)
  if (!(Number.isSafeInteger(intervalMs) && intervalMs >= 1)) throw rangeError('intervalMs', intervalMs)
  return pairsOf(slots, { ...options, intervalMs })
}

/** A GPU of the seed at its place in the fleet. */
type Slot = SeedGpu & { host: string }

function* pairsOf(
  slots: readonly Slot[],
  options: PairOptions & { intervalMs: number },
): Generator<SeedPair, never, void> {
  const { startMs, seedNumber, intervalMs } = options
  const random = seededRandom(seedNumber)
  const run = `seed-${seedNumber}-${startMs.toString(36)}`
  for (let counter = 0; ; counter++) {
    const atMs = options.nowMs?.() ?? startMs + counter * intervalMs
    const slot = slots[counter % slots.length]!
    const ts = new Date(atMs).toISOString()
    const eventId = `${run}-${counter}`
    yield { gpu: sampleOf(slot, { ts, eventId, random }), token: usageOf(slot, { ts, eventId, random }) }
  }
}

interface Moment {
  ts: string
  eventId: string
  random: () => number
}

function slotsOf(seed: readonly SeedGpu[], { hostname, eventHosts, gpus }: PairOptions): Slot[] {
  if (seed.length === 0) throw new RangeError('Cannot generate pairs: the seed is empty, expected at least one GPU')
  for (const [name, value] of [['eventHosts', eventHosts] as const, ['gpus', gpus] as const]) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1)) throw rangeError(name, value)
  }
  const asInSeed = gpus === undefined && eventHosts === undefined
  const onOneHost = asInSeed ? seed : Array.from({ length: gpus ?? seed.length }, (_, i) => withIndex(seed, i))
  if (eventHosts === undefined) return onOneHost.map((gpu) => ({ ...gpu, host: gpu.host ?? hostname }))
  const hosts = Array.from({ length: eventHosts }, (_, i) => (eventHosts === 1 ? hostname : `${hostname}-${i + 1}`))
  // One UUID is one GPU: copies of it on other hosts go without.
  return hosts.flatMap((host, i) => onOneHost.map((gpu) => ({ ...(i === 0 ? gpu : withoutUuid(gpu)), host })))
}

/** The seed's GPUs in turn, numbered from 0; a copy (from the second turn on) has no UUID. */
function withIndex(seed: readonly SeedGpu[], index: number): SeedGpu {
  const gpu = seed[index % seed.length]!
  return { ...(index < seed.length ? gpu : withoutUuid(gpu)), gpu_index: index }
}

function withoutUuid({ uuid: _, ...gpu }: SeedGpu): SeedGpu {
  return gpu
}

function sampleOf(slot: Slot, { ts, eventId, random }: Moment): GpuSample {
  const sample: GpuSample = { ts, host: slot.host, gpu_index: slot.gpu_index }
  if (slot.name !== undefined) sample.name = slot.name
  if (slot.uuid !== undefined) sample.uuid = slot.uuid
  if (slot.utilization !== undefined) sample.utilization = round(jitter(slot.utilization, 0.05, random, 1), 4)
  if (slot.mem_used_mb !== undefined) {
    sample.mem_used_mb = Math.floor(jitter(slot.mem_used_mb, 0.05, random, slot.mem_total_mb ?? 1e9))
  }
  if (slot.mem_total_mb !== undefined) sample.mem_total_mb = slot.mem_total_mb
  if (slot.power_w !== undefined) sample.power_w = round(jitter(slot.power_w, 0.05, random, 1e6), 1)
  if (slot.price_per_hour_usd !== undefined) sample.price_per_hour_usd = slot.price_per_hour_usd
  if (slot.model !== undefined) sample.model_loaded = slot.model
  sample.event_id = eventId
  return sample
}

function usageOf(slot: Slot, { ts, eventId, random }: Moment): TokenUsage {
  return {
    ts,
    host: slot.host,
    gpu_index: slot.gpu_index,
    model: slot.model ?? 'seed-model',
    ...(slot.tenant === undefined ? {} : { tenant: slot.tenant }),
    prompt_tokens: Math.round(jitter(slot.prompt_tokens ?? 512, 0.2, random, 1e9)),
    completion_tokens: Math.round(jitter(slot.completion_tokens ?? 128, 0.2, random, 1e9)),
    latency_ms: Math.round(jitter(slot.latency_ms ?? 900, 0.2, random, 1e9)),
    event_id: eventId,
  }
}

function parseGpu(value: unknown, index: number, problems: SeedProblem[]): SeedGpu {
  const gpu: SeedGpu = { gpu_index: index }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    problems.push({ index, field: null, value, allowed: 'an object that describes one GPU' })
    return gpu
  }
  for (const field of FIELDS) {
    const given = (value as Record<string, unknown>)[field]
    if (given === undefined || given === null) continue
    const allowed = problemOf(RULES[field], field, given)
    if (allowed !== null) problems.push({ index, field, value: given, allowed })
    else Object.assign(gpu, { [field]: given })
  }
  if (gpu.mem_used_mb !== undefined && gpu.mem_total_mb !== undefined && gpu.mem_used_mb > gpu.mem_total_mb) {
    const allowed = `at most mem_total_mb, which is ${gpu.mem_total_mb}`
    problems.push({ index, field: 'mem_used_mb', value: gpu.mem_used_mb, allowed })
  }
  return gpu
}

/** What is allowed where a value is wrong, null where it is right. No coercion: "2" is not 2. */
function problemOf({ kind, maximum }: Rule, field: string, value: unknown): string | null {
  if (kind === 'text') {
    const fits = typeof value === 'string' && value.length >= 1 && value.length <= maximum
    return fits ? null : `text of 1 to ${maximum} characters`
  }
  const fits =
    typeof value === 'number' && value >= 0 && value <= maximum && (kind === 'number' || Number.isInteger(value))
  if (fits) return null
  const perCent = field === 'utilization' && typeof value === 'number' && value > 1 && value <= 100
  return `${kind === 'integer' ? 'an integer' : 'a number'} from 0 to ${maximum}${perCent ? ' (it looks like per cent: divide by 100)' : ''}`
}

function findRepeated(gpus: readonly SeedGpu[], problems: SeedProblem[]): void {
  const firstBySlot = new Map<string, number>()
  for (const [index, gpu] of gpus.entries()) {
    const slot = JSON.stringify([gpu.host ?? null, gpu.gpu_index])
    const first = firstBySlot.get(slot)
    if (first === undefined) firstBySlot.set(slot, index)
    else
      problems.push({
        index,
        field: 'gpu_index',
        value: gpu.gpu_index,
        allowed: `an index that GPU ${first} of the same host does not have`,
      })
  }
}

function describe({ index, field, value, allowed }: SeedProblem): string {
  const place = [index === null ? null : `[${index}]`, field].filter((part) => part !== null).join('.')
  return `${place}${place === '' ? 'I' : ' i'}s ${quote(value)}, expected ${allowed}`
}

function quote(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}

function rangeError(name: string, value: number): RangeError {
  return new RangeError(`Cannot generate pairs: ${name} is ${value}, expected an integer of at least 1`)
}

/** The figure moved by up to ± `share` of it, not above `maximum`. */
function jitter(figure: number, share: number, random: () => number, maximum: number): number {
  return Math.min(maximum, figure * (1 + share * (2 * random() - 1)))
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
