// What the ledger's service does beside the keeper: it states what contradicts in the newest events, until a price book
// that joins the names of a host ends it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PriceBookDocument } from '../../../src/domain/prices/price-book-schema.ts'
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

test('a file of prices whose rule fits no GPU that was seen is a line in the log', async (t) => {
  const { store, dispose } = openSqlite()
  t.after(dispose)
  await store.prepare()
  await store.writeDocuments([sample(Date.now(), { name: 'NVIDIA L40S' })], [])
  const logger = new Lines()
  const rules = [{ id: 'l40s', match: { name: 'NVIDIA-L40S' }, kind: 'spot' as const, usd_per_hour: 1 }]
  const stop = new AbortController()
  const bookFile = {
    path: 'prices.yaml',
    watch: async (onBook: (book: PriceBookDocument, warnings: []) => Promise<void>) => {
      await onBook({ currency: 'USD', rules }, [])
      stop.abort()
    },
  }
  const options = { defaultUsdPerHour: 1, defaultIsGiven: false, retentionDays: 0, bookFile, logger }
  await new LedgerService(store, new PriceBookVersions(store.ledger), options).run(stop.signal)
  const warnings = logger.lines.filter(({ level }) => level === 'warn').map(({ message }) => message)
  const fit = 'Rule "l40s" matches name "NVIDIA-L40S", which no GPU has that was seen; seen: "NVIDIA L40S"'
  assert.ok(warnings.includes(fit), warnings.join('\n'))
})
