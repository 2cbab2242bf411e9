// One page of documents by one query, made straight from the bytes of the server's reply. This folder exists instead of
// the driver's cursors for two reasons. Speed: a cursor of driver 7.9 indexes each document before any field of it is
// read, even where it is wanted as bytes, 2 KB of garbage a document; see bson-reader.ts for what that costs `verify`
// and `reprice`. And no state between pages: whoever wants more queries for what lies behind the last document, so a
// read of any length holds no cursor, which a server may drop and which belongs to one server of several.

import { BSON, type Db, type Document } from 'mongodb'
import { BsonReader, type ReadDocument } from './bson-reader.ts'

export interface PageQuery<T> {
  filter: Document
  sort: Record<string, 1 | -1>
  projection?: Document
  /** Most documents of the page. */
  limit: number
  /** Limit of the server's time, milliseconds. */
  maxTimeMs?: number | undefined
  read: ReadDocument<T>
}

export interface FoundPage<T> {
  documents: T[]
  /** Whether nothing lies behind them; fewer than `limit` does not imply it, since a reply has 16 MB at most. */
  isLast: boolean
}

/** Reads a page from the primary with read concern majority. */
export async function findPage<T>(db: Db, collection: string, query: PageQuery<T>): Promise<FoundPage<T>> {
  const { maxTimeMs, read, ...rest } = query
  const options = {
    batchSize: query.limit,
    // For a collection whose index was dropped.
    allowDiskUse: true,
    readConcern: { level: 'majority' },
    ...(maxTimeMs === undefined ? {} : { maxTimeMS: maxTimeMs }),
  }
  // `raw` leaves documents inside the reply as bytes.
  const reply = await db.command({ find: collection, ...rest, ...options }, { raw: true })
  const { buffer, byteOffset, byteLength } = reply['cursor'] as Uint8Array
  const cursor = new BsonReader({ firstBatch: read, id: 'integer' }, () => ({ firstBatch: [] as T[], id: 0n }))
  const { firstBatch: documents, id } = cursor.read(Buffer.from(buffer, byteOffset, byteLength))
  if (id !== 0n) await db.command({ killCursors: collection, cursors: [id] })
  return { documents, isLast: id === 0n && documents.length < query.limit }
}

/** A document as the driver decodes it, with all its fields. */
export function documentOf(bytes: Buffer, start: number, options: BSON.DeserializeOptions = {}): Document {
  return BSON.deserialize(bytes.subarray(start, start + bytes.readInt32LE(start)), options)
}
