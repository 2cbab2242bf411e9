// What `up` and `processor` have in common: log, store, processor, ledger and HTTP in one process, until it is stopped.
// HTTP starts first, so that /health shows what the processor waits for; it closes last, so that the drain is visible.

import { buildServer } from '../../http/server.ts'
import type { EventLog } from '../../log/event-log.ts'
import { ReadProgress } from '../../processor/cost/read-progress.ts'
import { LivePrices } from '../../processor/ingest/live-prices.ts'
import { Processor } from '../../processor/ingest/processor.ts'
import { type StartFrom, StartUndecided } from '../../processor/ingest/start.ts'
import { LedgerService, type LedgerServiceOptions } from '../../processor/ledger/ledger-service.ts'
import { PriceBookVersions } from '../../processor/prices/price-book-versions.ts'
import { GaveUp } from '../../processor/retry.ts'
import { type CommandContext, UsageError } from '../command.ts'
import type { Config } from '../options.ts'
import { isEveryAddress, listenFault, ownUrl } from '../own-address.ts'
import { version } from '../version.ts'
import { httpSecurity } from './http-security.ts'
import { defaultPartitions, makeLogger, openLog, openStore } from './wire.ts'

type ServiceContext = Pick<CommandContext, 'config' | 'signal' | 'say' | 'loaded'>

interface ServiceOptions {
  host: string
  /** Where to begin in partitions without a stored position. */
  from?: StartFrom | undefined
  /** Runs beside the processor and ends when the signal aborts: the demo. */
  beside?: (log: EventLog, signal: AbortSignal) => Promise<void>
}

/** Runs until the signal aborts; returns the exit code: 0 when drained, 1 when the drain was cut short. */
export async function runService(context: ServiceContext, options: ServiceOptions): Promise<number> {
  const { config, signal, say } = context
  const logger = makeLogger(config)
  const security = httpSecurity(config, logger)
  const log = await openLog(config, logger)
  const store = await openStore(config, logger)
  const topics = { metric: config.TOPIC_METRIC, token: config.TOPIC_TOKEN }
  const books = new PriceBookVersions(store.ledger)
  const live = new LivePrices(books, liveOptions(config))
  const ledger = new LedgerService(store, books, { ...ledgerOptions(context), logger })
  const progress = new ReadProgress(log, {
    group: config.KAFKA_GROUP,
    topics: Object.values(topics),
    isSwept: (fromMs, toMs) => ledger.keeper.isSwept(fromMs, toMs),
  })
  const processor = new Processor(log, store, { ...processorOptions(config), from: options.from, live, log: logger })
  const server = await buildServer({
    processor,
    store,
    log,
    topics,
    version: version(),
    logger,
    progress,
    keeper: () => ledger.keeper.status(),
    notes: () => ledger.notes,
    allowedLatenessMs: config.ALLOWED_LATENESS_SECONDS * 1000,
    basePath: config.BASE_PATH ?? '',
    ...security,
    now: Date.now,
  })
  const failed = new AbortController()
  const running = AbortSignal.any([signal, failed.signal])
  try {
    const { host } = options
    await server.listen({ host, port: config.PORT }).catch((error: Error) => {
      throw listenFault(error, host, config.PORT, context.loaded.sources.HOST)
    })
    const { port } = server.server.address() as { port: number }
    const url = ownUrl(isEveryAddress(host) || host === '127.0.0.1' ? 'localhost' : host, port, config)
    say(`pertoken ${version()}: look at ${url} (log: ${log.description}; store: ${store.description})\n`)
    const beside = options.beside?.(log, running) ?? Promise.resolve()
    await Promise.all([processor.run(running), beside, ledger.run(running), progress.run(running)])
    return 0
  } catch (error) {
    if (error instanceof StartUndecided) throw new UsageError(error.message)
    if (!(error instanceof GaveUp)) throw error
    logger.error({ error: error.message }, 'Stopped before all was stored; the rest is read again at the next start')
    return 1
  } finally {
    failed.abort()
    await server.close()
    await Promise.allSettled([log.close(), store.close()])
  }
}

function liveOptions(config: Config) {
  return {
    windowSeconds: config.WINDOW_SECONDS,
    allowedLatenessSeconds: config.ALLOWED_LATENESS_SECONDS,
    defaultHost: config.DEFAULT_HOST,
    defaultUsdPerHour: config.PRICE_PER_HOUR_USD,
  }
}

function ledgerOptions({ config, loaded }: ServiceContext): Omit<LedgerServiceOptions, 'logger'> {
  return {
    defaultUsdPerHour: config.PRICE_PER_HOUR_USD,
    defaultIsGiven: loaded.sources.PRICE_PER_HOUR_USD !== 'default',
    retentionDays: config.RAW_RETENTION_DAYS,
    bookFile: config.PRICE_BOOK === null ? null : bookFile(config.PRICE_BOOK),
  }
}

/** Loads the YAML parser, a twentieth of the modules of a start, only where there is a file. */
function bookFile(path: string): LedgerServiceOptions['bookFile'] {
  return {
    path,
    watch: async (onBook, onProblems, signal) => {
      const { watchPriceBook } = await import('./price-book-file.ts')
      await watchPriceBook(path, onBook, onProblems, signal)
    },
  }
}

function processorOptions(config: Config) {
  return {
    partitions: defaultPartitions(config),
    group: config.KAFKA_GROUP,
    topicMetric: config.TOPIC_METRIC,
    topicToken: config.TOPIC_TOKEN,
    topicDead: config.TOPIC_DEAD,
    retentionDays: config.RAW_RETENTION_DAYS,
  }
}
