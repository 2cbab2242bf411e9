// The only place that chooses adapters: Kafka or the embedded log, MongoDB or the embedded store, from the settings.
// Only the chosen ones are loaded.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import pino from 'pino'
import type { EventLog } from '../../log/event-log.ts'
import type { KafkaLogOptions } from '../../log/kafka/options.ts'
import type { Logger } from '../../runtime/logger.ts'
import type { EventStore } from '../../store/event-store.ts'
import type { MongoStoreOptions } from '../../store/mongo/connection.ts'
import type { Config } from '../options.ts'
import { kafkaTls } from './kafka-tls.ts'

/** The program's logger: JSON lines on standard error, so that results on standard output stay clean. */
export function makeLogger(config: Config): Logger {
  const options: pino.LoggerOptions = { level: config.LOG_LEVEL, base: null, timestamp: pino.stdTimeFunctions.isoTime }
  return pino(options, pino.destination(2))
}

const DROPS_LOGGED_MS = 60_000

/**
 * Partitions of topics that are created without a number: one on the embedded log, which one process reads as a whole;
 * on Kafka twelve, which 2, 3, 4, 6 or 12 processors share evenly.
 */
export function defaultPartitions(config: Config): number {
  return config.KAFKA_BOOTSTRAP === null ? 1 : 12
}

/** The log that the settings name; not yet connected. */
export async function openLog(config: Config, log: Logger): Promise<EventLog> {
  const options = kafkaOptions(config, log)
  if (options !== null) {
    const { KafkaLog } = await import('../../log/kafka/kafka-log.ts')
    return new KafkaLog(options)
  }
  const { SqliteLog } = await import('../../log/sqlite/sqlite-log.ts')
  return new SqliteLog({
    path: join(dataDir(config), 'log.sqlite'),
    // Dead letters have no reader here: a flood of wrong events would fill the log for good and block the right ones.
    dropOldest: { topics: [config.TOPIC_DEAD], onDropped: logDrops(log) },
  })
}

/** In a flood every append drops some: logged once a minute, with the total since the start. */
function logDrops(log: Logger): (topic: string, records: number) => void {
  let total = 0
  let lastLoggedMs = Number.NEGATIVE_INFINITY
  return (topic, records) => {
    total += records
    if (performance.now() - lastLoggedMs < DROPS_LOGGED_MS) return
    lastLoggedMs = performance.now()
    log.warn({ topic, total }, 'The embedded log is full: its oldest dead letters go, the store has a copy of each')
  }
}

/** Connection to Kafka according to the settings; null: none. Throws a UsageError for unusable certificate files. */
export function kafkaOptions(config: Config, log: Logger): KafkaLogOptions | null {
  if (config.KAFKA_BOOTSTRAP === null) return null
  const { KAFKA_SASL_MECHANISM: mechanism, KAFKA_SASL_USERNAME: username, KAFKA_SASL_PASSWORD: password } = config
  const tls = kafkaTls(config, log)
  if (mechanism === 'PLAIN' && tls === undefined) {
    log.warn({}, 'SASL PLAIN without TLS: everybody on the way to Kafka can read the password; set KAFKA_TLS_CA')
  }
  return {
    bootstrap: config.KAFKA_BOOTSTRAP,
    log,
    ...(mechanism === null ? {} : { sasl: { mechanism, username: username!, password: password! } }),
    ...(tls === undefined ? {} : { tls }),
  }
}

/** The store that the settings name; not yet connected. */
export async function openStore(config: Config, log: Logger): Promise<EventStore> {
  const options = mongoOptions(config, log)
  if (options !== null) {
    const { MongoStore } = await import('../../store/mongo/mongo-store.ts')
    return new MongoStore(options)
  }
  const { SqliteStore } = await import('../../store/sqlite/sqlite-store.ts')
  return new SqliteStore({ path: join(dataDir(config), 'store.sqlite') })
}

/** Connection to MongoDB according to the settings; null: none. */
export function mongoOptions(
  { MONGO_URL: url, MONGO_PASSWORD: password }: Config,
  log: Logger,
): MongoStoreOptions | null {
  return url === null ? null : { url, log, ...(password === null ? {} : { password }) }
}

function dataDir(config: Config): string {
  mkdirSync(config.DATA_DIR, { recursive: true })
  return config.DATA_DIR
}
