// A field that token documents get beside the event's own: in how many minutes before that of its `ts` an event is
// counted too (`reachMinutes`). Only documents that are counted in several minutes have it, and only these are in the
// index on it and `ts`: whoever reads a minute finds the later events that reach into it, and looks at no others.

import type { Document } from 'mongodb'
import type { TokenDocument } from '../../../domain/events/event.ts'
import { reachMinutes } from '../../../domain/ledger/buckets.ts'

export const REACH = 'pt_reach'

/** The document to store. Most are the event as it is. */
export function withReach(token: TokenDocument): object {
  if (token.interval_s === undefined) return token
  const reach = reachMinutes(token)
  return reach === 0 ? token : { ...token, [REACH]: reach }
}

/** A stored document as its event, in place. */
export function withoutReach<D extends Document>(document: D): D {
  if (REACH in document) delete document[REACH]
  return document
}
