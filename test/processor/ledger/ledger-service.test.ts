// What the ledger's service does beside the keeper: it states what contradicts in the newest events, until a price book
// that joins the names of a host ends it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LedgerService } from '../../../src/processor/ledger/ledger-service.ts'
import { PriceBookVersions, setBook } from '../../../src/processor/prices/price-book-versions.ts'
import { until } from '../../flows/harness.ts'
import { Lines, openSqlite, sample, token } from './ledger-place.ts'

test('notes name a host under two spellings, until a book joins them', async (t) => {
  const { store, dispose } = openSqlite()
  t.after(dispose)
  await store.prepare()
  const nowMs = Date.now()
  await store.writeDocuments([sample(nowMs, { host: 'a' })], [token(nowMs, { host: 'A.example.com' })])
  const options = { defaultUsdPerHour: 1, defaultIsGiven: false, retentionDays: 0, bookFile: null, logger: new Lines() }
  /** A service until its first look. */
  const notes = async () => {
    const service = new LedgerService(store, new PriceBookVersions(store.ledger), options)
    const stop = new AbortController()
    const running = service.run(stop.signal)
    await until('it has looked', async () => service.hasLooked)
    stop.abort()
    await running
    return service.notes
  }
  const [note, ...others] = await notes()
  assert.deepEqual([note?.code, others], ['host_spelling', []])
  assert.match(
    note!.message,
    /^Tokens name host "A\.example\.com".*: hosts: \[\{ name: "a", aliases: \["A\.example\.com"\] \}\]$/,
  )
  const hosts = [{ name: 'a', aliases: ['A.example.com'] }]
  await setBook(store.ledger, { currency: 'USD', hosts, rules: [] }, { origin: 'test', nowMs })
  assert.deepEqual(await notes(), [])
})
