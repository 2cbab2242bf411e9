// The database file of the embedded store: one connection for both halves of the store. What a transaction wrote is on
// disk when it returns. The tables are those of schema.ts.

import type { DatabaseSync } from 'node:sqlite'
import { SqliteFile } from '../../sqlite/sqlite-file.ts'
import { StoreError } from '../event-store.ts'

/** Rows that one transaction of `deleteInChunks` deletes at most. */
export const CHUNK_ROWS = 5_000

export interface StoreDatabaseOptions {
  path: string
  /** NORMAL saves the fsyncs, but a power failure may lose the last writes: for disposable stores. */
  synchronous?: 'FULL' | 'NORMAL'
}

/** Its errors are StoreErrors. */
export class StoreDatabase extends SqliteFile {
  readonly #synchronous: 'FULL' | 'NORMAL'

  constructor({ path, synchronous = 'FULL' }: StoreDatabaseOptions) {
    super(path, 'store')
    this.#synchronous = synchronous
  }

  ping(): void {
    this.use('Store does not respond', () => {
      this.checkInPlace()
      this.get('SELECT count(*) FROM sqlite_schema')
    })
  }

  /**
   * Repeats a deletion of at most CHUNK_ROWS rows until none is left, so that other writers get the lock in between.
   */
  async deleteInChunks(what: string, deleteChunk: () => number): Promise<number> {
    for (let total = 0; ; ) {
      const deleted = await this.transaction(what, deleteChunk)
      total += deleted
      if (deleted < CHUNK_ROWS) return total
    }
  }

  protected prepare(database: DatabaseSync): void {
    database.exec(`PRAGMA synchronous = ${this.#synchronous}; PRAGMA cache_size = -65536`)
  }

  protected fault(message: string, options: { retriable: boolean; cause?: unknown }): Error {
    return new StoreError(message, options)
  }
}
