// The seed: a JSON array that describes GPUs (as existing deployments have it for machines without one), and the stream
// of pairs that is generated from it: a GPU sample and a token event of the same GPU, round robin, with small jitter
// around the seed's figures. A figure that the seed lacks is not invented in samples; tokens and latency, which a seed
// rarely has, have defaults. A seed file is checked as a whole against its schema: all issues are reported at once,
// each with what is allowed. Pure: time, host name and the seed of the random numbers are arguments.

import Type from 'typebox'
import type { GpuSample, TokenUsage } from '../domain/events/event.ts'
import { checkValue } from '../domain/prices/schema-errors.ts'
import { seededRandom } from './seeded-random.ts'

const Text = () => Type.Optional(Type.String({ minLength: 1, maxLength: 256 }))
const Figure = (maximum: number) => Type.Optional(Type.Number({ minimum: 0, maximum }))
const integerUpTo = (maximum: number) =>
  Type.Integer({ minimum: 0, maximum, expected: `an integer from 0 to ${maximum}` })

/** One GPU of a seed file. Fields that are not listed are ignored. */
const SeedGpuSchema = Type.Object({
  /** Index on its host; its place in the file where the file has none. */
  gpu_index: integerUpTo(1023),
  host: Text(),
  name: Text(),
  uuid: Text(),
  utilization: Figure(1),
  mem_used_mb: Figure(1e9),
  mem_total_mb: Figure(1e9),
  power_w: Figure(1e6),
  price_per_hour_usd: Figure(1e6),
  /** Model that the token events name; `seed-model` when absent. */
  model: Text(),
  tenant: Text(),
  /** Typical figures of one request. */
  prompt_tokens: Type.Optional(integerUpTo(1e9)),
  completion_tokens: Type.Optional(integerUpTo(1e9)),
  latency_ms: Figure(1e9),
})
const FIELDS = Object.keys(SeedGpuSchema.properties)

export type SeedGpu = Type.Static<typeof SeedGpuSchema>

/** One thing that is wrong in a seed file; `index` is the GPU's place in the array, null for the file as a whole. */
export interface SeedIssue {
  index: number | null
  field: string | null
  value: unknown
  expected: string
}

/** A seed file that cannot be used, with everything that is wrong in it. */
export class SeedError extends Error {
  override name = 'SeedError'
  readonly issues: readonly SeedIssue[]

  constructor(source: string, issues: readonly SeedIssue[]) {
    super(`Cannot use seed ${quote(source)}: ${issues.map(describe).join('; ')}`)
    this.issues = issues
  }
}

/** Options of `pairs`. */
export interface PairOptions {
  /** Event time of the first pair, epoch milliseconds. */
  startMs: number
  /** Any integer; the same number gives the same jitter. */
  seedNumber: number
  /** Host of the GPUs for which the seed has none. */
  hostname: string
  /** Number of hosts with the same GPUs: `hostname`, or `hostname-1` and so on; the seed's own hosts when absent. */
  eventHosts?: number
  /** Number of GPUs on each host: the seed's, repeated, numbered from 0; as many as in the seed when absent. */
  gpus?: number
  /** Event time between two pairs, milliseconds; 500 when absent. */
  intervalMs?: number
  /** Returns the event time of each pair, epoch milliseconds; overrides startMs and intervalMs for a paced producer. */
  nowMs?: () => number
}

/** A GPU sample and a token event of the same GPU and time. */
export interface SeedPair {
  gpu: GpuSample
  token: TokenUsage
}

/**
 * Parses the text of a seed file; `source` is its name in messages. A null field counts as absent.
 * @throws SeedError with all issues: not a JSON array of objects, empty, a value out of its bounds, a GPU listed twice.
 */
export function parseSeed(text: string, source = 'seed'): SeedGpu[] {
  let parsed: unknown
  try {
    parsed = JSON.parse(text.replace(/^\ufeff/, ''))
  } catch (error) {
    const expected = `a JSON array of GPU objects (${(error as Error).message.slice(0, 120)})`
    throw new SeedError(source, [{ index: null, field: null, value: text.slice(0, 80), expected }])
  }
  if (!Array.isArray(parsed) || parsed.length === 0) {
    throw new SeedError(source, [
      { index: null, field: null, value: parsed, expected: 'a JSON array with at least one GPU object' },
    ])
  }
  const issues: SeedIssue[] = []
  const gpus = parsed.map((value: unknown, index) => parseGpu(value, index, issues))
  findDuplicates(gpus, issues)
  if (issues.length > 0) throw new SeedError(source, issues)
  return gpus
}

/**
 * Generates an endless stream of pairs, one GPU after the other, host by host. Utilization, memory and power vary by up
 * to 5 % of the seed's figure, tokens and latency by up to 20 %, all within their bounds; names and prices are
 * constant. Ids consist of seedNumber, startMs and a counter (two runs with the same values generate the same events).
 * @throws RangeError when the seed is empty or `eventHosts`, `gpus` or `intervalMs` is not an integer of at least 1.
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

interface PairContext {
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
  // A UUID identifies one GPU: its copies on other hosts have none.
  return hosts.flatMap((host, i) => onOneHost.map((gpu) => ({ ...(i === 0 ? gpu : withoutUuid(gpu)), host })))
}

/** The seed's GPUs, repeated, numbered from 0; a copy (from the second repetition on) has no UUID. */
function withIndex(seed: readonly SeedGpu[], index: number): SeedGpu {
  const gpu = seed[index % seed.length]!
  return { ...(index < seed.length ? gpu : withoutUuid(gpu)), gpu_index: index }
}

function withoutUuid({ uuid: _, ...gpu }: SeedGpu): SeedGpu {
  return gpu
}

function sampleOf(slot: Slot, { ts, eventId, random }: PairContext): GpuSample {
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

function usageOf(slot: Slot, { ts, eventId, random }: PairContext): TokenUsage {
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

function parseGpu(value: unknown, index: number, issues: SeedIssue[]): SeedGpu {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    issues.push({ index, field: null, value, expected: 'an object that describes one GPU' })
    return { gpu_index: index }
  }
  const given = new Map(FIELDS.map((field) => [field, (value as Record<string, unknown>)[field] ?? undefined]))
  if (given.get('gpu_index') === undefined) given.set('gpu_index', index)
  for (const { field, expected } of checkValue(SeedGpuSchema, Object.fromEntries(given), '')) {
    issues.push({ index, field, value: given.get(field), expected: `${expected}${hintFor(field, given.get(field))}` })
    given.delete(field)
  }
  // The check above is the proof of the type; a wrong index counts as absent.
  const present = [...given].filter(([, fieldValue]) => fieldValue !== undefined)
  const gpu: SeedGpu = { gpu_index: index, ...Object.fromEntries(present) }
  if (gpu.mem_used_mb !== undefined && gpu.mem_total_mb !== undefined && gpu.mem_used_mb > gpu.mem_total_mb) {
    const expected = `at most mem_total_mb, which is ${gpu.mem_total_mb}`
    issues.push({ index, field: 'mem_used_mb', value: gpu.mem_used_mb, expected })
  }
  return gpu
}

function hintFor(field: string, value: unknown): string {
  const isPercent = field === 'utilization' && typeof value === 'number' && value > 1 && value <= 100
  return isPercent ? ' (it looks like per cent: divide by 100)' : ''
}

function findDuplicates(gpus: readonly SeedGpu[], issues: SeedIssue[]): void {
  const firstBySlot = new Map<string, number>()
  for (const [index, gpu] of gpus.entries()) {
    const slot = JSON.stringify([gpu.host ?? null, gpu.gpu_index])
    const first = firstBySlot.get(slot)
    if (first === undefined) firstBySlot.set(slot, index)
    else
      issues.push({
        index,
        field: 'gpu_index',
        value: gpu.gpu_index,
        expected: `an index that GPU ${first} of the same host does not have`,
      })
  }
}

function describe({ index, field, value, expected }: SeedIssue): string {
  const place = [index === null ? null : `[${index}]`, field].filter((name) => name !== null).join('.')
  return `${place}${place === '' ? 'I' : ' i'}s ${quote(value)}, expected ${expected}`
}

function quote(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}

function rangeError(name: string, value: number): RangeError {
  return new RangeError(`Cannot generate pairs: ${name} is ${value}, expected an integer of at least 1`)
}

/** The figure, varied by up to ± `share` of it, at most `maximum`. */
function jitter(figure: number, share: number, random: () => number, maximum: number): number {
  return Math.min(maximum, figure * (1 + share * (2 * random() - 1)))
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
