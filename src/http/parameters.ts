// Query parameters that several routes take, and the paging that goes with `cursor`. Cursors are the store's own and
// opaque to clients; one that no page returned is a wrong parameter of the client, not a failure of the store.

import { type Page, StoreError } from '../store/event-store.ts'
import { badParameters, integer, text } from './query.ts'

export const hostParameter = text(256, 'Name of the host')
export const gpuIndexParameter = integer(0, 1023, 'Index of the GPU on its host')
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
