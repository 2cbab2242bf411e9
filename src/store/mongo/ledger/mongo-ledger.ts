// The LedgerStore over MongoDB, on the same connection as the events: a table of operations. All reads are of the
// primary with read concern majority, all writes majority and journal. For the keeper that is as good as linearizable:
// an acknowledged write lies before the primary's majority commit point, so every later majority read there has it.
// What a majority read has is a prefix of the oplog: whoever sees a mark sees the documents that were acknowledged
// before it was inserted. A primary that was voted out may respond for some seconds from such a prefix that is old;
// then marks inserted since are neither read nor deleted, and a bucket computed from it is replaced only if its rev,
// checked on the primary that takes the majority write, is still the one that was read.

import type { LedgerStore } from '../../ledger-store.ts'
import { MongoOperations } from '../operations.ts'
import { readBuckets, readTotals } from './bucket-reads.ts'
import { readRevs, replaceBuckets } from './bucket-writes.ts'
import { rawRange, readLedgerSamples, readLedgerTokens } from './cell-events.ts'
import { advanceDay, readDayStates } from './day-states.ts'
import { countMarks, deleteMarks, dirtyBuckets, insertMarks, readMarks } from './marks.ts'
import { insertBook, insertRevision, readBooks, readRevisions, updateRevisionSummary } from './price-book.ts'
import { purge } from './purge.ts'
import { readReachingTokens } from './reaching-tokens.ts'
import { TokenTotalsReader } from './token-totals.ts'

export class MongoLedger extends MongoOperations implements LedgerStore {
  readonly dirtyBuckets = this.named('read dirty buckets', dirtyBuckets)
  readonly readMarks = this.named('read marks', readMarks)
  readonly insertMarks = this.named('insert marks', insertMarks)
  readonly deleteMarks = this.named('delete marks', deleteMarks)
  readonly pendingMarks = this.named('count marks', countMarks)
  readonly readBuckets = this.streamed('read the ledger', readBuckets)
  readonly readTotals = this.streamed('read the ledger', readTotals)
  readonly readRevs = this.named('read revs of the ledger', readRevs)
  readonly replaceBuckets = this.named('write the ledger', replaceBuckets)
  readonly readLedgerSamples = this.streamed('read samples', readLedgerSamples)
  readonly readLedgerTokens = this.streamed('read token usage', readLedgerTokens)
  readonly readReachingTokens = this.streamed('read token usage', readReachingTokens)
  readonly tokenTotals = this.named('sum token usage', new TokenTotalsReader().read)
  readonly rawRange = this.named('read the range of events', rawRange)
  readonly readBooks = this.named('read the price book', readBooks)
  readonly insertBook = this.named('write the price book', insertBook)
  readonly readRevisions = this.named('read revisions', readRevisions)
  readonly insertRevision = this.named('write a revision', insertRevision)
  readonly updateRevisionSummary = this.named('write a revision', updateRevisionSummary)
  readonly readDayStates = this.named('read the states of days', readDayStates)
  readonly advanceDay = this.named('write the state of a day', advanceDay)
  readonly purge = this.named('purge events', purge)
}
