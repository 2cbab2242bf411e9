// Writes by command, and what its reply means: many inserts or deletions in one, or one update. The hot path of the
// processor: plain objects go to `db.command({insert})`, which encodes each once (1.2 of 1.7 CPU-µs per event; driver
// 7.9 has no public way to pass encoded bytes). insertMany takes 2.4, and 7.1 where 3.2 are needed for an event that is
// stored already, since it makes an object per error. The driver does not split what it is given, and its encoder does
// not report that its 17 MB buffer is full, so commands are cut by an upper bound of their size, never by an estimate.

import { BSON, type Document } from 'mongodb'
import type { GpuDocument, TokenDocument } from '../../../domain/events/event.ts'
import { StoreError, type WriteResult } from '../../event-store.ts'
import { COLLECTION_OF_KIND } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { isHopeless, type ServerFault } from '../errors.ts'

/** A slow server must manage one command within the call's limit. */
const MAX_DOCUMENTS = 10_000
/** By the upper bound; the server takes 16 MB in one command. */
const MAX_BYTES = 14_000_000
/** What the server takes as one document. */
const MAX_DOCUMENT_BYTES = 16_777_216
const DUPLICATE_KEY = 11_000

export async function writeDocuments(
  connection: MongoConnection,
  samples: readonly GpuDocument[],
  tokens: readonly TokenDocument[],
  jsonBytes?: number,
): Promise<WriteResult> {
  // Both are awaited in any case: no write is still under way when this call fails.
  const results = await Promise.allSettled([
    insertDocuments(connection, COLLECTION_OF_KIND.gpu, samples, jsonBytes),
    insertDocuments(connection, COLLECTION_OF_KIND.token, tokens, jsonBytes),
  ])
  const total: WriteResult = { stored: 0, duplicate: 0 }
  const errors: StoreError[] = []
  for (const result of results) {
    if (result.status === 'rejected') errors.push(connection.failure('write documents', result.reason))
    else {
      total.stored += result.value.stored
      total.duplicate += result.value.duplicate
    }
  }
  // Of two failures the retriable one: repeating the call reveals what else is wrong, giving up would not.
  if (errors.length > 0) throw errors.find((error) => error.retriable) ?? errors[0]
  return total
}

/** Inserts documents in any order; one whose `_id` exists counts as a duplicate and changes nothing. */
export async function insertDocuments(
  connection: MongoConnection,
  collection: string,
  documents: readonly object[],
  jsonBytes = Number.POSITIVE_INFINITY,
): Promise<WriteResult> {
  const total: WriteResult = { stored: 0, duplicate: 0 }
  if (documents.length === 0) return total
  for (const chunk of fitsOneCommand(documents.length, jsonBytes) ? [documents] : chunksOf(documents)) {
    const reply = await sendInsert(connection, collection, chunk)
    const faults = faultsOf(reply)
    const failed = faults.filter((fault) => !isDuplicateId(fault))
    if (failed.length > 0) throw bulkError(collection, failed, chunk.length)
    const stored = Number(reply['n'])
    if (stored + faults.length !== chunk.length) {
      const sum = `${stored} stored and ${faults.length} duplicate of ${chunk.length}`
      throw new StoreError(`Cannot trust the reply to an insert into ${collection}: ${sum}`, { retriable: true })
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

/** The same value with objects that have a field `_bsontype` as Maps, which the encoder takes as they are. */
function withoutTypeTags(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutTypeTags)
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value
  const entries = Object.entries(value).map(([name, field]) => [name, withoutTypeTags(field)] as const)
  return Object.hasOwn(value, '_bsontype') ? new Map(entries) : Object.fromEntries(entries)
}

/**
 * Deletes the documents with these ids, of those that match the filter; returns how many there were. Ids that are gone
 * already are ignored: whoever repeats a deletion after a lost reply deletes the rest.
 */
export async function deleteByIds(
  connection: MongoConnection,
  collection: string,
  ids: readonly unknown[],
  filter: Document = {},
): Promise<number> {
  let deleted = 0
  for (let start = 0; start < ids.length; start += MAX_DOCUMENTS) {
    const chunk = ids.slice(start, start + MAX_DOCUMENTS)
    const deletes = [{ q: { ...filter, _id: { $in: chunk } }, limit: 0 }]
    const { writeConcern } = connection
    const reply = await connection.command({ delete: collection, deletes, writeConcern })
    const faults = faultsOf(reply)
    if (faults.length > 0) throw bulkError(collection, faults, chunk.length)
    deleted += Number(reply['n'])
  }
  return deleted
}

/** Updates one document; false when none matches. */
export async function updateOne(
  connection: MongoConnection,
  collection: string,
  update: { q: object; u: object },
): Promise<boolean> {
  const { writeConcern } = connection
  const reply = await connection.command({ update: collection, updates: [update], writeConcern })
  const faults = faultsOf(reply)
  if (faults.length > 0) throw bulkError(collection, faults, 1)
  return Number(reply['n']) === 1
}

export interface WriteFault extends ServerFault {
  index?: number
  keyPattern?: Record<string, unknown>
  isWriteConcern?: true
}

/** Everything that failed according to a reply, which may be `ok` nevertheless. */
export function faultsOf(reply: Document): WriteFault[] {
  const errors = reply['writeErrors'] as WriteFault | WriteFault[] | undefined
  // Some servers return one object where there is one error.
  const faults = errors === undefined ? [] : Array.isArray(errors) ? errors : [errors]
  const concern = reply['writeConcernError'] as ServerFault | undefined
  return concern === undefined ? faults : [...faults, { ...concern, isWriteConcern: true }]
}

/**
 * Whether the fault means that a document with this `_id` exists; not so for other unique indexes, which users made.
 */
export function isDuplicateId(fault: WriteFault): boolean {
  if (fault.code !== DUPLICATE_KEY || fault.isWriteConcern) return false
  if (fault.keyPattern === undefined) return / index: _id_ dup key|dup key: \{ _id: /.test(fault.errmsg ?? '')
  const names = Object.keys(fault.keyPattern)
  return names.length === 1 && names[0] === '_id'
}

export function bulkError(collection: string, faults: readonly WriteFault[], count: number): StoreError {
  // Where one fault may pass, the call is worth repeating: the next reply has only those that cannot.
  const retriable = faults.some((fault) => !isHopeless(fault))
  const first = faults.find((fault) => isHopeless(fault) !== retriable) ?? faults[0]!
  const what = first.isWriteConcern ? 'not durable on a majority' : `${faults.length} of ${count} writes failed`
  const text = `Cannot write to ${collection}: ${what}: ${first.errmsg ?? 'no reason given'} (code ${first.code})`
  return new StoreError(text, { retriable })
}

/**
 * Whether documents of this length as JSON certainly fit one command: an array of one-digit integers, the worst case,
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
