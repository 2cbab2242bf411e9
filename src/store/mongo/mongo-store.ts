// The EventStore over MongoDB: one event is one document of `gpu_metrics` or `token_usage`, unique by `_id`, which
// makes every write repeatable. A table of operations, each in the file that knows how; the ledger's half is
// ledger/mongo-ledger.ts. Writes are majority and journal, reads primary and majority.

import type { EventStore } from '../event-store.ts'
import type { LedgerStore } from '../ledger-store.ts'
import { MongoConnection, type MongoStoreOptions } from './connection.ts'
import {
  listDeadLetters,
  markRedriven,
  purgeDeadLetters,
  readDeadLetter,
  writeDeadLetters,
} from './events/dead-letters.ts'
import { advancePositions, beginPositions, readPositions, resetPositions } from './events/positions.ts'
import {
  countDocuments,
  latestSample,
  latestSamplePerSlot,
  listEvents,
  newestMs,
  readEvents,
} from './events/queries.ts'
import { writeDocuments } from './events/writes.ts'
import { MongoLedger } from './ledger/mongo-ledger.ts'
import { MongoOperations } from './operations.ts'
import { prepareDatabase } from './prepare.ts'

export class MongoStore extends MongoOperations implements EventStore {
  readonly description: string
  readonly ledger: LedgerStore

  readonly prepare = this.named('prepare the database', prepareDatabase)
  readonly ping = this.named('reach the database', (connection) => connection.ping())
  readonly writeDocuments = this.named('write documents', writeDocuments)
  readonly writeDeadLetters = this.named('write dead letters', writeDeadLetters)
  readonly advancePositions = this.named('advance positions', advancePositions)
  readonly beginPositions = this.named('begin positions', beginPositions)
  readonly readPositions = this.named('read positions', readPositions)
  readonly resetPositions = this.named('reset positions', resetPositions)
  readonly latestSample = this.named('read the latest sample', latestSample)
  readonly latestSamplePerSlot = this.named('read the latest samples', latestSamplePerSlot)
  readonly newestMs = this.named('read the newest time', newestMs)
  readonly readEvents: EventStore['readEvents'] = this.streamed('read events', readEvents)
  readonly listEvents = this.named('list events', listEvents)
  readonly listDeadLetters = this.named('list dead letters', listDeadLetters)
  readonly readDeadLetter = this.named('read a dead letter', readDeadLetter)
  readonly markRedriven = this.named('mark a dead letter as redriven', markRedriven)
  readonly purgeDeadLetters = this.named('purge dead letters', purgeDeadLetters)
  readonly count = this.named('count documents', countDocuments)

  /** Connects at the first call. Throws a StoreError when the URL is wrong. */
  constructor(options: MongoStoreOptions) {
    super(new MongoConnection(options))
    this.description = this.connection.description
    this.ledger = new MongoLedger(this.connection)
  }

  close(): Promise<void> {
    return this.connection.close()
  }
}
