// Joined host names on the embedded store.

import { joinedHostsContract } from './joined-hosts.contract.ts'
import { openSqlite } from './ledger-place.ts'

joinedHostsContract('sqlite', async () => openSqlite(), { runs: 60 })
