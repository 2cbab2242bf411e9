// The file of the embedded store: one connection that all parts of the store share (events here, the ledger beside it),
// its transactions, and how SQLite's faults become a StoreError. The connection is opened at first use, and again after
// an opening that failed. WAL with synchronous=FULL: what a transaction wrote is on the disk when it returns.

import { mkdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { setTimeout } from 'node:timers/promises'
import { StoreError } from '../event-store.ts'

/** How long a statement waits for another process's transaction. It blocks the event loop, so it is short. */
const BUSY_TIMEOUT_MS = 100
/** How long a write is tried again, without blocking, while other processes have the lock: it is not given in turn. */
const PATIENCE_MS = 10_000
const PAUSE_MS = 20
const OPEN_ATTEMPTS = 100
const OPEN_PAUSE_MS = 10

/** SQLite's primary result codes. */
const BUSY = 5
const LOCKED = 6
const CORRUPT = 11
const FULL = 13
const NOT_A_DATABASE = 26

export interface StoreFileOptions {
  /** The file; it is made when it is missing, its directory too. */
  path: string
  /** NORMAL saves the fsyncs, and a power cut may lose the last writes: for throw-away stores. */
  synchronous?: 'FULL' | 'NORMAL'
}

export type Parameter = null | number | string | Uint8Array

export class StoreFile {
  readonly path: string
  readonly #synchronous: 'FULL' | 'NORMAL'
  readonly #statements = new Map<string, StatementSync>()
  #database: DatabaseSync | null = null
  #inode = 0n
  #isClosed = false

  constructor({ path, synchronous = 'FULL' }: StoreFileOptions) {
    this.path = path
    this.#synchronous = synchronous
  }

  /** Runs an action on the open file; its faults are StoreErrors that begin with `what`. */
  use<T>(what: string, action: () => T): T {
    if (this.#isClosed) throw new StoreError(`${what}: the store is closed`, { retriable: false })
    try {
      this.#database ??= this.#open()
      return action()
    } catch (error) {
      throw this.#storeError(what, error)
    }
  }

  /**
   * Runs an action in one write transaction: all of it, on the disk when this resolves, or nothing. The action is tried
   * again while other processes have the lock.
   */
  async transaction<T>(what: string, action: () => T): Promise<T> {
    const startedMs = performance.now()
    for (;;) {
      try {
        return this.#transact(what, action)
      } catch (error) {
        const isLocked = error instanceof StoreError && primaryCode(error.cause) === BUSY
        if (!isLocked || performance.now() - startedMs > PATIENCE_MS) throw error
      }
      await setTimeout(Math.random() * PAUSE_MS)
    }
  }

  /** A prepared statement, kept; only inside `use` or `transaction`, as all below. */
  statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql)
    if (statement === undefined) {
      statement = this.#database!.prepare(sql)
      this.#statements.set(sql, statement)
    }
    return statement
  }

  all<Row>(sql: string, ...parameters: Parameter[]): Row[] {
    return this.statement(sql).all(...parameters) as Row[]
  }

  get<Row>(sql: string, ...parameters: Parameter[]): Row | undefined {
    return this.statement(sql).get(...parameters) as Row | undefined
  }

  /** Runs a statement; answers how many rows it changed. */
  run(sql: string, ...parameters: Parameter[]): number {
    return Number(this.statement(sql).run(...parameters).changes)
  }

  exec(sql: string): void {
    this.#database!.exec(sql)
  }

  ping(): void {
    this.use('Store does not answer', () => {
      this.#checkInPlace()
      this.get('SELECT count(*) FROM sqlite_schema')
    })
  }

  close(): void {
    this.#isClosed = true
    this.#statements.clear()
    this.#database?.close()
    this.#database = null
  }

  #transact<T>(what: string, action: () => T): T {
    return this.use(what, () => {
      this.#checkInPlace()
      const database = this.#database!
      database.exec('BEGIN IMMEDIATE')
      try {
        const result = action()
        database.exec('COMMIT')
        return result
      } catch (error) {
        if (database.isTransaction) database.exec('ROLLBACK')
        throw error
      }
    })
  }

  /** Throws when the file was removed or replaced: writes would go into a file that nobody can find. */
  #checkInPlace(): void {
    if (statSync(this.path, { bigint: true, throwIfNoEntry: false })?.ino === this.#inode) return
    throw new StoreError(`Store is gone: "${this.path}" was removed or replaced, restart pertoken`, {
      retriable: false,
    })
  }

  #open(): DatabaseSync {
    mkdirSync(dirname(this.path), { recursive: true })
    for (let attempt = 1; ; attempt += 1) {
      const database = new DatabaseSync(this.path, { timeout: BUSY_TIMEOUT_MS })
      try {
        database.exec(`
          PRAGMA journal_mode = WAL;
          PRAGMA synchronous = ${this.#synchronous};
          PRAGMA cache_size = -65536;
          PRAGMA wal_autocheckpoint = 4000;
        `)
        this.#inode = statSync(this.path, { bigint: true }).ino
        return database
      } catch (error) {
        database.close()
        // Turning WAL on does not wait for a lock: two processes that make the file together meet here.
        if (attempt === OPEN_ATTEMPTS || primaryCode(error) !== BUSY) throw error
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, OPEN_PAUSE_MS)
      }
    }
  }

  #storeError(what: string, error: unknown): unknown {
    if (error instanceof StoreError) return error
    const code = primaryCode(error)
    const fail = (state: string, retriable: boolean) => new StoreError(`${what}: ${state}`, { retriable, cause: error })
    if (code === FULL) return fail(`no space left on the disk of "${this.path}", free some`, true)
    if (code === BUSY || code === LOCKED) return fail(`"${this.path}" is locked by another process`, true)
    if (code === CORRUPT || code === NOT_A_DATABASE) {
      return fail(
        `"${this.path}" is damaged, stop pertoken, save the file, and restore a backup or move it away and start again`,
        false,
      )
    }
    const message = error instanceof Error ? error.message : String(error)
    if (code !== null) return fail(`${message} ("${this.path}"), check the disk and permissions`, true)
    // mkdir and stat fail for the same reasons as opening does.
    if (error instanceof Error && 'syscall' in error) return fail(`${message}, check the disk`, true)
    return error
  }
}

/** SQLite's primary result code of an error; null when it is not SQLite's. */
function primaryCode(error: unknown): number | null {
  const code = error instanceof Error && 'errcode' in error ? error.errcode : null
  return typeof code === 'number' ? code & 0xff : null
}
