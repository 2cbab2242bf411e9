// Which rule a reserved row of cost belongs to: one, or none that could be named.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DAY_MS, HOUR_MS } from '../../../src/domain/ledger/buckets.ts'
import { Commitments } from '../../../src/processor/prices/commitments.ts'
import { setBook } from '../../../src/processor/prices/price-book-versions.ts'
import { LedgerPlace, openSqlite, T0 } from '../ledger/ledger-place.ts'

const iso = (ms: number) => new Date(ms).toISOString()
const reserved = { kind: 'reserved', usd_per_hour: 2 }

test('a reserved row has the id of its one rule; of two in its time, of patterns and without GPU it has none', async (t) => {
  const { store, dispose } = openSqlite()
  t.after(dispose)
  const place = await LedgerPlace.on(store)
  const set = (rules: object[], nowMs: number, hosts: object[] = []) =>
    setBook(place.ledger, { currency: 'USD', rules, hosts }, { origin: 'test', nowMs })
  const first = [
    { id: 'slot', match: { host: 'a', gpu_index: 0 }, ...reserved, to: iso(T0 + DAY_MS) },
    { id: 'next', match: { host: 'a', gpu_index: 0 }, ...reserved, from: iso(T0 + DAY_MS) },
    { id: 'host', match: { host: 'a' }, ...reserved },
    { id: 'card', match: { uuid: 'GPU-7' }, ...reserved },
    { id: 'rented', match: { host: 'b' }, kind: 'on-demand', usd_per_hour: 1 },
  ]
  await set(first, T0 - DAY_MS, [{ name: 'a', aliases: ['a.example.com'] }])
  const at = async (key: { host?: string | null; gpu_index?: number | null; gpu_uuid?: string | null }, day = 0) => {
    const commitments = await Commitments.of(place.ledger, null)
    const startMs = T0 + day * DAY_MS - 12 * HOUR_MS
    const row = { host: 'a', gpu_index: 0, gpu_uuid: null, ...key }
    return commitments.idOf({ startMs, endMs: startMs + 12 * HOUR_MS, key: row })
  }
  assert.equal(await at({}), 'slot')
  assert.equal(await at({}, 2), 'next')
  assert.equal(await at({ host: 'a.example.com' }), 'slot')
  assert.equal(await at({ gpu_index: 1 }), 'host')
  assert.equal(await at({ host: 'c', gpu_index: 3, gpu_uuid: 'GPU-7' }), 'card')
  assert.equal(await at({ host: 'b' }), null)
  assert.equal(await at({ gpu_index: null }), null)
  const commitments = await Commitments.of(place.ledger, null)
  const both = { startMs: T0, endMs: T0 + 2 * DAY_MS, key: { host: 'a', gpu_index: 0, gpu_uuid: null } }
  assert.equal(commitments.idOf(both), null, 'one rule followed another')

  // A later version: its rules count from then on, and a pattern may have fitted any GPU that no other rule names.
  const pattern = { id: 'pool', match: { name: 'NVIDIA H100*' }, ...reserved }
  await set([{ id: 'renamed', match: { host: 'a' }, ...reserved }, pattern], T0 + 5 * DAY_MS)
  assert.equal(await at({}), 'slot', 'the past keeps its rules')
  assert.equal(await at({}, 7), 'renamed')
  assert.equal(await at({ host: 'c' }, 7), null)
  const across = { startMs: T0 + 4 * DAY_MS, endMs: T0 + 6 * DAY_MS, key: { host: 'a', gpu_index: 1, gpu_uuid: null } }
  assert.equal((await Commitments.of(place.ledger, null)).idOf(across), null, 'two versions name it by two ids')
})
