// The one definition of the two events. TypeBox schemas of the wire form, from which the type, the compiled validator,
// the JSON Schema files in docs/schemas/ and the OpenAPI bodies are made; bounds are the published contract, unknown
// fields are allowed and kept. And the document that an accepted event becomes: the same object, with `ts` as a Date,
// `host` null where none is known, `_id`, and for token usage the live price. Event and document are one object, so
// there is no second shape to map to and nothing to copy per event.

import Type from 'typebox'
import { MAX_INTERVAL_S } from './event-interval.ts'

/** Largest count (tokens, requests) that one event may carry. */
const MAX_COUNT = 1_000_000_000
/** Largest index of a GPU on its host. */
export const MAX_GPU_INDEX = 1023
const NULL_IS_ABSENT = 'an optional field that is null counts as absent'

const Text = (description: string) => Type.String({ minLength: 1, maxLength: 256, description })
const Count = (description: string) => Type.Integer({ minimum: 0, maximum: MAX_COUNT, description })
const Quantity = (maximum: number, description: string) => Type.Number({ minimum: 0, maximum, description })
/** Most GPUs that one event can name. */
export const MAX_GPUS = 1024
const GpuIndex = Type.Integer({ minimum: 0, maximum: MAX_GPU_INDEX, description: 'Index of the GPU on its host' })
const EventTime = Type.Union([Type.String({ minLength: 1, maxLength: 40 }), Type.Number()], {
  description:
    'Event time: ISO 8601 (without zone: UTC) or epoch milliseconds, digits beyond the millisecond are truncated; ' +
    'from 2015 to one hour ahead of the record',
})
const EventId = Text(
  'Identity of the event on its host (without host: on its GPUs and engine); the same id twice is one event',
)

/** One sample of one GPU, as it is on topic gpu.metrics.v1. */
export const GpuSampleSchema = Type.Object(
  {
    ts: EventTime,
    gpu_index: GpuIndex,
    host: Type.Optional(Text('Name of the host that the GPU is in')),
    name: Type.Optional(Text('Model name of the GPU')),
    utilization: Type.Optional(
      Type.Number({ minimum: 0, maximum: 1, description: 'Share of time that the GPU was busy, 0 to 1' }),
    ),
    mem_used_mb: Type.Optional(Quantity(1e9, 'Used GPU memory, MB')),
    mem_total_mb: Type.Optional(Quantity(1e9, 'GPU memory, MB')),
    power_w: Type.Optional(Quantity(1e6, 'Power draw, watts')),
    price_per_hour_usd: Type.Optional(Quantity(1e6, 'What this GPU costs, USD per hour')),
    uuid: Type.Optional(Text('UUID of the GPU')),
    event_id: Type.Optional(EventId),
    energy_j: Type.Optional(Quantity(1e15, 'Energy counter of the GPU, joules since the driver was loaded')),
    mig_profile: Type.Optional(Text('MIG profile of the instance')),
    model_loaded: Type.Optional(Text('Model whose weights the GPU holds')),
  },
  {
    $id: 'gpu.metrics.v1',
    title: 'GPU sample',
    description: `One sample of one GPU (topic gpu.metrics.v1); ${NULL_IS_ABSENT}`,
  },
)

/** What one request (or a sum of several) used, as it is on topic token.usage.v1. */
export const TokenUsageSchema = Type.Object(
  {
    ts: EventTime,
    model: Text('Name of the model that was served'),
    prompt_tokens: Count('Input tokens, cached ones included'),
    completion_tokens: Count('Output tokens'),
    gpu_index: Type.Optional(GpuIndex),
    latency_ms: Type.Optional(Quantity(1e9, 'Duration of the request, milliseconds')),
    host: Type.Optional(Text('Name of the host that served it')),
    gpus: Type.Optional(
      Type.Array(GpuIndex, {
        minItems: 1,
        maxItems: MAX_GPUS,
        uniqueItems: true,
        description: 'All GPUs of the host that served it',
      }),
    ),
    tenant: Type.Optional(Text('Who it was served for')),
    cached_prompt_tokens: Type.Optional(Count('The part of prompt_tokens that came from a cache')),
    requests: Type.Optional(Count('How many requests the event sums; 1 when absent')),
    interval_s: Type.Optional(
      Quantity(
        MAX_INTERVAL_S,
        'Seconds that the event sums over: its counts are spread evenly over [ts − interval_s, ts)',
      ),
    ),
    event_id: Type.Optional(EventId),
    engine: Type.Optional(Text('Inference engine')),
    request_id: Type.Optional(Text('Identity of the request')),
    prefill_ms: Type.Optional(Quantity(1e9, 'Time in prefill, milliseconds')),
    decode_ms: Type.Optional(Quantity(1e9, 'Time in decode, milliseconds')),
  },
  {
    $id: 'token.usage.v1',
    title: 'Token usage',
    description: `Tokens of one request (topic token.usage.v1); one of gpu_index and gpus is required; ${NULL_IS_ABSENT}`,
    anyOf: [{ required: ['gpu_index'] }, { required: ['gpus'] }],
  },
)

/** The wire form of a GPU sample; unknown fields may stand beside these. */
export type GpuSample = Type.Static<typeof GpuSampleSchema>
/** The wire form of token usage; unknown fields may stand beside these. */
export type TokenUsage = Type.Static<typeof TokenUsageSchema>

/** Names of the fields that each schema knows. */
export const KNOWN_FIELDS = {
  gpu: new Set(Object.keys(GpuSampleSchema.properties)),
  token: new Set(Object.keys(TokenUsageSchema.properties)),
} as const

/** Which of the two topics (and collections) an event belongs to. */
export type EventKind = 'gpu' | 'token'

interface Stored {
  /** Deterministic id, see event-id.ts. */
  _id: string
  /** Event time. */
  ts: Date
  /** Host of the GPU; null where the event names none and none could be inferred. */
  host: string | null
  /** True where the host was not in the event but inferred by the processor. */
  host_inferred?: boolean
}

/** A GPU sample as it is stored in `gpu_metrics`. */
export type GpuDocument = Omit<GpuSample, 'ts' | 'host'> & Stored

/** Token usage as it is stored in `token_usage`, with the price that was known when it passed. */
export type TokenDocument = Omit<TokenUsage, 'ts' | 'host'> &
  Stored & {
    /**
     * USD per token over the live window that ends at this event; null when late or when there is nothing to divide by.
     */
    cost_per_token: number | null
    /** Tokens per second on the event's slots over the live window; null when late. */
    tokens_per_second: number | null
    /** Price of the event's slots, USD per hour. */
    price_per_hour_usd: number
    /** Length of the live window, seconds. */
    window_s: number
    /** The event came after its live window was gone. */
    late?: boolean
    /** Only a part of the traffic was visible when the event was priced. */
    partial?: boolean
  }

/** Indexes of the GPUs that served an event, ascending: `gpus`, else its `gpu_index` alone. */
export function gpuIndexesOf(usage: Pick<TokenUsage, 'gpu_index' | 'gpus'>): readonly number[] {
  return usage.gpus === undefined ? [usage.gpu_index!] : usage.gpus.toSorted((a, b) => a - b)
}
