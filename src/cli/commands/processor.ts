// `pertoken processor`: consumes the two topics, stores, prices, serves HTTP.

import type { Command } from '../command.ts'
import type { OptionName } from '../config.ts'
import { runService } from '../service.ts'

/** Settings of whatever runs a processor. */
export const SERVICE_OPTIONS: readonly OptionName[] = [
  'KAFKA_BOOTSTRAP',
  'MONGO_URL',
  'DATA_DIR',
  'HOST',
  'PORT',
  'PRICE_PER_HOUR_USD',
  'PRICE_BOOK',
  'RAW_RETENTION_DAYS',
  'TOPIC_METRIC',
  'TOPIC_TOKEN',
  'TOPIC_DEAD',
  'KAFKA_GROUP',
  'DEFAULT_HOST',
  'WINDOW_SECONDS',
  'ALLOWED_LATENESS_SECONDS',
  'LOG_LEVEL',
]

export const processor: Command = {
  summary: 'Consumes the two topics, stores every event, prices it, serves HTTP',
  usage: '',
  flags: {},
  options: SERVICE_OPTIONS,
  run: (context) => runService(context, { host: context.config.HOST ?? '0.0.0.0', partitions: 12 }),
}
