// A keeper in a process of its own, over the MongoDB of MONGO_URL, for which whatever is marked is due at once. It says
// on standard error which call of the store begins and which has ended, so that a test can stop it (SIGSTOP) in the
// middle of one, and at the end (SIGTERM) what it did.

import { writeSync } from 'node:fs'
import { Keeper } from '../../../src/processor/ledger/keeper.ts'
import { PriceBookVersions } from '../../../src/processor/prices/price-book-versions.ts'
import type { LedgerStore } from '../../../src/store/ledger-store.ts'
import { MongoStore } from '../../../src/store/mongo/mongo-store.ts'

const TOLD = new Set(['readMarks', 'readRevs', 'tokenTotals', 'replaceBuckets', 'insertMarks', 'deleteMarks'])
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

// Written at once: a stopped process hands on nothing.
const say = (text: string) => void writeSync(2, `${text}\n`)

function telling(ledger: LedgerStore): LedgerStore {
  return new Proxy(ledger, {
    get(target, name: keyof LedgerStore) {
      const call = (...args: unknown[]) => (target[name] as (...all: unknown[]) => unknown).apply(target, args)
      if (!TOLD.has(name)) return call
      return async (...args: unknown[]) => {
        const level = name === 'replaceBuckets' ? (args[0] as { level: string }[])[0]?.level : args[0]
        const label = typeof level === 'string' ? `${name} ${level}` : name
        say(`> ${label}`)
        const result = await call(...args)
        say(`< ${label}`)
        return result
      }
    },
  })
}

const store = new MongoStore({ url: process.env['MONGO_URL']!, log: quiet })
const ledger = telling(store.ledger)
const stop = new AbortController()
process.once('SIGTERM', () => stop.abort())
const keeper = new Keeper(ledger, new PriceBookVersions(ledger), {
  log: quiet,
  intervalMs: 20,
  ...{ settleMs: 0, maxWaitMs: 0, jitterMs: 0, rollupSettleMs: 0, rollupMaxWaitMs: 0 },
})
say('keeping')
await keeper.run(stop.signal)
await store.close()
say(JSON.stringify(keeper.status()))
