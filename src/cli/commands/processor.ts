// `pertoken processor`: consumes the two topics, stores and prices their events, serves HTTP; with --publish-gpu it
// samples the GPUs of its own host as well.

import type { StartFrom } from '../../processor/ingest/start.ts'
import { type Command, type CommandContext, textFlag, UsageError } from '../command.ts'
import type { OptionName } from '../options.ts'
import { parseInstant } from '../parse-instant.ts'
import { GPU_FLAGS, sampleSettings } from '../wiring/gpu-sources.ts'

/** Settings of whatever runs a processor. */
export const SERVICE_OPTIONS: readonly OptionName[] = [
  'KAFKA_BOOTSTRAP',
  'MONGO_URL',
  'DATA_DIR',
  'HOST',
  'PORT',
  'BASE_PATH',
  'API_TOKENS_FILE',
  'HTTP_RATE_REQUESTS',
  'HTTP_RATE_EVENTS',
  'HTTP_TLS_CERT',
  'HTTP_TLS_KEY',
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
  usage: '[--from WHERE] [--publish-gpu]',
  flags: {
    from: {
      value: 'WHERE',
      help: 'Where to begin what nobody has read yet: earliest, latest or a time; asked for once beside older documents',
    },
    'publish-gpu': {
      help: 'Publishes samples of this host’s GPUs, measured ones only; see AGENT_* for pace and model',
    },
    ...GPU_FLAGS,
  },
  options: SERVICE_OPTIONS,
  async run(context) {
    const { config, flags } = context
    const service = { host: config.HOST ?? '0.0.0.0', from: startFrom(flags) }
    if (flags['publish-gpu'] === true) {
      if (config.GPU_METRICS_SOURCE === 'seed') {
        throw new UsageError('--publish-gpu never publishes the seed’s figures: set GPU_METRICS_SOURCE to auto')
      }
      sampleSettings(config) // A wrong setting ends the command here, before anything is started.
    }
    const { runService } = await import('../wiring/service.ts')
    if (flags['publish-gpu'] !== true) return runService(context, service)
    const { publishOwnGpus } = await import('../wiring/publish-gpu.ts')
    return runService(context, { ...service, beside: (log, signal) => publishOwnGpus(config, log, signal) })
  },
}

function startFrom(flags: CommandContext['flags']): StartFrom | undefined {
  const text = textFlag(flags, 'from')
  if (text === undefined || text === 'earliest' || text === 'latest') return text
  const ms = parseInstant(text.trim(), Date.now())
  if (ms >= 0) return ms
  throw new UsageError(
    `Flag --from is "${text}": expected earliest, latest, an ISO 8601 time like 2026-01-31T12:00:00Z, or so long ago: 90m, 24h, 7d`,
  )
}
