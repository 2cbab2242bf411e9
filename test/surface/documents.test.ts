// What the stores hold after one run that is the same each time: names and types of all fields of all documents, with
// collections and indexes (MongoDB) and tables (embedded store, log and spool). Stored names are published: older and
// newer programs, and people's own queries, read the same data. A processor writes the events and dead letters,
// commands the price book and a revision, a keeper the ledger.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { type TestContext, test } from 'node:test'
import { type Document, MongoClient } from 'mongodb'
import { SqliteLog } from '../../src/log/sqlite/sqlite-log.ts'
import { startAt } from '../flows/agent/agent-process.ts'
import { pertoken, startService, temporaryDirectory, until } from '../flows/harness.ts'
import { embeddedPlace, keepAll, mongoPlace, type Place } from '../flows/ledger/ledger-hands.ts'
import { freePort } from '../servers/managed-server.ts'
import { mongoForTests } from '../servers/servers-for-tests.ts'
import { bookAt, samplesAt, tokensAt } from './events.ts'
import { assertGolden } from './golden.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR
const T0 = Date.UTC(2026, 5, 1, 12)
const mongo = await mongoForTests({ mode: 'standalone' })

/** Types by path, by what the documents are: `cost_ledger (minute)`. */
type Fields = Map<string, Map<string, Set<string>>>

function addField(fields: Fields, what: string, path: string, type: string): void {
  if (!fields.has(what)) fields.set(what, new Map())
  const types = fields.get(what)!
  if (!types.has(path)) types.set(path, new Set())
  types.get(path)!.add(type)
}

function fieldLines(fields: Fields): string {
  const parts = [...fields].sort(byName).map(([what, paths]) => {
    const lines = [...paths].sort(byName).map(([path, types]) => `  ${path}: ${[...types].sort().join(' | ')}\n`)
    return `\n${what}\n${lines.join('')}`
  })
  return parts.join('')
}

const byName = ([a]: [string, unknown], [b]: [string, unknown]) => (a < b ? -1 : 1)

/** Runs everything that writes documents; `look` is called whenever there are some that will be gone later. */
async function writeAll(t: TestContext, place: Place, directory: string, look: () => Promise<void>): Promise<void> {
  const { env, store } = place
  const { ledger } = store
  await store.prepare()
  const day = (before: number) => T0 - 12 * HOUR - before * DAY
  for (const [before, states] of [
    [30, ['closing', 'frozen', 'purged']],
    [20, ['closing', 'frozen']],
    [10, ['closing']],
  ] as const) {
    for (const state of states) assert.ok(await ledger.advanceDay({ startMs: day(before), state, sinceMs: T0 }))
  }
  const service = await (await startService(t, ['up'], env)).ready()
  const post = async (events: object[]) => {
    const url = `http://127.0.0.1:${service.port}/api/v1/events`
    const headers = { 'content-type': 'application/json', connection: 'close' }
    const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(events) })
    assert.equal(response.status, 202, await response.text())
  }
  const samples = samplesAt(T0)
  await post(samples)
  await service.settled(samples.length)
  const tokens = [...tokensAt(T0), { ...tokensAt(day(10))[0], event_id: 'of-a-closed-day' }]
  await post(tokens)
  const log = new SqliteLog({ path: join(env['DATA_DIR']!, 'log.sqlite') })
  const wrong = [
    { key: null, value: null },
    { key: 'a-key', value: Buffer.from('no JSON'), headers: { 'a-header': 'a value' } },
  ]
  await log.append('gpu.metrics.v1', wrong)
  await log.close()
  await service.settled(samples.length + tokens.length + wrong.length)
  assert.equal(await service.stop(), 0, service.output)
  await look()

  await keepAll(store)
  await look()
  const run = (...words: string[]) => {
    const { status, stdout, stderr } = pertoken(words, env, directory)
    assert.equal(status, 0, stderr)
    return stdout
  }
  writeFileSync(join(directory, 'book.json'), JSON.stringify(bookAt(T0)))
  run('prices', 'set', 'book.json')
  const hours = [T0 - HOUR, T0 + HOUR].map((ms) => new Date(ms).toISOString()) as [string, string]
  run('reprice', '--from', hours[0], '--to', hours[1], '--version', '2')
  const letters = run('dead-letters', 'list', '--json').trim().split('\n')
  const redriven = letters.map((line) => JSON.parse(line) as { _id: string; reason: string })
  run('dead-letters', 'redrive', redriven.find(({ reason }) => reason === 'not_json')!._id)
  await look()
  await keepAll(store)
  await look()
}

/**
 * What a document is, among those of its collection. Marks are not told apart by level: which are pending is chance.
 */
function kindOf(collection: string, document: Document): string {
  if (/marks$/.test(collection)) return collection
  const id = collection === 'pt_meta' ? String(document['_id']).split(':')[0] : undefined
  const kind = document['kind'] ?? document['level'] ?? id
  return kind === undefined ? collection : `${collection} (${kind})`
}

/** Ids that are the same in each run; those with a place in the log hold a random topic id. */
function stableId(id: unknown): string | null {
  return typeof id === 'string' && !id.startsWith('pt1l:') && !/[0-9a-f]{8}-[0-9a-f]{4}-/.test(id) ? id : null
}

/** Adds the types of all fields: BSON types for MongoDB (values come wrapped), JSON types for the embedded store. */
function addDocument(fields: Fields, what: string, value: unknown, path = ''): void {
  if (Array.isArray(value)) {
    addField(fields, what, path, 'array')
    for (const element of value) addDocument(fields, what, element, `${path}[]`)
    return
  }
  const wrapped = (value as { _bsontype?: string } | null)?._bsontype
  const type = value === null ? 'null' : (wrapped ?? (value instanceof Date ? 'Date' : typeof value))
  if (path !== '') addField(fields, what, path, type)
  if (type !== 'object') return
  for (const [name, inner] of Object.entries(value as object)) {
    addDocument(fields, what, inner, path === '' ? name : `${path}.${name}`)
  }
}

test('of MongoDB: collections, indexes, fields and their types, ids', {
  skip: mongo.skip,
  timeout: 60_000,
}, async (t) => {
  const directory = temporaryDirectory(t)
  const place = await mongoPlace(t, mongo.url, directory)
  const client = await new MongoClient(place.env['MONGO_URL']!).connect()
  t.after(() => client.close())
  const db = client.db()
  const fields: Fields = new Map()
  const ids = new Set<string>()
  await writeAll(t, place, directory, async () => {
    for (const { collectionName: name } of await db.collections()) {
      for await (const document of db.collection(name).find({}, { promoteValues: false })) {
        addDocument(fields, kindOf(name, document), document)
        const id = stableId(document._id)
        if (id !== null) ids.add(`  ${name} ${id}\n`)
      }
    }
  })
  const collections: string[] = []
  for (const info of await db.listCollections().toArray()) {
    const isClustered = (info as Document)['options']?.clusteredIndex !== undefined
    collections.push(`${info.name}${isClustered ? ' (clustered)' : ''}\n`)
    for (const { name, key, v: _, ...options } of await db.collection(info.name).indexes()) {
      collections.push(`${info.name}  index ${name} ${JSON.stringify(key)} ${JSON.stringify(options)}\n`)
    }
  }
  assertGolden(
    'documents-mongodb.txt',
    `${collections.sort().join('')}${fieldLines(fields)}\nids\n${[...ids].sort().join('')}`,
  )
})

test('of the embedded store, log and spool: tables, fields of JSON and their types, ids', {
  timeout: 60_000,
}, async (t) => {
  const directory = temporaryDirectory(t)
  const place = embeddedPlace(t, directory)
  const dataDir = place.env['DATA_DIR']!
  const fields: Fields = new Map()
  const ids = new Set<string>()
  const tables = new Map<string, string>()
  const look = async (file: string) => {
    const db = new DatabaseSync(join(dataDir, file), { readOnly: true, timeout: 5000 })
    try {
      for (const [name, text] of tablesOf(db)) tables.set(`${file} ${name}`, text)
      if (file === 'store.sqlite') addRows(db, fields, ids)
    } finally {
      db.close()
    }
  }
  await writeAll(t, place, directory, () => look('store.sqlite'))
  await look('log.sqlite')
  const seed = join(directory, 'seed.json')
  writeFileSync(seed, JSON.stringify([{ gpu_index: 0, name: 'NVIDIA L4', utilization: 0.5, power_w: 60 }]))
  const agent = startAt(t, await freePort(), ['agent'], { ...place.env, GPU_METRICS_SOURCE: 'seed', GPU_SEED: seed })
  await until('the agent has a spool', async () => (await agent.json<{ status: string }>('/health')).status === 'ok')
  await look('spool.sqlite')
  await agent.stop()
  const ddl = [...tables].sort(byName).map(([name, text]) => `${name}\n${text}\n`)
  assertGolden('documents-embedded.txt', `${ddl.join('')}${fieldLines(fields)}\nids\n${[...ids].sort().join('')}`)
})

/** The tables and indexes of a file, with spaces in one form; and the format in its header. */
function tablesOf(db: DatabaseSync): [string, string][] {
  const rows = db.prepare('SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL').all() as Record<string, string>[]
  const { user_version: format } = db.prepare('PRAGMA user_version').get() as { user_version: number }
  const found = rows.map(({ name, sql }): [string, string] => [name!, `  ${sql!.replaceAll(/\s+/g, ' ')}`])
  return [...found, ['(user_version)', `  ${format}`]]
}

/** Columns with the types of their values; where a text is JSON, its fields too. */
function addRows(db: DatabaseSync, fields: Fields, ids: Set<string>): void {
  const tables = db.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").all() as { name: string }[]
  for (const { name } of tables.filter((table) => !table.name.startsWith('sqlite_'))) {
    for (const row of db.prepare(`SELECT * FROM ${name}`).all() as Record<string, unknown>[]) {
      const what = kindOf(name, row)
      for (const [column, value] of Object.entries(row)) {
        const isBytes = value instanceof Uint8Array
        addField(fields, what, column, value === null ? 'null' : isBytes ? 'blob' : typeof value)
        if (typeof value === 'string' && /^[[{]/.test(value)) addDocument(fields, what, JSON.parse(value), `${column}→`)
      }
      const id = stableId(row['_id'])
      if (id !== null) ids.add(`  ${name} ${id}\n`)
      if (name === 'meta') ids.add(`  meta ${row['name']} = ${row['value']}\n`)
    }
  }
}
