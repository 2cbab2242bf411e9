// The embedded LedgerStore, on the same file as the events: a table of operations, each in the file that knows how.

import type { LedgerStore } from '../../ledger-store.ts'
import { SqliteOperations } from '../operations.ts'
import { readBuckets, readRevs, readTotals, replaceBuckets } from './buckets.ts'
import { rawRange, readLedgerSamples, readLedgerTokens, readReachingTokens } from './cell-events.ts'
import { advanceDay, readDayStates } from './day-states.ts'
import { countMarks, deleteMarks, dirtyBuckets, insertMarks, readMarks } from './marks.ts'
import { insertBook, insertRevision, readBooks, readRevisions, updateRevisionSummary } from './price-book.ts'
import { purge } from './purge.ts'
import { tokenTotals } from './token-totals.ts'

export class SqliteLedger extends SqliteOperations implements LedgerStore {
  readonly dirtyBuckets = this.bound(dirtyBuckets)
  readonly readMarks = this.bound(readMarks)
  readonly insertMarks = this.bound(insertMarks)
  readonly deleteMarks = this.bound(deleteMarks)
  readonly pendingMarks = this.bound(countMarks)
  readonly readBuckets = this.streamed(readBuckets)
  readonly readTotals = this.streamed(readTotals)
  readonly readRevs = this.bound(readRevs)
  readonly replaceBuckets = this.bound(replaceBuckets)
  readonly readLedgerSamples = this.streamed(readLedgerSamples)
  readonly readLedgerTokens = this.streamed(readLedgerTokens)
  readonly readReachingTokens = this.streamed(readReachingTokens)
  readonly tokenTotals = this.bound(tokenTotals)
  readonly rawRange = this.bound(rawRange)
  readonly readBooks = this.bound(readBooks)
  readonly insertBook = this.bound(insertBook)
  readonly readRevisions = this.bound(readRevisions)
  readonly insertRevision = this.bound(insertRevision)
  readonly updateRevisionSummary = this.bound(updateRevisionSummary)
  readonly readDayStates = this.bound(readDayStates)
  readonly advanceDay = this.bound(advanceDay)
  readonly purge = this.bound(purge)
}
