// The cursors of listings, opaque to clients: base64url of (time, _id) of a page's last document. What a client sends
// back is untrusted, so shape and size are checked here, and the caller puts the id only where the server interprets
// nothing. Extended JSON, because a foreign document's _id may be of any type.

import { BSON } from 'mongodb'
import { StoreError } from '../../event-store.ts'

const MAX_CURSOR_CHARACTERS = 4_096

export interface Cursor {
  ms: number
  id: unknown
}

export function encodeCursor({ ms, id }: Cursor): string {
  return Buffer.from(BSON.EJSON.stringify([ms, id])).toString('base64url')
}

export function decodeCursor(text: string | undefined): Cursor | undefined {
  if (text === undefined) return undefined
  try {
    if (typeof text !== 'string' || text.length > MAX_CURSOR_CHARACTERS) throw new Error('too long')
    const pair: unknown = BSON.EJSON.parse(Buffer.from(text, 'base64url').toString())
    if (!Array.isArray(pair) || pair.length !== 2) throw new Error('not a pair')
    const [ms, id] = pair as [unknown, unknown]
    if (typeof ms !== 'number' || Number.isNaN(new Date(ms).getTime())) throw new Error('no time')
    if (id === null || id === undefined) throw new Error('no id')
    return { ms, id }
  } catch {
    const shown = JSON.stringify(String(text).slice(0, 80))
    throw new StoreError(`Cannot read cursor ${shown}: it is not of a listing`, { retriable: false })
  }
}

/** A query's value that must be text: a list or an object from a careless caller never reaches the server. */
export function textValue(name: string, value: unknown): string {
  if (typeof value === 'string') return value
  throw new StoreError(`Cannot query by ${name}: expected text, got ${typeof value}`, { retriable: false })
}

/** A query's value that must be a finite number. */
export function numberValue(name: string, value: unknown): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value
  throw new StoreError(`Cannot query by ${name}: expected a number, got ${typeof value}`, { retriable: false })
}
