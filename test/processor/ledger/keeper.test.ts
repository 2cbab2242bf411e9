// The keeper on the embedded store.

import { keeperContract } from './keeper.contract.ts'
import { openSqlite } from './ledger-place.ts'

keeperContract('sqlite', async () => openSqlite(), { runs: 60 })
