// Writes by command, and what its reply means: many inserts or deletions in one, or one update. The hot path of the
// processor: plain objects go to `db.command({insert})`, which encodes each once (1.2 of 1.7 CPU-µs per event; driver
// 7.9 has no public way to pass encoded bytes). insertMany takes 2.4, and 7.1 where 3.2 are needed for an event that is
// stored already, since it makes an object per error.

import { BSON, type Document } from 'mongodb'
import type { EventKind, GpuDocument, TokenDocument } from '../../../domain/events/event.ts'
import { type EventPlace, StoreError, type WriteResult } from '../../event-store.ts'
import { COLLECTION_OF_KIND } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { isHopeless, type ServerFault } from '../errors.ts'
import { chunksOf, fitsOneCommand, MAX_DOCUMENTS } from './command-size.ts'
import { placesOf } from './event-places.ts'
import { withReach } from './reach.ts'

const DUPLICATE_KEY = 11_000

export async function writeDocuments(
  connection: MongoConnection,
  samples: readonly GpuDocument[],
  tokens: readonly TokenDocument[],
  jsonBytes?: number,
): Promise<WriteResult> {
  // Both are awaited in any case: no write is still under way when this call fails.
  const results = await Promise.allSettled([
    insertEvents(connection, 'gpu', samples, jsonBytes),
    insertEvents(connection, 'token', tokens.map(withReach), jsonBytes),
  ])
  const total: WriteResult = { stored: 0, duplicate: 0, existing: { samples: [], tokens: [] } }
  const errors: StoreError[] = []
  for (const [i, result] of results.entries()) {
    if (result.status === 'rejected') errors.push(connection.failure('write documents', result.reason))
    else {
      total.stored += result.value.stored
      total.duplicate += result.value.duplicate
      total.existing[i === 0 ? 'samples' : 'tokens'] = result.value.existing
    }
  }
  // Of two failures the retriable one: repeating the call reveals what else is wrong, giving up would not.
  if (errors.length > 0) throw errors.find((error) => error.retriable) ?? errors[0]
  return total
}

async function insertEvents(
  connection: MongoConnection,
  kind: EventKind,
  events: readonly (GpuDocument | TokenDocument)[],
  jsonBytes?: number,
): Promise<{ stored: number; duplicate: number; existing: EventPlace[] }> {
  const { stored, duplicates } = await insertDocuments(connection, COLLECTION_OF_KIND[kind], events, jsonBytes)
  const existing = await placesOf(connection, kind, [...new Set(duplicates.map(({ _id }) => _id))])
  return { stored, duplicate: duplicates.length, existing }
}

/** Inserts documents in any order; one whose `_id` exists is a duplicate and changes nothing. */
export async function insertDocuments<T extends object>(
  connection: MongoConnection,
  collection: string,
  documents: readonly T[],
  jsonBytes = Number.POSITIVE_INFINITY,
): Promise<{ stored: number; duplicates: T[] }> {
  const total = { stored: 0, duplicates: [] as T[] }
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
    for (const { index } of faults) total.duplicates.push(chunk[index!]!)
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
