// A document of an older deployment (no id of ours) as an event, whether MongoDB still has it or `mongoexport` wrote it
// into a file: both ways give the same event with the same id. The old `_id` becomes the event's id; figures that the
// old processor added are left out, since they are recomputed.

import type { EventKind } from './event.ts'

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

/** The event of a document, unchecked. */
export function foreignEvent(kind: EventKind, document: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const event: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(document)) {
    if (value === null || value === undefined || name === '_id') continue
    if (kind === 'token' && COMPUTED.has(name)) continue
    event[name] = value instanceof Date ? value.toISOString() : value
  }
  event['event_id'] ??= `mongo-${String(document['_id'])}`
  return event
}
