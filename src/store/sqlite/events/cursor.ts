// The cursor of a listing, opaque to callers: time and id of the last item that was returned. Since it names a key of
// the order and not a count, inserts in between do not shift the next page.

import { StoreError } from '../../event-store.ts'

export interface Cursor {
  ms: number
  id: string
}

export function encodeCursor({ ms, id }: Cursor): string {
  return Buffer.from(JSON.stringify([ms, id])).toString('base64url')
}

/** Throws a StoreError when the text is no cursor of ours. */
export function decodeCursor(text: string): Cursor {
  try {
    const [ms, id, ...rest] = JSON.parse(Buffer.from(text, 'base64url').toString()) as unknown[]
    if (Number.isSafeInteger(ms) && typeof id === 'string' && rest.length === 0) return { ms: ms as number, id }
  } catch {
    // Not JSON; thrown below.
  }
  throw new StoreError(`Listing failed: ${JSON.stringify(text)} is no cursor of a listing, start without one`, {
    retriable: false,
  })
}
