// What an event is once it is accepted: one document, the same object that the store writes. Its fields are the event's
// as they came (unknown ones too), `ts` as a Date, `host` null where none is known, `_id`, and for token usage the live
// price. Keeping event and document one object means no second shape to map to and nothing to copy per event.

import type { GpuSample, TokenUsage } from './schemas.ts'

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
