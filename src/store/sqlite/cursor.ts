// The cursor of a listing: time and id of the last item that was handed out, opaque to callers. Since it names a place in
// the order and not a count, what is inserted meanwhile moves nothing.

import { StoreError } from '../event-store.ts'

export interface Place {
  ms: number
  id: string
}

export function encodeCursor({ ms, id }: Place): string {
  return Buffer.from(JSON.stringify([ms, id])).toString('base64url')
}

/** Throws a StoreError when the text is no cursor of ours. */
export function decodeCursor(cursor: string): Place {
  try {
    const [ms, id, ...rest] = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as unknown[]
    if (Number.isSafeInteger(ms) && typeof id === 'string' && rest.length === 0) return { ms: ms as number, id }
  } catch {
    // Said below.
  }
  throw new StoreError(`Listing failed: ${JSON.stringify(cursor)} is no cursor of a listing, start without one`, {
    retriable: false,
  })
}
