// Creates what a database lacks: collections, indexes, the format number. Existing collections are used as they are;
// ours are clustered on `_id` where the server supports it (5.3), which saves mongod 15 % on inserts (but see
// UNCLUSTERED). A collection that cannot keep the guarantees is refused: a view or time-series collection has no unique
// `_id`, and under a collation different ids can be equal. Everything may be done by two processes at once and be
// repeated at any time.

import { type Document, MongoServerError } from 'mongodb'
import { StoreError } from '../event-store.ts'
import { COLLECTIONS, type Index, type IndexKey, indexName, META, UNCLUSTERED } from './collections.ts'
import type { MongoConnection } from './connection.ts'
import { isHopeless, type ServerFault } from './errors.ts'
import { setReach } from './events/set-reach.ts'
import { insertMarks } from './ledger/marks.ts'

/** The format that this version reads and writes. */
const FORMAT_NUMBER = 2
const NAMESPACE_EXISTS = 48
/** IndexOptionsConflict, IndexKeySpecsConflict: another one was created since the indexes were listed. */
const INDEX_CONFLICTS = [85, 86]
const OPTIONS_OF_OURS = new Set(['v', 'key', 'name', 'ns', 'background'])

export async function prepareDatabase(connection: MongoConnection): Promise<{ warnings: string[] }> {
  const format = await formatOf(connection)
  const warnings = await prepareCollections(connection)
  for (const [collection, indexes] of Object.entries(COLLECTIONS)) {
    warnings.push(...(await prepareIndexes(connection, collection, indexes)))
  }
  if (format !== null && format < 2) {
    await setReach(connection, (minutes) => insertMarks(connection, 'minute', minutes, Date.now()))
  }
  await writeFormat(connection)
  return { warnings }
}

/** The format of the data; null where there are none yet. Throws for a newer one than this version's. */
async function formatOf(connection: MongoConnection): Promise<number | null> {
  const meta = await connection.db.collection<{ _id: string; number: number }>(META).findOne({ _id: 'format' })
  if (meta === null) return null
  if (Number(meta.number) <= FORMAT_NUMBER) return Number(meta.number)
  throw new StoreError(
    `Cannot use ${connection.description}: its data have format ${meta.number}, written by a newer pertoken; ` +
      `this one supports formats up to ${FORMAT_NUMBER}: update pertoken`,
    { retriable: false },
  )
}

async function writeFormat(connection: MongoConnection): Promise<void> {
  // $max also raises the number after a migration.
  const update = { q: { _id: 'format' }, u: { $max: { number: FORMAT_NUMBER } }, upsert: true }
  const command = { update: META, updates: [update], writeConcern: connection.writeConcern }
  let reply = await connection.command(command)
  // Another process may have inserted it at the same instant; then the second attempt updates it.
  if (reply['writeErrors'] !== undefined) reply = await connection.command(command)
  const fault = reply['writeErrors']?.[0] ?? reply['writeConcernError']
  if (fault) throw new MongoServerError({ message: fault.errmsg, code: fault.code })
}

async function prepareCollections(connection: MongoConnection): Promise<string[]> {
  const warnings: string[] = []
  const names = Object.keys(COLLECTIONS)
  const existing = await connection.db.listCollections({ name: { $in: names } }).toArray()
  for (const info of existing) {
    const options = ('options' in info ? info.options : {}) ?? {}
    refuseUnfit(connection, { name: info.name, type: info.type ?? 'collection', collation: options['collation'] })
    if (options['capped']) warnings.push(`Collection ${info.name} is capped: its oldest documents vanish`)
  }
  const found = new Set(existing.map((info) => info.name))
  for (const name of names) if (!found.has(name)) await createCollection(connection, name)
  return warnings
}

function refuseUnfit(connection: MongoConnection, found: { name: string; type: string; collation: unknown }): void {
  const reason =
    found.type !== 'collection'
      ? `it is a ${found.type}, which has no unique _id`
      : found.collation !== undefined
        ? 'it has a collation, for which different ids can be equal'
        : null
  if (reason === null) return
  const remedy = 'rename it or use another database'
  throw new StoreError(`Cannot use collection ${found.name} of ${connection.description}: ${reason}; ${remedy}`, {
    retriable: false,
  })
}

async function createCollection(connection: MongoConnection, name: string): Promise<void> {
  const writeConcern = { w: 'majority' }
  const clustered = UNCLUSTERED.has(name) ? {} : { clusteredIndex: { key: { _id: 1 }, unique: true } }
  try {
    await connection.command({ create: name, ...clustered, writeConcern })
  } catch (error) {
    if (hasCode(error, NAMESPACE_EXISTS)) return
    // Before 5.3, and in compatible servers, the option is unknown: an ordinary collection works as well.
    if (!(error instanceof MongoServerError && isHopeless(error as ServerFault)) || hasCode(error, 13)) throw error
    await connection.command({ create: name, writeConcern }).catch((second: unknown) => {
      if (!hasCode(second, NAMESPACE_EXISTS)) throw second
    })
  }
}

async function prepareIndexes(connection: MongoConnection, name: string, indexes: readonly Index[]): Promise<string[]> {
  if (indexes.length === 0) return []
  const existing = await connection.db.collection(name).listIndexes().toArray()
  const warnings: string[] = []
  const missing: Index[] = []
  for (const index of indexes) {
    const { key } = index
    const found = existing.find((other) => sameKey(other['key'], key) || other['name'] === indexName(key))
    if (found === undefined) missing.push(index)
    else if (!isSame(found, index)) warnings.push(conflictText(name, key, found))
  }
  for (const index of missing) {
    const warning = await buildIndex(connection, name, index)
    if (warning !== null) warnings.push(warning)
  }
  return warnings
}

async function buildIndex(connection: MongoConnection, name: string, index: Index): Promise<string | null> {
  const { key } = index
  const documents = await connection.db.collection(name).estimatedDocumentCount()
  if (documents > 0) connection.log.info({ collection: name, index: key, documents }, 'Building an index')
  const command = {
    createIndexes: name,
    indexes: [{ ...index, name: indexName(key) }],
    writeConcern: { w: 'majority' },
  }
  try {
    // On a collection with documents this may take long; on an empty one it needs no connection of its own.
    if (documents > 0) await connection.withoutLimit((db) => db.command(command))
    else await connection.command(command)
    return null
  } catch (error) {
    if (!INDEX_CONFLICTS.some((code) => hasCode(error, code))) throw error
    return `Index ${JSON.stringify(key)} of ${name} is missing: ${(error as Error).message}`
  }
}

function sameKey(a: unknown, b: IndexKey): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}

function isSame(found: Document, { key, partialFilterExpression: partial }: Index): boolean {
  const named = found['name'] === indexName(key) && sameKey(found['key'], key)
  const { partialFilterExpression, ...rest } = found
  const alike = JSON.stringify(partialFilterExpression) === JSON.stringify(partial)
  return named && alike && Object.keys(rest).every((option) => OPTIONS_OF_OURS.has(option))
}

function conflictText(collection: string, key: IndexKey, found: Document): string {
  const { v: _, ...options } = found
  const advice =
    options['expireAfterSeconds'] === undefined ? '' : '; it deletes raw events that the ledger needs: drop it'
  return `Index ${JSON.stringify(key)} of ${collection} exists with other options: ${JSON.stringify(options)}${advice}`
}

function hasCode(error: unknown, code: number): boolean {
  return error instanceof MongoServerError && error.code === code
}
