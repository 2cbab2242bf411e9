// The ledger's half of the embedded store: the contract that MongoDB keeps too.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SqliteStore } from '../../src/store/sqlite/sqlite-store.ts'
import { ledgerStoreContract } from './ledger-store.contract.ts'

ledgerStoreContract('sqlite', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-ledger-'))
  return {
    open: () => new SqliteStore({ path: join(directory, 'store.sqlite') }),
    dispose: async () => rmSync(directory, { recursive: true }),
  }
})
