// What the ledger's flows do by hand: run a keeper of their own until nothing is left, take a picture of all spans, and
// reach into the store with its bare driver, as nobody should.

import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, type TestContext } from 'node:test'
import { MongoClient } from 'mongodb'
import { Keeper } from '../../../src/processor/ledger/keeper.ts'
import { PriceBookVersions } from '../../../src/processor/prices/price-book-versions.ts'
import type { VerifyResult } from '../../../src/processor/recompute/verify.ts'
import type { EventStore } from '../../../src/store/event-store.ts'
import type { LedgerBucket } from '../../../src/store/ledger-store.ts'
import { MongoStore } from '../../../src/store/mongo/mongo-store.ts'
import { SqliteStore } from '../../../src/store/sqlite/sqlite-store.ts'
import { uniqueName, withDatabase } from '../../servers/servers-for-tests.ts'
import { type Env, pertoken, type Service, until } from '../harness.ts'

export const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

/** For which whatever is marked is due at once. */
export const EAGER = { settleMs: 0, maxWaitMs: 0, jitterMs: 0, rollupSettleMs: 0, rollupMaxWaitMs: 0 } as const

/** Compiled modules of the many short processes of a flow: they start twice as fast. */
const cache = mkdtempSync(join(tmpdir(), 'pertoken-flow-cache-'))
after(() => rmSync(cache, { recursive: true, force: true }))
const FAST_START = { NODE_COMPILE_CACHE: cache }

/** A store for a flow: the settings that name it, our own connection to it, and a hand in it. */
export interface Place {
  env: Env
  store: EventStore
  /** Adds one unit to the busy money of a cell's first row. */
  corruptCell(startMs: number): Promise<void>
  /** Removes a minute's cells, of all hosts. */
  removeCells(startMs: number): Promise<void>
  removeAllMarks(): Promise<void>
}

export function embeddedPlace(t: TestContext, directory: string): Place {
  const env = { ...FAST_START, DATA_DIR: join(directory, 'data') }
  const path = join(env.DATA_DIR, 'store.sqlite')
  const store = new SqliteStore({ path })
  t.after(() => store.close())
  const change = async (sql: string, ...values: number[]) => {
    const db = new DatabaseSync(path, { timeout: 5000 })
    try {
      assert.ok(Number(db.prepare(sql).run(...values).changes) > 0, sql)
    } finally {
      db.close()
    }
  }
  const cell = "level = 'minute' AND start_ms = ?"
  const more = "json_set(rows, '$[0].busy_nano_usd', coalesce(json_extract(rows, '$[0].busy_nano_usd'), 0) + 1)"
  return {
    ...{ env, store },
    corruptCell: (startMs) => change(`UPDATE cost_ledger SET rows = ${more} WHERE ${cell}`, startMs),
    removeCells: (startMs) => change(`DELETE FROM cost_ledger WHERE ${cell}`, startMs),
    removeAllMarks: () => change('DELETE FROM marks'),
  }
}

export async function mongoPlace(t: TestContext, url: string, directory: string): Promise<Place> {
  const database = uniqueName('ledger')
  const env = { ...FAST_START, MONGO_URL: withDatabase(url, database), DATA_DIR: join(directory, 'data') }
  const store = new MongoStore({ url: env.MONGO_URL, log: quiet })
  const client = await new MongoClient(url).connect()
  t.after(() => Promise.all([store.close(), client.close()]))
  const ledger = client.db(database).collection('cost_ledger')
  const cell = (startMs: number) => ({ level: 'minute', start: new Date(startMs) })
  return {
    ...{ env, store },
    corruptCell: async (startMs) => {
      const { modifiedCount } = await ledger.updateOne(cell(startMs), { $inc: { 'rows.0.busy_nano_usd': 1 } })
      assert.equal(modifiedCount, 1)
    },
    removeCells: async (startMs) => {
      assert.equal((await ledger.deleteMany(cell(startMs))).deletedCount > 0, true)
    },
    removeAllMarks: async () => {
      const { deletedCount } = await client.db(database).collection('pt_marks').deleteMany({})
      assert.ok(deletedCount > 0)
    },
  }
}

/** `pertoken verify --json` with these flags; fails unless it exits with `status`. */
export function verify({ env }: Place, status: number, ...flags: string[]): VerifyResult {
  const result = pertoken(['verify', '--json', ...flags], env)
  assert.equal(result.status, status, result.stdout + result.stderr)
  return JSON.parse(result.stdout) as VerifyResult
}

/** Runs a keeper until nothing is marked any more; answers how many spans it computed. */
export async function keepAll(store: EventStore, now = Date.now): Promise<number> {
  const keeper = new Keeper(store.ledger, new PriceBookVersions(store.ledger), { log: quiet, ...EAGER, now })
  let computed = 0
  for (let pass = 0; pass < 1000; pass++) {
    const { minutes, hours, days, left, waiting } = await keeper.pass()
    computed += minutes + hours + days
    if (minutes + hours + days + left + waiting === 0) return computed
  }
  return assert.fail('The keeper does not come to an end')
}

/** All spans of all levels, as `level start host` → the span as text, its rev included. */
export async function allSpans(store: EventStore): Promise<Map<string, string>> {
  const spans = new Map<string, string>()
  for (const level of ['minute', 'hour', 'day'] as const) {
    const found: AsyncIterable<LedgerBucket> = store.ledger.readBuckets(level, 0, Date.UTC(2100, 0))
    for await (const span of found) {
      const text = JSON.stringify(span, (_, value) => (typeof value === 'bigint' ? String(value) : value))
      spans.set(`${level} ${new Date(span.startMs).toISOString()} ${span.host}`, text)
    }
  }
  return spans
}

/** Stops a process where it is, and resolves once the system says that it stands still. */
export async function freeze({ child }: Service): Promise<void> {
  child.kill('SIGSTOP')
  await isFrozen(child.pid!)
}

export async function isFrozen(pid: number): Promise<void> {
  await until(`process ${pid} is stopped`, async () => /\) T /.test(readFileSync(`/proc/${pid}/stat`, 'utf8')))
}
