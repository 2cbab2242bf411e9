// The same question, the same answer, on the embedded store.

import { openSqlite } from './ledger/ledger-place.ts'
import { sameAnswerContract } from './same-answer.contract.ts'

sameAnswerContract('sqlite', async () => openSqlite(), { runs: 60 })
