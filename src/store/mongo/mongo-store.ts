// The EventStore over MongoDB: one event is one document of `gpu_metrics` or `token_usage`, unique by `_id`, which is
// what makes every write here repeatable. This file is the map of the adapter: each method names its action for error
// texts and hands on to the file that knows how. Writes are majority and journal, reads primary and majority.

import type { EventKind, GpuDocument, TokenDocument } from '../../domain/events/documents.ts'
import type { DirtyMinute } from '../../domain/ledger/buckets.ts'
import type { Position } from '../../log/event-log.ts'
import type {
  DeadLetter,
  EventQuery,
  EventStore,
  LatestSampleQuery,
  Page,
  StoreCounts,
  WriteResult,
} from '../event-store.ts'
import { PagedIterator } from '../paged-iterator.ts'
import { COLLECTION_OF_KIND } from './collections.ts'
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
import { insertDocuments } from './events/writes.ts'
import { insertMarks } from './ledger/marks.ts'
import { MongoLedger } from './ledger/mongo-ledger.ts'
import { prepareDatabase } from './prepare.ts'

export class MongoStore implements EventStore {
  readonly description: string
  readonly ledger: MongoLedger
  readonly #connection: MongoConnection

  /** Connects at the first call. Throws a StoreError when the URL is wrong. */
  constructor(options: MongoStoreOptions) {
    this.#connection = new MongoConnection(options)
    this.description = this.#connection.description
    this.ledger = new MongoLedger(this.#connection)
  }

  async prepare(): Promise<{ warnings: string[] }> {
    return { warnings: await this.#run('prepare the database', prepareDatabase) }
  }

  async ping(): Promise<void> {
    await this.#run('reach the database', (connection) => connection.command({ ping: 1 }))
  }

  close(): Promise<void> {
    return this.#connection.close()
  }

  async writeDocuments(
    samples: readonly GpuDocument[],
    tokens: readonly TokenDocument[],
    jsonBytes?: number,
  ): Promise<WriteResult> {
    return this.#run('write documents', async (connection) => {
      // Both are awaited whatever comes: a write that is still under way when this call fails would be nobody's.
      const results = await Promise.allSettled([
        insertDocuments(connection, COLLECTION_OF_KIND.gpu, samples, jsonBytes),
        insertDocuments(connection, COLLECTION_OF_KIND.token, tokens, jsonBytes),
      ])
      const total: WriteResult = { stored: 0, duplicate: 0 }
      for (const result of results) {
        if (result.status === 'rejected') throw worstOf(connection, results)
        total.stored += result.value.stored
        total.duplicate += result.value.duplicate
      }
      return total
    })
  }

  writeDeadLetters(letters: readonly DeadLetter[]): Promise<void> {
    return this.#run('write dead letters', (connection) => writeDeadLetters(connection, letters))
  }

  async insertMarks(minutes: readonly DirtyMinute[], atMs: number): Promise<void> {
    await this.#run('insert marks', (connection) => insertMarks(connection, 'minute', { spans: minutes, atMs }))
  }

  advancePositions(group: string, positions: readonly Position[]): Promise<void> {
    return this.#run('advance positions', (connection) => advancePositions(connection, group, positions))
  }

  beginPositions(group: string, positions: readonly Position[]): Promise<void> {
    return this.#run('begin positions', (connection) => beginPositions(connection, group, positions))
  }

  readPositions(group: string): Promise<Position[]> {
    return this.#run('read positions', (connection) => readPositions(connection, group))
  }

  resetPositions(group: string, positions: readonly Position[]): Promise<void> {
    return this.#run('reset positions', (connection) => resetPositions(connection, group, positions))
  }

  latestSample(query: LatestSampleQuery): Promise<GpuDocument | null> {
    return this.#run('read the latest sample', (connection) => latestSample(connection, query))
  }

  latestSamplePerSlot(sinceMs: number, limit: number): Promise<GpuDocument[]> {
    return this.#run('read the latest samples', (connection) => latestSamplePerSlot(connection, sinceMs, limit))
  }

  newestMs(kind: EventKind): Promise<number | null> {
    return this.#run('read the newest time', (connection) => newestMs(connection, kind))
  }

  readEvents(kind: 'gpu', fromMs: number, toMs: number): AsyncIterable<GpuDocument>
  readEvents(kind: 'token', fromMs: number, toMs: number): AsyncIterable<TokenDocument>
  readEvents(kind: EventKind, fromMs: number, toMs: number): AsyncIterable<never> {
    return new PagedIterator(this.#eventPages(kind, fromMs, toMs))
  }

  async *#eventPages(kind: EventKind, fromMs: number, toMs: number): AsyncIterable<never[]> {
    try {
      await this.#connection.connect()
      yield* readEvents(this.#connection, kind, fromMs, toMs) as AsyncIterable<never[]>
    } catch (error) {
      throw this.#connection.failure('read events', error)
    }
  }

  listEvents(kind: EventKind, query: EventQuery): Promise<Page<Record<string, unknown>>> {
    return this.#run('list events', (connection) => listEvents(connection, kind, query))
  }

  listDeadLetters(query: {
    reason?: string
    topic?: string
    limit: number
    cursor?: string
  }): Promise<Page<DeadLetter>> {
    return this.#run('list dead letters', (connection) => listDeadLetters(connection, query))
  }

  readDeadLetter(id: string): Promise<DeadLetter | null> {
    return this.#run('read a dead letter', (connection) => readDeadLetter(connection, id))
  }

  markRedriven(id: string, at: Date): Promise<void> {
    return this.#run('mark a dead letter as redriven', (connection) => markRedriven(connection, id, at))
  }

  purgeDeadLetters(beforeMs: number): Promise<number> {
    return this.#run('purge dead letters', (connection) => purgeDeadLetters(connection, beforeMs))
  }

  count(): Promise<StoreCounts> {
    return this.#run('count documents', countDocuments)
  }

  #run<T>(action: string, work: (connection: MongoConnection) => Promise<T>): Promise<T> {
    return this.#connection.run(action, () => work(this.#connection))
  }
}

/** Of two failures the retriable one: repeating the call tells what else is wrong, giving up would not. */
function worstOf(connection: MongoConnection, results: readonly PromiseSettledResult<unknown>[]): unknown {
  const errors = results.flatMap((result) =>
    result.status === 'rejected' ? [connection.failure('write documents', result.reason)] : [],
  )
  return errors.find((error) => error.retriable) ?? errors[0]
}
