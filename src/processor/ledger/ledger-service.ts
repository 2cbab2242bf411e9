// Keeps the ledger beside the processor, in the same process: the price book (from the settings at the start, from its
// file whenever that changes, from other processes), the keeper and retention. It begins when the store responds and
// ends with the signal; no fault of it can stop the processor.

import { setTimeout as sleep } from 'node:timers/promises'
import { problemText } from '../../domain/prices/price-book-check.ts'
import type { PriceBookDocument } from '../../domain/prices/price-book-schema.ts'
import type { Logger } from '../../runtime/logger.ts'
import type { EventStore } from '../../store/event-store.ts'
import { identityNotes, type Note, readIdentity } from '../identity-notes.ts'
import { ensureDefault, type PriceBookVersions, setBook } from '../prices/price-book-versions.ts'
import { readBookFit } from '../prices/seen-gpus.ts'
import { Retrier } from '../retry.ts'
import { Keeper } from './keeper.ts'
import { Retention } from './retention.ts'

/** How often versions and revisions of other processes are read, milliseconds. */
const REFRESH_MS = 5000
/** How often contradictions are looked for, milliseconds; where a look takes long, less often. */
const NOTES_MS = 60_000
const NOTES_PAUSE = 50

type Problems = readonly Parameters<typeof problemText>[0][]

export interface LedgerServiceOptions {
  /** Price of a GPU that neither rule nor sample prices, USD per hour. */
  defaultUsdPerHour: number
  /** Whether that was set; a built-in value must not overrule a default that was set before. */
  defaultIsGiven: boolean
  /** 0: raw events are kept for ever. */
  retentionDays: number
  /** The file of the price book; null: the book in the store. `watch` runs until the signal aborts. */
  bookFile: {
    path: string
    watch(
      onBook: (book: PriceBookDocument, warnings: Problems) => Promise<void>,
      onProblems: (problems: Problems) => Promise<void>,
      signal: AbortSignal,
    ): Promise<void>
  } | null
  logger: Logger
}

export class LedgerService {
  readonly keeper: Keeper
  readonly #store: EventStore
  readonly #books: PriceBookVersions
  readonly #options: LedgerServiceOptions
  readonly #retention: Retention
  readonly #retrier: Retrier
  /** What contradicts in the newest events, for /health; null before the first look. */
  #notes: readonly Note[] | null = null

  constructor(store: EventStore, books: PriceBookVersions, options: LedgerServiceOptions) {
    const { logger, retentionDays } = options
    this.#store = store
    this.#books = books
    this.#options = options
    this.#retrier = new Retrier(logger, Date.now)
    this.#retention = new Retention(store, { days: retentionDays, log: logger })
    this.keeper = new Keeper(store.ledger, books, { log: logger })
  }

  /** What contradicts in the newest events; empty before the first look. */
  get notes(): readonly Note[] {
    return this.#notes ?? []
  }

  get hasLooked(): boolean {
    return this.#notes !== null
  }

  /** Runs until the signal aborts; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      await this.#retrier.run('prepare the ledger', signal, () => this.#begin())
    } catch {
      return
    }
    await Promise.all([
      this.keeper.run(signal),
      this.#retention.run(signal),
      this.#keepFresh(signal),
      this.#watchFile(signal),
      this.#watchIdentity(signal),
    ])
  }

  async #begin(): Promise<void> {
    await this.#store.prepare()
    await this.#books.refresh()
    // With a file the first version is made from it, so that its rules are effective from the beginning.
    const { bookFile, defaultIsGiven } = this.#options
    if (bookFile !== null || (this.#books.versions.length > 0 && !defaultIsGiven)) return
    await this.#ensureDefault()
    await this.#books.refresh()
  }

  async #watchFile(signal: AbortSignal): Promise<void> {
    const { logger, bookFile, defaultUsdPerHour } = this.#options
    if (bookFile === null) return
    const { path } = bookFile
    const onBook = async (book: PriceBookDocument, warnings: Problems) => {
      const hasDefault = book.default_usd_per_hour !== undefined || book.defaults !== undefined
      const next = hasDefault ? book : { ...book, default_usd_per_hour: defaultUsdPerHour }
      const { version, isNew } = await setBook(this.#store.ledger, next, { origin: 'file', nowMs: Date.now() })
      for (const warning of warnings) logger.warn({ path }, problemText(warning))
      if (isNew) logger.info({ path, version: version.version }, 'Price book of the file is in force')
      await this.#books.refresh()
      if (!isNew) return
      const fit = await readBookFit(this.#store, this.#books.bookByVersion(version.version), Date.now())
      for (const { message } of fit.unmatched_rules) logger.warn({ path }, message)
    }
    const onProblems = async (problems: Problems) => {
      for (const problem of problems)
        logger.error({ path }, `Price book is refused, the old one stays in force: ${problemText(problem)}`)
      // A new store must have a price even when its first file is wrong.
      if (this.#books.versions.length === 0) await this.#ensureDefault()
    }
    await bookFile.watch(onBook, onProblems, signal)
  }

  async #ensureDefault(): Promise<void> {
    await ensureDefault(this.#store.ledger, this.#options.defaultUsdPerHour, Date.now())
  }

  async #watchIdentity(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const startedMs = performance.now()
      const look = () => readIdentity(this.#store, (host) => this.#books.hosts.nameOf(host))
      const found = await this.#retrier.run('look for contradictions', signal, look).catch(() => null)
      if (found !== null) this.#notes = identityNotes(found)
      const pauseMs = Math.max(NOTES_MS, NOTES_PAUSE * (performance.now() - startedMs))
      await sleep(pauseMs, undefined, { signal }).catch(() => {})
    }
  }

  async #keepFresh(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(REFRESH_MS, undefined, { signal }).catch(() => {})
      if (signal.aborted) return
      await this.#retrier.run('read the price book', signal, () => this.#books.refresh()).catch(() => {})
    }
  }
}
