// What `up` and `processor` have in common: log, store, processor and HTTP in one process, until told to stop. HTTP comes
// first, so that /health can say what the processor is waiting for; it goes last, so that the drain can be watched.

import { buildServer } from '../../http/server.ts'
import type { EventLog } from '../../log/event-log.ts'
import { LivePrices } from '../../processor/ingest/live-prices.ts'
import { Processor } from '../../processor/ingest/processor.ts'
import { type StartFrom, StartUndecided } from '../../processor/ingest/start.ts'
import { GaveUp } from '../../processor/retry.ts'
import { type CommandContext, UsageError } from '../command.ts'
import type { Config } from '../options.ts'
import { version } from '../version.ts'
import { httpSecurity } from './http-security.ts'
import { LedgerService } from './ledger-service.ts'
import { makeLogger, openLog, openStore } from './wire.ts'

export interface ServiceOptions {
  host: string
  /** Partitions of topics that are made at the start. */
  partitions: number
  /** Where to begin what nobody has read yet. */
  from?: StartFrom | undefined
  /** Runs beside the processor and ends when the signal aborts: the demo. */
  beside?: (log: EventLog, signal: AbortSignal) => Promise<void>
}

/** Runs until the signal aborts; answers the exit code: 0 when drained, 1 when the drain was cut short. */
export async function runService(
  context: Pick<CommandContext, 'config' | 'signal' | 'say' | 'loaded'>,
  options: ServiceOptions,
): Promise<number> {
  const { config, signal, say } = context
  const logger = makeLogger(config)
  const security = httpSecurity(config, logger)
  const log = await openLog(config, logger)
  const store = await openStore(config, logger)
  const defaultIsGiven = context.loaded.sources.PRICE_PER_HOUR_USD !== 'default'
  const ledger = new LedgerService({ config, defaultIsGiven, log, store, logger })
  const { partitions, from } = options
  const live = new LivePrices(ledger.books, {
    windowSeconds: config.WINDOW_SECONDS,
    allowedLatenessSeconds: config.ALLOWED_LATENESS_SECONDS,
    defaultHost: config.DEFAULT_HOST,
    defaultUsdPerHour: config.PRICE_PER_HOUR_USD,
  })
  const processor = new Processor(log, store, { ...processorOptions(config), partitions, from, live, log: logger })
  const server = await buildServer({
    processor,
    store,
    log,
    topics: { metric: config.TOPIC_METRIC, token: config.TOPIC_TOKEN },
    version: version(),
    logger,
    progress: ledger.progress,
    keeper: () => ledger.keeper.status(),
    allowedLatenessMs: config.ALLOWED_LATENESS_SECONDS * 1000,
    ...security,
    now: Date.now,
  })
  const failed = new AbortController()
  const running = AbortSignal.any([signal, failed.signal])
  try {
    await listen(server, options.host, config.PORT)
    const { port } = server.server.address() as { port: number }
    const shownHost = ['0.0.0.0', '::', '127.0.0.1'].includes(options.host) ? 'localhost' : options.host
    const scheme = security.certificate === undefined ? 'http' : 'https'
    say(
      `pertoken ${version()}: look at ${scheme}://${shownHost}:${port} (log: ${log.description}; store: ${store.description})\n`,
    )
    const beside = options.beside?.(log, running) ?? Promise.resolve()
    await Promise.all([processor.run(running), beside, ledger.run(running)])
    return 0
  } catch (error) {
    if (error instanceof StartUndecided) throw new UsageError(error.message)
    if (!(error instanceof GaveUp)) throw error
    logger.error({ error: error.message }, 'Stopped before all was stored; it comes again at the next start')
    return 1
  } finally {
    failed.abort()
    await server.close()
    await Promise.allSettled([log.close(), store.close()])
  }
}

async function listen(server: Awaited<ReturnType<typeof buildServer>>, host: string, port: number): Promise<void> {
  try {
    await server.listen({ host, port })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    throw new Error(`Cannot listen on ${host}:${port}: something else does; set PORT (or --port) to a free one`)
  }
}

function processorOptions(config: Config) {
  return {
    group: config.KAFKA_GROUP,
    topicMetric: config.TOPIC_METRIC,
    topicToken: config.TOPIC_TOKEN,
    topicDead: config.TOPIC_DEAD,
    retentionDays: config.RAW_RETENTION_DAYS,
  }
}
