// Commitments on the embedded store.

import { commitmentsContract } from './commitments.contract.ts'
import { openSqlite } from './ledger-place.ts'

commitmentsContract('sqlite', async () => openSqlite(), { days: 31 })
