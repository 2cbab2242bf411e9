// The opaque cursors of listings: base64url of the place (time, _id) of a page's last document. What a client sends back
// is anybody's text, so it is checked for shape and size here, and the caller puts the id only where the server
// interprets nothing. Extended JSON, because a foreign document's _id may be of any type.

import { BSON } from 'mongodb'
import { StoreError } from '../../event-store.ts'

const MAX_CURSOR_CHARACTERS = 4_096

export interface Place {
  ms: number
  id: unknown
}

export function encodeCursor(place: Place): string {
  return Buffer.from(BSON.EJSON.stringify([place.ms, place.id])).toString('base64url')
}

export function decodeCursor(cursor: string | undefined): Place | undefined {
  if (cursor === undefined) return undefined
  try {
    if (typeof cursor !== 'string' || cursor.length > MAX_CURSOR_CHARACTERS) throw new Error('too long')
    const place: unknown = BSON.EJSON.parse(Buffer.from(cursor, 'base64url').toString())
    if (!Array.isArray(place) || place.length !== 2) throw new Error('not a pair')
    const [ms, id] = place as [unknown, unknown]
    if (typeof ms !== 'number' || Number.isNaN(new Date(ms).getTime())) throw new Error('no time')
    if (id === null || id === undefined) throw new Error('no id')
    return { ms, id }
  } catch {
    const shown = JSON.stringify(String(cursor).slice(0, 80))
    throw new StoreError(`Cannot read cursor ${shown}: no listing gave it`, { retriable: false })
  }
}

/** A value for a query: text. A list or an object from a careless caller never gets as far as the server. */
export function textValue(name: string, value: unknown): string {
  if (typeof value === 'string') return value
  throw new StoreError(`Cannot query by ${name}: expected text, got ${typeof value}`, { retriable: false })
}

/** A value for a query: a finite number. */
export function numberValue(name: string, value: unknown): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value
  throw new StoreError(`Cannot query by ${name}: expected a number, got ${typeof value}`, { retriable: false })
}
