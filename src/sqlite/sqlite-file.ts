// A SQLite file; the embedded log and the embedded store have one each. Its connection, prepared statements and write
// transactions, and SQLite's errors as messages with a remedy. The connection is opened at first use, and again after a
// failed attempt. Several processes may use the file at once (WAL).

import { mkdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { setTimeout } from 'node:timers/promises'

/** How long a statement waits for another process's transaction. Short, because it blocks the event loop. */
const BUSY_TIMEOUT_MS = 100
/** How long a write is retried, without blocking, while other processes have the lock: SQLite's lock is not fair. */
const PATIENCE_MS = 10_000
const PAUSE_MS = 20
const OPEN_ATTEMPTS = 100
const OPEN_PAUSE_MS = 10

/** SQLite's primary result codes: https://sqlite.org/rescode.html */
const BUSY = 5
const LOCKED = 6
const CORRUPT = 11
const FULL = 13
const NOT_A_DATABASE = 26

export type Parameter = null | number | string | Uint8Array

export abstract class SqliteFile {
  readonly path: string
  readonly #name: string
  readonly #statements = new Map<string, StatementSync>()
  #database: DatabaseSync | null = null
  #inode = 0n
  #isClosed = false

  /** A missing file is created, with its directory; `name` is how error texts call it. */
  constructor(path: string, name: string) {
    this.path = path
    this.#name = name
  }

  /** Sets up a connection that was just opened; may throw an error of `fault`. */
  protected abstract prepare(database: DatabaseSync): void

  /** Makes the error type that callers of this file expect. */
  protected abstract fault(message: string, options: { retriable: boolean; cause?: unknown }): Error

  /**
   * Runs an action on the open file; SQLite's errors become `fault`s that begin with `what`, others stay as they are.
   */
  use<T>(what: string, action: () => T): T {
    if (this.#isClosed) throw this.fault(`${what}: the ${this.#name} is closed`, { retriable: false })
    try {
      this.#database ??= this.#open()
      return action()
    } catch (error) {
      throw this.#explained(what, error)
    }
  }

  /** Runs an action in one write transaction: when this returns, all of it is stored, and when it throws, nothing. */
  transact<T>(what: string, action: () => T): T {
    return this.use(what, () => {
      this.checkInPlace()
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

  /** The same, retried while other processes have the lock. */
  async transaction<T>(what: string, action: () => T): Promise<T> {
    const startedMs = performance.now()
    for (;;) {
      try {
        return this.transact(what, action)
      } catch (error) {
        if (!isLocked(error) || performance.now() - startedMs > PATIENCE_MS) throw error
      }
      await setTimeout(Math.random() * PAUSE_MS)
    }
  }

  /** A prepared statement, cached; only inside `use` or a transaction, like the methods below. */
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

  /** Runs a statement; returns how many rows it changed. */
  run(sql: string, ...parameters: Parameter[]): number {
    return Number(this.statement(sql).run(...parameters).changes)
  }

  exec(sql: string): void {
    this.#database!.exec(sql)
  }

  /** Throws when the file was removed or replaced: writes would go into a file without a name. */
  checkInPlace(): void {
    if (statSync(this.path, { bigint: true, throwIfNoEntry: false })?.ino === this.#inode) return
    const message = `The ${this.#name} is gone: "${this.path}" was removed or replaced, restart pertoken`
    throw this.fault(message, { retriable: false })
  }

  close(): void {
    this.#isClosed = true
    this.#statements.clear()
    this.#database?.close()
    this.#database = null
  }

  #open(): DatabaseSync {
    mkdirSync(dirname(this.path), { recursive: true })
    for (let attempt = 1; ; attempt += 1) {
      const database = new DatabaseSync(this.path, { timeout: BUSY_TIMEOUT_MS })
      try {
        database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000')
        this.prepare(database)
        this.#inode = statSync(this.path, { bigint: true }).ino
        return database
      } catch (error) {
        database.close()
        // Switching to WAL does not wait for a lock: two processes that create the file together collide here.
        if (attempt === OPEN_ATTEMPTS || primaryCode(error) !== BUSY) throw error
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, OPEN_PAUSE_MS)
      }
    }
  }

  #explained(what: string, error: unknown): unknown {
    const code = primaryCode(error)
    const fail = (state: string, retriable: boolean) => this.fault(`${what}: ${state}`, { retriable, cause: error })
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

/** Whether a fault of a file means that another process has the lock. */
export function isLocked(error: unknown): boolean {
  return error instanceof Error && primaryCode(error.cause) === BUSY
}

/** SQLite's primary result code of an error; null when it is not SQLite's. */
function primaryCode(error: unknown): number | null {
  const code = error instanceof Error && 'errcode' in error ? error.errcode : null
  return typeof code === 'number' ? code & 0xff : null
}
