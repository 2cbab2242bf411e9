// Many writes in one command, and the reading of its answer. The hot path of the whole processor: plain objects go to
// `db.command({insert})`, which is about a tenth faster than insertMany and makes no object per error, so that a replay
// of stored events costs little here. The driver does not split what it is given, and its encoder does not complain
// when its 17 MB buffer is full, so commands are cut by an upper bound of their size, never by a guess.

import { BSON, type Document } from 'mongodb'
import { StoreError, type WriteResult } from '../../event-store.ts'
import type { MongoConnection } from '../connection.ts'
import { isHopeless, type ServerFault } from '../errors.ts'

/** A slow server must manage one command within the call's limit. */
const MAX_DOCUMENTS = 10_000
/** By the upper bound; the server takes 16 MB in one command. */
const MAX_BYTES = 14_000_000
/** What the server takes as one document. */
const MAX_DOCUMENT_BYTES = 16_777_216
const DUPLICATE_KEY = 11_000

/** Inserts documents in any order; one whose `_id` is there already counts as a duplicate and changes nothing. */
export async function insertDocuments(
  connection: MongoConnection,
  collection: string,
  documents: readonly object[],
  jsonBytes = Number.POSITIVE_INFINITY,
): Promise<WriteResult> {
  const total: WriteResult = { stored: 0, duplicate: 0 }
  if (documents.length === 0) return total
  for (const chunk of fitsOneCommand(documents.length, jsonBytes) ? [documents] : chunksOf(documents)) {
    const answer = await sendInsert(connection, collection, chunk)
    const faults = faultsOf(answer)
    const failed = faults.filter((fault) => !isDuplicateId(fault))
    if (failed.length > 0) throw bulkError(collection, failed, chunk.length)
    const stored = Number(answer['n'])
    if (stored + faults.length !== chunk.length) {
      const sum = `${stored} stored and ${faults.length} duplicate of ${chunk.length}`
      throw new StoreError(`Cannot trust the answer to an insert into ${collection}: ${sum}`, { retriable: true })
    }
    total.stored += stored
    total.duplicate += faults.length
  }
  return total
}

async function sendInsert(connection: MongoConnection, insert: string, chunk: readonly object[]): Promise<Document> {
  const { writeConcern } = connection
  try {
    return await connection.command({ insert, documents: chunk, ordered: false, writeConcern })
  } catch (error) {
    if (!(error instanceof BSON.BSONError)) throw error
    // An event's own field named _bsontype makes the encoder refuse the whole command; one bad record must not.
    return await connection.command({ insert, documents: chunk.map(withoutTypeTags), ordered: false, writeConcern })
  }
}

/** The same value for the encoder, objects with a field `_bsontype` as Maps, which it takes as they are. */
function withoutTypeTags(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutTypeTags)
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value
  const entries = Object.entries(value).map(([name, field]) => [name, withoutTypeTags(field)] as const)
  return Object.hasOwn(value, '_bsontype') ? new Map(entries) : Object.fromEntries(entries)
}

/** All that an answer says went wrong; it may say so in an answer that is otherwise ok. */
export function faultsOf(answer: Document): WriteFault[] {
  const errors = answer['writeErrors'] as WriteFault | WriteFault[] | undefined
  // Some servers answer one object where there is one error.
  const faults = errors === undefined ? [] : Array.isArray(errors) ? errors : [errors]
  const concern = answer['writeConcernError'] as ServerFault | undefined
  return concern === undefined ? faults : [...faults, { ...concern, isWriteConcern: true }]
}

export interface WriteFault extends ServerFault {
  index?: number
  keyPattern?: Record<string, unknown>
  isWriteConcern?: true
}

/** Whether the fault says that a document with this `_id` is there; another unique index (somebody's own) is no such. */
export function isDuplicateId(fault: WriteFault): boolean {
  if (fault.code !== DUPLICATE_KEY || fault.isWriteConcern) return false
  if (fault.keyPattern === undefined) return / index: _id_ dup key|dup key: \{ _id: /.test(fault.errmsg ?? '')
  const names = Object.keys(fault.keyPattern)
  return names.length === 1 && names[0] === '_id'
}

export function bulkError(collection: string, faults: readonly WriteFault[], count: number): StoreError {
  // Where one of them passes, the call is worth repeating: the next answer has the hopeless ones alone.
  const retriable = faults.some((fault) => !isHopeless(fault))
  const first = faults.find((fault) => isHopeless(fault) !== retriable) ?? faults[0]!
  const what = first.isWriteConcern ? 'not durable on a majority' : `${faults.length} of ${count} writes failed`
  const text = `Cannot write to ${collection}: ${what}: ${first.errmsg ?? 'no reason given'} (code ${first.code})`
  return new StoreError(text, { retriable })
}

/**
 * Whether documents that were so long as JSON surely fit one command: an array of one-digit integers, the worst case,
 * takes six times as much as BSON (type, index of up to six digits and a 32-bit integer for a digit and a comma), and
 * what the processor adds to a document is below 1 KB.
 */
function fitsOneCommand(count: number, jsonBytes: number): boolean {
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
