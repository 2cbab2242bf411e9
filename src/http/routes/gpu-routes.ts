// GPUs: the latest stored document of one, all slots of the last hour with their live figures and the conflicts in
// their identity, and the live windows.

import type { FastifyInstance } from 'fastify'
import type { GpuDocument } from '../../domain/events/event.ts'
import { bySlot } from '../../domain/fleet/gpu-conflicts.ts'
import { type LiveSlot, PRICE_BASES } from '../../domain/live/live-figures.ts'
import { PriceBookVersions } from '../../processor/prices/price-book-versions.ts'
import { readRecentGpus } from '../../processor/recent-gpus.ts'
import type { HttpDependencies } from '../dependencies.ts'
import { liveView } from '../live-view.ts'
import { jsonResponse, nullable, object, problemResponse } from '../open-api.ts'
import { gpuIndexParameter, hostParameter } from '../parameters.ts'
import { HttpProblem } from '../problem.ts'
import { defined, NO_QUERY, optional, Query } from '../query.ts'

const tooFewTokens = { type: 'boolean', description: 'The cost is over fewer than 100 tokens of the window' }
const slotName = { host: nullable('string', 'Host'), gpu_index: { type: 'integer' } }
const LiveSlotSchema = object({
  ...slotName,
  gpu_uuid: nullable('string', 'UUID of the newest sample'),
  name: nullable('string', 'Name of the newest sample'),
  utilization: nullable('number', '0 to 1'),
  price_per_hour_usd: { type: 'number', description: 'Of an owned GPU: fixed part and what it draws now' },
  price_basis: { enum: PRICE_BASES, description: 'What the price rests on; rule_without_power: the fixed part alone' },
  tokens_per_second: { type: 'number' },
  cost_per_token: nullable('number', 'USD; null without tokens'),
  too_few_tokens: tooFewTokens,
  last_sample: nullable('string', 'Event time of the newest sample'),
  monitored: { type: 'boolean', description: 'Shown by a recent sample, or by tokens in the window' },
})
const LiveModelSchema = object({
  model: { type: 'string' },
  tokens_per_second: { type: 'number' },
  prompt_tokens_per_second: { type: 'number' },
  completion_tokens_per_second: { type: 'number' },
  cost_per_token: nullable('number', 'USD; null without tokens'),
  usd_per_million_tokens: nullable('number', 'USD; null without tokens'),
  too_few_tokens: tooFewTokens,
})
const LiveTotalsSchema = object({
  usd_per_hour: { type: 'number', description: 'Price of all monitored GPUs: busy and idle' },
  busy_usd_per_hour: { type: 'number' },
  idle_usd_per_hour: { type: 'number', description: 'Idle, model loaded, and idle, nothing loaded' },
  uncovered_usd_per_hour: { type: 'number', description: 'Price of GPUs that are not monitored, beside usd_per_hour' },
  tokens_per_second: { type: 'number' },
  usd_per_million_tokens: nullable('number', 'Fully loaded: usd_per_hour ÷ tokens per hour; null without tokens'),
  usd_per_million_tokens_busy: nullable('number', 'Busy only; null without tokens'),
  too_few_tokens: tooFewTokens,
})
const liveHead = {
  as_of: { type: 'string', format: 'date-time' },
  stale: { type: 'boolean', description: 'The figures are of the past' },
}

export function addGpuRoutes(app: FastifyInstance, dependencies: HttpDependencies): void {
  addInfo(app, dependencies)
  addSlots(app, dependencies)
  addLive(app, dependencies)
}

function addInfo(app: FastifyInstance, { store }: HttpDependencies): void {
  const query = new Query({ host: optional(hostParameter), gpu_index: optional(gpuIndexParameter) })
  const schema = {
    tags: ['live'],
    summary: 'The latest document of a GPU, as it is stored',
    querystring: query.schema,
    response: { 200: jsonResponse({ $ref: 'gpu.metrics.v1#' }, 'The document'), default: problemResponse },
  }
  app.get('/gpu/info', { schema, config: { scope: 'read' } }, async (request) => {
    const { host, gpu_index: gpuIndex } = query.parse(request.query)
    const sample = await store.latestSample(defined({ host, gpuIndex }))
    if (sample !== null) return sample
    const what = host === undefined && gpuIndex === undefined ? 'No GPU sample' : 'No sample of such a GPU'
    throw new HttpProblem(404, 'not-found', { detail: `${what} is stored: see /api/v1/gpus for what there is` })
  })
}

function addSlots(app: FastifyInstance, { processor, store }: HttpDependencies): void {
  const schema = {
    tags: ['live'],
    summary: 'GPU slots of the last hour of event time, and what contradicts in their identity',
    querystring: NO_QUERY.schema,
    response: {
      200: jsonResponse(
        object({
          ...liveHead,
          slots: {
            type: 'array',
            items: object({
              ...slotName,
              live: nullable('object', 'Live figures'),
              sample: nullable('object', 'Newest sample as stored'),
            }),
          },
          conflicts: {
            type: 'array',
            items: object({ kind: { enum: ['uuid_in_two_slots', 'two_uuids_in_slot', 'two_names_in_slot'] } }),
          },
          conflicts_complete: {
            type: 'boolean',
            description: 'False where there were more samples than are looked at',
          },
        }),
        'Slots by host and index',
      ),
      default: problemResponse,
    },
  }
  app.get('/api/v1/gpus', { schema, config: { scope: 'read' } }, async (request) => {
    NO_QUERY.parse(request.query)
    const { as_of, stale, slots: live } = liveView(processor)
    const books = new PriceBookVersions(store.ledger)
    await books.refresh()
    const nameOf = (host: string | null) => books.hosts.nameOf(host)
    const { samples, conflicts, areConflictsComplete } = await readRecentGpus(store, nameOf)
    const slots = joinSlots(samples, live, nameOf)
    return { as_of, stale, slots, conflicts, conflicts_complete: areConflictsComplete }
  })
}

function addLive(app: FastifyInstance, { processor }: HttpDependencies): void {
  const schema = {
    tags: ['live'],
    summary: 'The current windows: cost and speed of the fleet, by model and by GPU slot',
    querystring: NO_QUERY.schema,
    response: {
      200: jsonResponse(
        object({
          ...liveHead,
          window_s: { type: 'integer' },
          totals: LiveTotalsSchema,
          models: { type: 'array', items: LiveModelSchema },
          slots: { type: 'array', items: LiveSlotSchema },
        }),
        'Models by name, slots by host and index',
      ),
      default: problemResponse,
    },
  }
  app.get('/api/v1/live', { schema, config: { scope: 'read' } }, (request) => {
    NO_QUERY.parse(request.query)
    return liveView(processor)
  })
}

interface JoinedSlot {
  host: string | null
  gpu_index: number
  live: LiveSlot | null
  sample: GpuDocument | null
}

/** Stored samples and live figures of the same slots side by side; of several names of a host, the newest sample. */
function joinSlots(
  samples: readonly GpuDocument[],
  live: readonly LiveSlot[],
  nameOf: (host: string | null) => string | null,
): JoinedSlot[] {
  const slots = new Map<string, JoinedSlot>()
  for (const sample of samples) {
    const { gpu_index } = sample
    const host = nameOf(sample.host)
    const key = JSON.stringify([host, gpu_index])
    const other = slots.get(key)?.sample
    if (other && other.ts >= sample.ts) continue
    slots.set(key, { host, gpu_index, live: null, sample })
  }
  for (const slot of live) {
    const key = JSON.stringify([slot.host, slot.gpu_index])
    const known = slots.get(key)
    if (known !== undefined) known.live = slot
    else slots.set(key, { host: slot.host, gpu_index: slot.gpu_index, live: slot, sample: null })
  }
  return [...slots.values()].sort(bySlot)
}
