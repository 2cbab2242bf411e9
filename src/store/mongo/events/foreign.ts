// Reads the documents of an older deployment (no ids of ours) as events, for `replay --from-mongo`. The old `_id`
// becomes the event's id; figures that the old processor added are left out, since they are recomputed.

import type { EventKind, GpuSample, TokenUsage } from '../../../domain/events/event.ts'
import { isOwnId } from '../../../domain/events/event-id.ts'
import { openDatabase } from '../connection.ts'

/** What an older processor added to a token event. */
const COMPUTED = new Set([
  '_id',
  'cost_per_token',
  'tokens_per_second',
  'price_per_hour_usd',
  'window_s',
  'host_inferred',
  'late',
  'partial',
])

export type ForeignEvent =
  | { topic: 'gpu'; event: GpuSample; line: number }
  | { topic: 'token'; event: TokenUsage; line: number }

/** Streams both collections of the URL's database, samples first, each by id. Throws what the driver throws. */
export async function* readForeignDocuments(url: string): AsyncGenerator<ForeignEvent> {
  const { client, db } = openDatabase(url, { serverSelectionTimeoutMS: 10_000 }, { name: 'the URL of --from-mongo' })
  try {
    let line = 0
    for (const [name, topic] of [
      ['gpu_metrics', 'gpu'],
      ['token_usage', 'token'],
    ] as const) {
      for await (const document of db.collection(name).find().sort({ _id: 1 })) {
        line++
        if (!isOwnId(document['_id'])) yield { topic, event: eventOf(topic, document), line } as ForeignEvent
      }
    }
  } finally {
    await client.close()
  }
}

function eventOf(kind: EventKind, document: Record<string, unknown>): Record<string, unknown> {
  const event: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(document)) {
    if (value === null || value === undefined || name === '_id') continue
    if (kind === 'token' && COMPUTED.has(name)) continue
    event[name] = value instanceof Date ? value.toISOString() : value
  }
  event['event_id'] ??= `mongo-${String(document['_id'])}`
  return event
}
