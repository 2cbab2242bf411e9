// The ledger's half of the embedded store: the contract that it shares with MongoDB, and files of older versions.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { SqliteStore } from '../../src/store/sqlite/sqlite-store.ts'
import { bucket, collect, markedMinutes, OLDER_MARKS, OLDER_TOKENS, row, T0 } from './ledger-samples.ts'
import { ledgerStoreContract } from './ledger-store.contract.ts'

ledgerStoreContract('sqlite', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-ledger-'))
  return {
    open: () => new SqliteStore({ path: join(directory, 'store.sqlite') }),
    dispose: async () => rmSync(directory, { recursive: true }),
  }
})

test('a file of format 1, without sums, is read and written on', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-ledger-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'store.sqlite')
  const before = new SqliteStore({ path })
  await before.prepare()
  await before.ledger.replaceBuckets([bucket({ rows: [row()] })])
  await before.close()
  const database = new DatabaseSync(path)
  database.exec(`ALTER TABLE cost_ledger DROP COLUMN model_sums; ALTER TABLE cost_ledger DROP COLUMN tenant_sums;
    UPDATE meta SET value = 1 WHERE name = 'format'`)
  database.close()
  const store = new SqliteStore({ path })
  t.after(() => store.close())
  await store.prepare()
  assert.deepEqual((await collect(store.ledger.readBuckets('minute', T0, T0 + 1)))[0]?.rows, [row()])
  const sums = { model: [row({ tenant: null })], tenant: [] }
  await store.ledger.replaceBuckets([bucket({ rev: 1, rows: [row()], totals: sums })])
  assert.deepEqual((await collect(store.ledger.readTotals('model', 'minute', T0, T0 + 1)))[0]?.rows, sums.model)
})

test('a file of format 2, without reach, gets it once, and cells that come out otherwise are marked', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-ledger-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'store.sqlite')
  const before = new SqliteStore({ path })
  await before.prepare()
  await before.writeDocuments([], structuredClone(OLDER_TOKENS))
  await before.close()
  const database = new DatabaseSync(path)
  database.exec(`DROP INDEX token_usage_reach; ALTER TABLE token_usage DROP COLUMN reach;
    UPDATE meta SET value = 2 WHERE name = 'format'`)
  database.close()
  for (const prepared of [1, 2]) {
    const store = new SqliteStore({ path })
    await store.prepare()
    const reaching = await collect(store.ledger.readReachingTokens(T0 - 3_600_000, T0 + 3_600_000))
    assert.deepEqual(reaching.map(({ _id }) => _id).sort(), [OLDER_TOKENS[2]!._id, OLDER_TOKENS[3]!._id].sort())
    assert.deepEqual(await markedMinutes(store.ledger), OLDER_MARKS.toSorted(), String(prepared))
    assert.deepEqual(
      await collect(store.readEvents('token', 0, T0 * 2)),
      OLDER_TOKENS.toSorted((a, b) => +a.ts - +b.ts),
    )
    await store.close()
  }
})
