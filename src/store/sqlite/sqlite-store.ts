// The embedded EventStore: one SQLite file, for one machine without MongoDB. Several processes may use it at once; each
// write is one transaction, so one fsync. A table of operations, each in the file that knows how; the ledger's half is
// ledger/sqlite-ledger.ts.

import type { EventStore } from '../event-store.ts'
import type { LedgerStore } from '../ledger-store.ts'
import {
  listDeadLetters,
  markRedriven,
  purgeDeadLetters,
  readDeadLetter,
  writeDeadLetters,
} from './events/dead-letters.ts'
import { advancePositions, beginPositions, readPositions, resetPositions } from './events/positions.ts'
import { count, latestSample, latestSamplePerSlot, listEvents, newestMs, readEvents } from './events/queries.ts'
import { writeDocuments } from './events/rows.ts'
import { SqliteLedger } from './ledger/sqlite-ledger.ts'
import { SqliteOperations } from './operations.ts'
import { prepareSchema } from './schema.ts'
import { StoreDatabase, type StoreDatabaseOptions } from './store-database.ts'

export class SqliteStore extends SqliteOperations implements EventStore {
  readonly description: string
  readonly ledger: LedgerStore

  readonly prepare = this.bound(prepareSchema)
  readonly ping = this.bound(async (file) => file.ping())
  readonly close = this.bound(async (file) => file.close())
  readonly writeDocuments = this.bound(writeDocuments)
  readonly writeDeadLetters = this.bound(writeDeadLetters)
  readonly advancePositions = this.bound(advancePositions)
  readonly beginPositions = this.bound(beginPositions)
  readonly readPositions = this.bound(readPositions)
  readonly resetPositions = this.bound(resetPositions)
  readonly latestSample = this.bound(latestSample)
  readonly latestSamplePerSlot = this.bound(latestSamplePerSlot)
  readonly newestMs = this.bound(newestMs)
  readonly readEvents: EventStore['readEvents'] = this.streamed(readEvents)
  readonly listEvents = this.bound(listEvents)
  readonly listDeadLetters = this.bound(listDeadLetters)
  readonly readDeadLetter = this.bound(readDeadLetter)
  readonly markRedriven = this.bound(markRedriven)
  readonly purgeDeadLetters = this.bound(purgeDeadLetters)
  readonly count = this.bound(count)

  constructor(options: StoreDatabaseOptions) {
    super(new StoreDatabase(options))
    this.description = `embedded store ${options.path}`
    this.ledger = new SqliteLedger(this.file)
  }
}
