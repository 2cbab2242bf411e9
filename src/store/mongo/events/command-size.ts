// How many documents fit one command. The driver does not split what it is given, and its encoder does not report that
// its 17 MB buffer is full, so commands are cut by an upper bound of their size, never by an estimate.

import { BSON } from 'mongodb'
import { StoreError } from '../../event-store.ts'

/** A slow server must manage one command within the call's limit. */
export const MAX_DOCUMENTS = 10_000
/** By the upper bound; the server takes 16 MB in one command. */
const MAX_BYTES = 14_000_000
/** What the server takes as one document. */
const MAX_DOCUMENT_BYTES = 16_777_216

/**
 * Whether documents of this length as JSON certainly fit one command: an array of one-digit integers, the worst case,
 * takes six times as much as BSON (type, index of up to six digits and a 32-bit integer for a digit and a comma), and
 * what the processor adds to a document is below 1 KB.
 */
export function fitsOneCommand(count: number, jsonBytes: number): boolean {
  return count <= MAX_DOCUMENTS && jsonBytes * 7 + count * 1024 <= MAX_BYTES
}

/** Cuts documents into what one command holds. */
export function* chunksOf<T extends object>(documents: readonly T[]): Generator<readonly T[]> {
  let start = 0
  let bytes = 0
  for (let i = 0; i < documents.length; i++) {
    const size = upperBoundOf(documents[i] as Record<string, unknown>)
    if (size > MAX_BYTES) assertFits(documents[i]!)
    if (i > start && (bytes + size > MAX_BYTES || i - start === MAX_DOCUMENTS)) {
      yield documents.slice(start, i)
      start = i
      bytes = 0
    }
    bytes += size
  }
  if (start < documents.length) yield start === 0 ? documents : documents.slice(start)
}

/** Most bytes that a document can take as BSON: three for each UTF-16 unit, eleven around and in a number. */
function upperBoundOf(document: Record<string, unknown>): number {
  let bytes = 16
  for (const name in document) {
    const value = document[name]
    bytes += name.length * 3 + 11
    if (typeof value === 'string') bytes += value.length * 3
    else if (typeof value === 'object' && value !== null && !(value instanceof Date)) {
      bytes += value instanceof Uint8Array ? value.length : upperBoundOf(value as Record<string, unknown>)
    }
  }
  return bytes
}

function assertFits(document: object): void {
  const bytes = BSON.calculateObjectSize(document)
  if (bytes < MAX_DOCUMENT_BYTES) return
  const name = JSON.stringify((document as { _id?: unknown })._id)
  throw new StoreError(`Cannot store document ${name}: ${bytes} bytes, the server takes ${MAX_DOCUMENT_BYTES}`, {
    retriable: false,
  })
}
