// A field that token documents get beside the event's own: in how many minutes before that of its `ts` an event is
// counted too (`reachMinutes`), rounded up to 1, 2, 4, … 64. Only documents that are counted in several minutes have
// it, and only these are in the index on it and `ts`: whoever reads a minute finds the later events that reach into it,
// with a query for each of the few values, and looks at hardly any others.

import type { Document } from 'mongodb'
import type { TokenDocument } from '../../../domain/events/event.ts'
import { reachMinutes } from '../../../domain/ledger/buckets.ts'

export const REACH = 'pt_reach'

/** The document to store. Most are the event as it is. */
export function withReach(token: TokenDocument): TokenDocument {
  if (token.interval_s === undefined) return token
  const reach = reachOf(token)
  if (reach === null) return token
  const stored: TokenDocument & { [REACH]: number } = { ...token, [REACH]: reach }
  return stored
}

/** What the field is for an event; null where it has none. */
export function reachOf(event: { ts: Date; interval_s?: number }): number | null {
  const minutes = reachMinutes(event)
  return minutes === 0 ? null : 2 ** Math.ceil(Math.log2(minutes))
}

/** A stored document as its event, in place. */
export function withoutReach<D extends Document>(document: D): D {
  if (REACH in document) delete document[REACH]
  return document
}
