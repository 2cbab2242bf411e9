// The only place that chooses adapters: Kafka or the embedded log, MongoDB or the embedded store, from the settings. Only the
// chosen ones are loaded.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import pino from 'pino'
import type { EventLog } from '../log/event-log.ts'
import type { Logger } from '../processor/logger.ts'
import type { EventStore } from '../store/event-store.ts'
import type { Config } from './config.ts'

/** The program's logger: JSON lines on standard error, so that results on standard output stay clean. */
export function makeLogger(config: Config): Logger {
  const options: pino.LoggerOptions = { level: config.LOG_LEVEL, base: null, timestamp: pino.stdTimeFunctions.isoTime }
  return pino(options, pino.destination(2))
}

/** The log that the settings name; not yet connected. */
export async function openLog(config: Config, log: Logger): Promise<EventLog> {
  if (config.KAFKA_BOOTSTRAP === null) {
    const { SqliteLog } = await import('../log/sqlite-log.ts')
    return new SqliteLog({ path: join(dataDir(config), 'log.sqlite') })
  }
  const { KafkaLog } = await import('../log/kafka/kafka-log.ts')
  return new KafkaLog({
    bootstrap: config.KAFKA_BOOTSTRAP,
    log,
    ...(config.KAFKA_SASL_MECHANISM === null
      ? {}
      : {
          sasl: {
            mechanism: config.KAFKA_SASL_MECHANISM,
            username: config.KAFKA_SASL_USERNAME!,
            password: config.KAFKA_SASL_PASSWORD!,
          },
        }),
    ...tlsOf(config),
  })
}

/** The store that the settings name; not yet connected. */
export async function openStore(config: Config, log: Logger): Promise<EventStore> {
  if (config.MONGO_URL === null) {
    const { SqliteStore } = await import('../store/sqlite/sqlite-store.ts')
    return new SqliteStore({ path: join(dataDir(config), 'store.sqlite') })
  }
  const { MongoStore } = await import('../store/mongo/mongo-store.ts')
  return new MongoStore({ url: config.MONGO_URL, log })
}

function dataDir(config: Config): string {
  mkdirSync(config.DATA_DIR, { recursive: true })
  return config.DATA_DIR
}

function tlsOf(config: Config): object {
  const { KAFKA_TLS_CA: ca, KAFKA_TLS_CERT: cert, KAFKA_TLS_KEY: key } = config
  if (ca === null && cert === null) return {}
  return { tls: { ...(ca === null ? {} : { ca }), ...(cert === null ? {} : { cert, key: key! }) } }
}
