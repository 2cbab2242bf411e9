// What listings have in common: a page and a cursor that continues it. Cursors are the store's own and say nothing to
// anybody else; one that no page gave is the caller's mistake, not a failure of the store.

import { type Page, StoreError } from '../store/event-store.ts'
import { badParameters, text } from './query.ts'

/** A cursor holds the id that a page ended with, and ids may be long. */
export const cursorParameter = text(8192, 'Where the page before ended: its `cursor`')

/** Reads a page; a cursor that the store refuses for good is a wrong parameter. */
export async function readPage<T>(cursor: string | undefined, read: () => Promise<Page<T>>): Promise<Page<T>> {
  try {
    return await read()
  } catch (error) {
    if (cursor === undefined || !(error instanceof StoreError) || error.retriable) throw error
    const message = 'Is no cursor of this listing: begin again without it'
    throw badParameters([{ path: 'cursor', reason: 'wrong_value', message }])
  }
}
