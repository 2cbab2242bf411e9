// What keeps the ledger beside the processor, in the same process: the price book (from the settings at start, from the
// file whenever it changes, from other processes), the keeper, retention, and how far the group has read. It
// begins when the store is there, and ends with the signal; nothing of it can stop the processor.

import { setTimeout as sleep } from 'node:timers/promises'
import { problemText } from '../../domain/prices/price-book-check.ts'
import type { PriceBookDocument } from '../../domain/prices/price-book-schema.ts'
import type { EventLog } from '../../log/event-log.ts'
import { ReadProgress } from '../../processor/cost/read-progress.ts'
import { Keeper } from '../../processor/ledger/keeper.ts'
import { Retention } from '../../processor/ledger/retention.ts'
import { ensureDefault, setBook } from '../../processor/prices/book-versions.ts'
import { PriceBookVersions } from '../../processor/prices/price-book-versions.ts'
import { Retrier } from '../../processor/retry.ts'
import type { Logger } from '../../runtime/logger.ts'
import type { EventStore } from '../../store/event-store.ts'
import type { Config } from '../options.ts'
import { watchPriceBook } from './price-book-file.ts'

/** How often versions and revisions of other processes are looked for, milliseconds. */
const REFRESH_MS = 5000

export interface LedgerServiceOptions {
  config: Config
  /** Whether somebody set PRICE_PER_HOUR_USD; its built-in value must not overrule a default that was set before. */
  defaultIsGiven: boolean
  log: EventLog
  store: EventStore
  logger: Logger
}

export class LedgerService {
  readonly books: PriceBookVersions
  readonly progress: ReadProgress
  readonly keeper: Keeper
  readonly #options: LedgerServiceOptions
  readonly #retention: Retention
  readonly #retrier: Retrier

  constructor(options: LedgerServiceOptions) {
    const { config, log, store, logger } = options
    this.#options = options
    this.books = new PriceBookVersions(store.ledger)
    this.#retrier = new Retrier(logger, Date.now)
    this.#retention = new Retention(store, { days: config.RAW_RETENTION_DAYS, log: logger })
    this.keeper = new Keeper(store.ledger, this.books, { log: logger })
    this.progress = new ReadProgress(log, {
      group: config.KAFKA_GROUP,
      topics: [config.TOPIC_METRIC, config.TOPIC_TOKEN],
    })
  }

  /** Runs until the signal aborts; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      await this.#retrier.run('prepare the ledger', signal, () => this.#begin())
    } catch {
      return
    }
    const parts = [
      this.keeper.run(signal),
      this.#retention.run(signal),
      this.progress.run(signal),
      this.#keepFresh(signal),
    ]
    if (this.#options.config.PRICE_BOOK !== null) parts.push(this.#watch(this.#options.config.PRICE_BOOK, signal))
    await Promise.all(parts)
  }

  async #begin(): Promise<void> {
    const { config, store, defaultIsGiven } = this.#options
    await store.prepare()
    await this.books.refresh()
    // With a file the first version is made of it, so that its rules count from the beginning.
    const waitsForFile = config.PRICE_BOOK !== null
    if (!waitsForFile && (defaultIsGiven || this.books.versions.length === 0)) {
      await ensureDefault(store.ledger, config.PRICE_PER_HOUR_USD, Date.now())
    }
    await this.#refresh()
  }

  async #watch(path: string, signal: AbortSignal): Promise<void> {
    const { store, logger, config } = this.#options
    const onBook = async (book: PriceBookDocument, warnings: readonly Parameters<typeof problemText>[0][]) => {
      const hasDefault = book.default_usd_per_hour !== undefined || book.defaults !== undefined
      const next = hasDefault ? book : { ...book, default_usd_per_hour: config.PRICE_PER_HOUR_USD }
      const { version, isNew } = await setBook(store.ledger, next, { origin: 'file', nowMs: Date.now() })
      for (const warning of warnings) logger.warn({ path }, problemText(warning))
      if (isNew) logger.info({ path, version: version.version }, 'Price book of the file is in force')
      await this.#refresh()
    }
    const onProblems = async (problems: readonly Parameters<typeof problemText>[0][]) => {
      for (const problem of problems)
        logger.error({ path }, `Price book is refused, the old one stays in force: ${problemText(problem)}`)
      // A new store must have a price even when its first file is wrong.
      if (this.books.versions.length === 0) await ensureDefault(store.ledger, config.PRICE_PER_HOUR_USD, Date.now())
    }
    await watchPriceBook(path, onBook, onProblems, signal)
  }

  async #keepFresh(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(REFRESH_MS, undefined, { signal }).catch(() => {})
      if (signal.aborted) return
      await this.#retrier.run('read the price book', signal, () => this.#refresh()).catch(() => {})
    }
  }

  async #refresh(): Promise<void> {
    await this.books.refresh()
  }
}
