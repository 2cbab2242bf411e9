// The embedded store: the contract that it shares with MongoDB, and what only a file on one machine has to guarantee.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { type TestContext, test } from 'node:test'
import type { TokenDocument } from '../../src/domain/events/event.ts'
import { StoreError } from '../../src/store/event-store.ts'
import { SqliteStore } from '../../src/store/sqlite/sqlite-store.ts'
import { eventStoreContract } from './event-store.contract.ts'

const STORE_MODULE = new URL('../../src/store/sqlite/sqlite-store.ts', import.meta.url).href
const T0 = Date.UTC(2026, 5, 1, 12)

eventStoreContract('sqlite', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-store-'))
  const path = join(directory, 'store.sqlite')
  return {
    open: () => new SqliteStore({ path }),
    writeFormat: async (format) => {
      const database = new DatabaseSync(path)
      database.prepare("UPDATE meta SET value = ? WHERE name = 'format'").run(format)
      database.close()
    },
    dispose: async () => rmSync(directory, { recursive: true }),
  }
})

test('what a write acknowledged is there after the process was killed', { timeout: 20_000 }, async (t) => {
  const path = makePath(t)
  const source = `import { SqliteStore } from ${JSON.stringify(STORE_MODULE)}
    const store = new SqliteStore({ path: ${JSON.stringify(path)} })
    await store.prepare()
    const template = ${JSON.stringify(token(0))}
    for (let i = 0; ; i++) {
      const written = { ...template, _id: 'pt1e:0::' + i, ts: new Date(${T0} + i) }
      await store.writeDocuments([], [written])
      await store.ledger.insertMarks('minute', [{ startMs: ${T0}, hosts: ['h1', null] }], ${T0})
      await store.advancePositions('g', [{ topic: 't', topicId: 'a', partition: 0, offset: i }])
      process.stdout.write(i + '\\n')
    }`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let acknowledged = ''
  for await (const chunk of child.stdout) {
    acknowledged += chunk
    if (acknowledged.length > 300) child.kill('SIGKILL')
  }
  const last = Number(acknowledged.split('\n').at(-2))
  const store = await openStore(t, path)
  const ids = new Set<string>()
  for await (const document of store.readEvents('token', T0, T0 + 100_000)) ids.add(document._id)
  for (let i = 0; i <= last; i += 1) assert.ok(ids.has(token(i)._id), `event ${i} of ${last}`)
  assert.equal((await store.count()).tokenUsage, ids.size)
  const [position] = await store.readPositions('g')
  assert.ok(position!.offset >= last && position!.offset < ids.size)
})

test('a store is the same after it was closed and opened again', async (t) => {
  const path = makePath(t)
  const before = await openStore(t, path)
  await before.writeDocuments([], [token(1), token(2)])
  await before.close()
  const after = await openStore(t, path)
  assert.deepEqual(await countsOf(after, [], [token(2), token(3)]), [1, 1])
  assert.deepEqual((await after.listEvents('token', { limit: 10 })).items, [token(1), token(2), token(3)])
  assert.equal((await after.count()).tokenUsage, 3)
})

test('a listing whose filter matches nothing lets the event loop have its turn', async (t) => {
  const store = await openStore(t, makePath(t))
  const tokens = Array.from({ length: 40_000 }, (_, i) => token(i))
  await store.writeDocuments([], tokens)
  let turns = 0
  const timer = setInterval(() => {
    turns += 1
  }, 0)
  const page = await store.listEvents('token', { tenant: 'nobody', limit: 10 })
  clearInterval(timer)
  assert.deepEqual(page, { items: [], cursor: null })
  assert.ok(turns >= 5, `${turns} turns`)
})

test('a listing finds its place in more events of one instant than one step has', async (t) => {
  const store = await openStore(t, makePath(t))
  const tokens = Array.from({ length: 9000 }, (_, i) => ({ ...token(i), ts: new Date(T0) }))
  await store.writeDocuments([], tokens)
  const ids = new Set<unknown>()
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const page = await store.listEvents('token', { limit: 2500, ...(cursor === undefined ? {} : { cursor }) })
    for (const item of page.items) ids.add(item['_id'])
    cursor = page.cursor
  }
  assert.equal(ids.size, 9000)
})

test('marks keep one row for each host and minute, and ids are not used again', async (t) => {
  const path = makePath(t)
  const store = await openStore(t, path)
  await store.ledger.insertMarks('minute', [{ startMs: T0, hosts: ['h1', null] }], T0 + 5)
  await store.file.transaction('Deleting marks failed', () => store.file.run('DELETE FROM marks'))
  await store.ledger.insertMarks('minute', [{ startMs: T0, hosts: [null] }], T0 + 6)
  const marks = store.file.use('Reading marks failed', () => store.file.all<object>('SELECT * FROM marks'))
  assert.deepEqual(
    marks.map((mark) => ({ ...mark })),
    [{ id: 3, level: 'minute', start_ms: T0, host: null, at_ms: T0 + 6 }],
  )
})

test('a row that breaks another rule than uniqueness is an error, not a duplicate', async (t) => {
  const store = await openStore(t, makePath(t))
  const broken = { ...token(1), model: null as unknown as string }
  await assert.rejects(store.writeDocuments([], [token(0), broken]))
  assert.deepEqual((await store.listEvents('token', { limit: 10 })).items, [])
})

test('a damaged file is refused for good, with what to do', async (t) => {
  const path = makePath(t)
  mkdirSync(dirname(path))
  writeFileSync(path, 'this is not a database, it only has the name of one'.repeat(100))
  const store = new SqliteStore({ path })
  await assert.rejects(store.prepare(), storeError({ retriable: false, says: /is damaged, stop pertoken/ }))
})

test('preparing works once what was in its way is gone', async (t) => {
  const path = makePath(t)
  mkdirSync(path, { recursive: true })
  const store = new SqliteStore({ path })
  t.after(() => store.close())
  await assert.rejects(store.prepare(), storeError({ retriable: true, says: /unable to open database file/ }))
  rmSync(path, { recursive: true })
  await store.prepare()
  assert.deepEqual(await countsOf(store, [], [token(1)]), [1, 0])
})

test('a full disk is a passing fault, and nothing of the step is stored', async (t) => {
  const store = await openStore(t, makePath(t))
  await store.writeDocuments([], [token(0)])
  store.file.use('Limiting failed', () => store.file.exec('PRAGMA max_page_count = 60'))
  const many = Array.from({ length: 2000 }, (_, i) => token(i))
  await assert.rejects(store.writeDocuments([], many), storeError({ retriable: true, says: /no space left/ }))
  assert.equal((await store.count()).tokenUsage, 1)
  store.file.use('Lifting failed', () => store.file.exec('PRAGMA max_page_count = 4294967294'))
  assert.deepEqual(await countsOf(store, [], many), [1999, 1])
})

test('a file that was removed is noticed by writes and ping', async (t) => {
  const path = makePath(t)
  const store = await openStore(t, path)
  rmSync(path)
  await assert.rejects(store.ping(), storeError({ retriable: false, says: /was removed or replaced/ }))
  await assert.rejects(
    store.writeDocuments([], [token(1)]),
    storeError({ retriable: false, says: /was removed or replaced/ }),
  )
})

test('a closed store says so', async (t) => {
  const store = await openStore(t, makePath(t))
  await store.close()
  await store.close()
  await assert.rejects(store.ping(), storeError({ retriable: false, says: /the store is closed/ }))
})

function makePath(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-store-'))
  t.after(() => rmSync(directory, { recursive: true }))
  return join(directory, 'data', 'store.sqlite')
}

async function openStore(t: TestContext, path: string): Promise<SqliteStore> {
  const store = new SqliteStore({ path })
  await store.prepare()
  t.after(() => store.close())
  return store
}

function storeError({ retriable, says }: { retriable: boolean; says: RegExp }): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof StoreError, `not a StoreError: ${error}`)
    assert.match(error.message, says)
    assert.equal(error.retriable, retriable)
    return true
  }
}

function token(i: number): TokenDocument {
  return {
    _id: `pt1e:0::${i}`,
    ts: new Date(T0 + i),
    host: null,
    model: 'm',
    gpu_index: 0,
    prompt_tokens: i,
    completion_tokens: 1,
    cost_per_token: null,
    tokens_per_second: null,
    price_per_hour_usd: 0.85,
    window_s: 30,
  }
}

async function countsOf(store: SqliteStore, ...documents: Parameters<SqliteStore['writeDocuments']>) {
  const { stored, duplicate } = await store.writeDocuments(...documents)
  return [stored, duplicate]
}
