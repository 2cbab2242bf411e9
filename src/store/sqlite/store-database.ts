// The file of the embedded store: one connection that all parts of the store share (events here, the ledger beside it).
// What a transaction wrote is on the disk when it returns. The tables are schema.ts's.

import type { DatabaseSync } from 'node:sqlite'
import { SqliteFile } from '../../sqlite/sqlite-file.ts'
import { StoreError } from '../event-store.ts'

export interface StoreDatabaseOptions {
  path: string
  /** NORMAL saves the fsyncs, and a power cut may lose the last writes: for throw-away stores. */
  synchronous?: 'FULL' | 'NORMAL'
}

/** Its faults are StoreErrors. */
export class StoreDatabase extends SqliteFile {
  readonly #synchronous: 'FULL' | 'NORMAL'

  constructor({ path, synchronous = 'FULL' }: StoreDatabaseOptions) {
    super(path, 'store')
    this.#synchronous = synchronous
  }

  ping(): void {
    this.use('Store does not answer', () => {
      this.checkInPlace()
      this.get('SELECT count(*) FROM sqlite_schema')
    })
  }

  protected prepare(database: DatabaseSync): void {
    database.exec(`PRAGMA synchronous = ${this.#synchronous}; PRAGMA cache_size = -65536`)
  }

  protected fault(message: string, options: { retriable: boolean; cause?: unknown }): Error {
    return new StoreError(message, options)
  }
}
