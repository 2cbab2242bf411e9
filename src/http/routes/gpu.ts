// GPUs: the latest stored document of one, all slots of the last hour with their live figures and what contradicts in
// them, and the live windows. "Last" is event time, so that a replayed past shows its own GPUs.

import type { FastifyInstance } from 'fastify'
import type { GpuDocument } from '../../domain/events/documents.ts'
import type { LiveSlot } from '../../domain/live/live-figures.ts'
import type { HttpDependencies } from '../dependencies.ts'
import { GpuConflicts } from '../gpu-conflicts.ts'
import { bySlot, liveView } from '../live-view.ts'
import { answer, nullable, object, problemAnswer } from '../open-api.ts'
import { HttpProblem } from '../problem.ts'
import { defined, integer, NO_QUERY, optional, Query, text } from '../query.ts'

const HOUR_MS = 3_600_000
/** Most slots in an answer. */
const MAX_SLOTS = 10_000
/** What conflicts are looked for in: the newest samples, as long as one sample covers, and not too many. */
const CONFLICT_SPAN_MS = 90_000
const MAX_CONFLICT_SAMPLES = 20_000

export const hostParameter = text(256, 'Name of the host')
export const gpuIndexParameter = integer(0, 1023, 'Index of the GPU on its host')

const slotName = { host: nullable('string', 'Host'), gpu_index: { type: 'integer' } }
const LiveSlotSchema = object({
  ...slotName,
  gpu_uuid: nullable('string', 'UUID of the newest sample'),
  name: nullable('string', 'Name of the newest sample'),
  utilization: nullable('number', '0 to 1'),
  price_per_hour_usd: { type: 'number' },
  tokens_per_second: { type: 'number' },
  cost_per_token: nullable('number', 'USD; null without tokens'),
  last_sample: nullable('string', 'Event time of the newest sample'),
})
const LiveModelSchema = object({
  model: { type: 'string' },
  tokens_per_second: { type: 'number' },
  prompt_tokens_per_second: { type: 'number' },
  completion_tokens_per_second: { type: 'number' },
  cost_per_token: nullable('number', 'USD; null without tokens'),
  usd_per_million_tokens: nullable('number', 'USD; null without tokens'),
})
const liveHead = {
  as_of: { type: 'string', format: 'date-time' },
  stale: { type: 'boolean', description: 'The figures are of the past' },
}

export function addGpuRoutes(app: FastifyInstance, parts: HttpDependencies): void {
  const { processor, store } = parts

  const infoQuery = new Query({ host: optional(hostParameter), gpu_index: optional(gpuIndexParameter) })
  const infoSchema = {
    tags: ['live'],
    summary: 'The latest document of a GPU, as it is stored',
    querystring: infoQuery.schema,
    response: { 200: answer({ $ref: 'gpu.metrics.v1#' }, 'The document'), default: problemAnswer },
  }
  app.get('/gpu/info', { schema: infoSchema, config: { scope: 'read' } }, async (request) => {
    const { host, gpu_index: gpuIndex } = infoQuery.parse(request.query)
    const sample = await store.latestSample(defined({ host, gpuIndex }))
    if (sample !== null) return sample
    const what = host === undefined && gpuIndex === undefined ? 'No GPU sample' : 'No sample of such a GPU'
    throw new HttpProblem(404, 'not-found', { detail: `${what} is stored: see /api/v1/gpus for what there is` })
  })

  const gpusSchema = {
    tags: ['live'],
    summary: 'GPU slots of the last hour of event time, and what contradicts in their identity',
    querystring: NO_QUERY.schema,
    response: {
      200: answer(
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
          conflicts: { type: 'array', items: object({ kind: { enum: ['uuid_in_two_slots', 'two_names_in_slot'] } }) },
          conflicts_complete: {
            type: 'boolean',
            description: 'False where there were more samples than are looked at',
          },
        }),
        'Slots by host and index',
      ),
      default: problemAnswer,
    },
  }
  app.get('/api/v1/gpus', { schema: gpusSchema, config: { scope: 'read' } }, async (request) => {
    NO_QUERY.parse(request.query)
    const { as_of, stale, slots: live } = liveView(processor)
    const newestMs = await store.newestMs('gpu')
    if (newestMs === null) return { as_of, stale, slots: joinSlots([], live), conflicts: [], conflicts_complete: true }
    const samples = await store.latestSamplePerSlot(newestMs - HOUR_MS, MAX_SLOTS)
    const { conflicts, complete } = await findConflicts(parts, samples, newestMs)
    return { as_of, stale, slots: joinSlots(samples, live), conflicts, conflicts_complete: complete }
  })

  const liveSchema = {
    tags: ['live'],
    summary: 'The current windows: cost and speed by model and by GPU slot',
    querystring: NO_QUERY.schema,
    response: {
      200: answer(
        object({
          ...liveHead,
          window_s: { type: 'integer' },
          models: { type: 'array', items: LiveModelSchema },
          slots: { type: 'array', items: LiveSlotSchema },
        }),
        'Models by name, slots by host and index',
      ),
      default: problemAnswer,
    },
  }
  app.get('/api/v1/live', { schema: liveSchema, config: { scope: 'read' } }, (request) => {
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

/** Stored samples and live figures of the same slots side by side. */
function joinSlots(samples: readonly GpuDocument[], live: readonly LiveSlot[]): JoinedSlot[] {
  const slots = new Map<string, JoinedSlot>()
  for (const sample of samples) {
    const { host, gpu_index } = sample
    slots.set(JSON.stringify([host, gpu_index]), { host, gpu_index, live: null, sample })
  }
  for (const slot of live) {
    const key = JSON.stringify([slot.host, slot.gpu_index])
    const known = slots.get(key)
    if (known !== undefined) known.live = slot
    else slots.set(key, { host: slot.host, gpu_index: slot.gpu_index, live: slot, sample: null })
  }
  return [...slots.values()].sort(bySlot)
}

async function findConflicts({ store }: HttpDependencies, latest: readonly GpuDocument[], newestMs: number) {
  const conflicts = new GpuConflicts()
  for (const sample of latest) conflicts.add(sample)
  let looked = 0
  for await (const sample of store.readEvents('gpu', newestMs - CONFLICT_SPAN_MS, newestMs + 1)) {
    if (++looked > MAX_CONFLICT_SAMPLES) break
    conflicts.add(sample)
  }
  return { conflicts: conflicts.list(), complete: looked <= MAX_CONFLICT_SAMPLES }
}
