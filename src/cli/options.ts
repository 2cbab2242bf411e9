// Every setting of the program in one table: environment name, kind, default, bounds, unit, help. config.ts reads and
// checks them. The table is one list, longer than a file usually is, so that a setting is described in one place.

import { hostname } from 'node:os'

type Kind = 'text' | 'integer' | 'number' | 'choice' | 'url' | 'file'

export interface Option {
  kind: Kind
  default: string | number | null
  help: string
  unit?: string
  min?: number
  max?: number
  choices?: readonly string[]
  /** A word that is allowed in place of a path. */
  orWord?: string
  /** Shown masked, and readable from a file named by NAME_FILE. */
  secret?: boolean
}

/** The table; keys are the environment names. */
export const OPTIONS = {
  KAFKA_BOOTSTRAP: {
    kind: 'text',
    default: null,
    help: 'Kafka bootstrap servers, host:port[,host:port]; unset: embedded log',
  },
  MONGO_URL: {
    kind: 'url',
    default: null,
    secret: true,
    help: 'MongoDB URL, database from its path (default ca0), TLS by its own options (tls=true&tlsCAFile=…); unset: embedded store',
  },
  MONGO_PASSWORD: {
    kind: 'text',
    default: null,
    secret: true,
    help: 'Password of the user that MONGO_URL names (mongodb://USER@host/…), so that the URL need not hold it',
  },
  DATA_DIR: { kind: 'text', default: './data', help: 'Folder of the embedded log and store' },
  HOST: { kind: 'text', default: null, help: 'Bind address; 0.0.0.0 for processor, 127.0.0.1 for up' },
  API_TOKENS_FILE: {
    kind: 'text',
    default: null,
    help: 'File of the API tokens that HTTP asks for, see pertoken tokens; unset: reads are open, writes from loopback only',
  },
  HTTP_RATE_REQUESTS: {
    kind: 'integer',
    default: 100,
    min: 0,
    max: 1_000_000,
    unit: 'requests/s',
    help: 'Limit of each API token, and of each address without one; 0: none; in force with API_TOKENS_FILE',
  },
  HTTP_RATE_EVENTS: {
    kind: 'integer',
    default: 20_000,
    min: 0,
    max: 10_000_000,
    unit: 'events/s',
    help: 'Limit of what each API token may post; 0: none; in force with API_TOKENS_FILE',
  },
  HTTP_TLS_CERT: { kind: 'file', default: null, help: 'PEM file of the server’s certificate chain; set it for HTTPS' },
  HTTP_TLS_KEY: { kind: 'file', default: null, help: 'PEM file of the key of HTTP_TLS_CERT' },
  PORT: { kind: 'integer', default: 8080, min: 0, max: 65_535, help: 'HTTP port; 0: any free one' },
  BASE_PATH: {
    kind: 'text',
    default: null,
    help: 'Path at which a reverse proxy shows HTTP, like /pertoken; served with and without it; unset: none',
  },
  PRICE_PER_HOUR_USD: {
    kind: 'number',
    default: 0.85,
    min: 0,
    max: 1_000_000,
    unit: 'USD/h',
    help: 'Price of a GPU that no rule and no sample prices',
  },
  PRICE_BOOK: {
    kind: 'text',
    default: null,
    help: 'Price book, a YAML or JSON file; read at start and when it changes; unset: the one in the store',
  },
  RAW_RETENTION_DAYS: {
    kind: 'integer',
    default: 0,
    min: 0,
    max: 36_500,
    unit: 'days',
    help: 'How long raw events (in whole days of event time) and dead letters are kept; 0: all',
  },
  TOPIC_METRIC: { kind: 'text', default: 'gpu.metrics.v1', help: 'Topic of GPU samples' },
  TOPIC_TOKEN: { kind: 'text', default: 'token.usage.v1', help: 'Topic of token usage' },
  TOPIC_DEAD: { kind: 'text', default: 'dead.letter.v1', help: 'Topic of refused records' },
  KAFKA_GROUP: { kind: 'text', default: 'processor', help: 'Consumer group of the processor' },
  KAFKA_SASL_MECHANISM: {
    kind: 'choice',
    default: null,
    choices: ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'],
    help: 'SASL mechanism; PLAIN shows the password to everybody on the way unless KAFKA_TLS_CA is set; unset: no login',
  },
  KAFKA_SASL_USERNAME: { kind: 'text', default: null, help: 'SASL user' },
  KAFKA_SASL_PASSWORD: { kind: 'text', default: null, secret: true, help: 'SASL password' },
  KAFKA_TLS_CA: {
    kind: 'file',
    orWord: 'system',
    default: null,
    help: 'Set it to speak TLS: PEM file of the authority that signs the brokers’ certificates, or "system" for those of this machine',
  },
  KAFKA_TLS_CERT: {
    kind: 'file',
    default: null,
    help: 'PEM file of the client certificate, for brokers that want one; alone it means TLS with KAFKA_TLS_CA=system',
  },
  KAFKA_TLS_KEY: { kind: 'file', default: null, help: 'PEM file of the client key, without a passphrase' },
  GPU_METRICS_SOURCE: {
    kind: 'choice',
    default: 'auto',
    choices: ['auto', 'nvml', 'nvidia-smi', 'dcgm', 'seed'],
    help: 'Where GPU figures come from; auto: DCGM_URL where set, else nvml, then nvidia-smi, then dcgm, then the seed file where one is named',
  },
  NVML_LIBRARY: { kind: 'text', default: 'libnvidia-ml.so.1', help: 'NVML library of the NVIDIA driver, name or path' },
  NVIDIA_SMI: { kind: 'text', default: 'nvidia-smi', help: 'The nvidia-smi command, name or path' },
  DCGM_URL: {
    kind: 'text',
    default: null,
    secret: true,
    help: 'Page of a DCGM exporter, http[s]://[NAME:PASSWORD@]host[:port][/metrics]; unset: port 9400 of this host is tried',
  },
  AGENT_TO: {
    kind: 'text',
    default: null,
    help: 'Address of the pertoken that agent sends to, https://host[:port][/path]; unset: Kafka or the embedded log',
  },
  AGENT_CA: {
    kind: 'file',
    default: null,
    help: 'PEM file of the authority to trust for AGENT_TO; unset: the system’s',
  },
  AGENT_INTERVAL_SEC: {
    kind: 'number',
    default: 1,
    min: 0.05,
    max: 60,
    unit: 's',
    help: 'Time between two samples of a GPU',
  },
  AGENT_MODEL: { kind: 'text', default: null, help: 'Model that the GPUs hold: NAME, or 0=NAME,1=NAME by GPU index' },
  AGENT_PRICE: {
    kind: 'number',
    default: null,
    min: 0,
    max: 1_000_000,
    unit: 'USD/h',
    help: 'Price of each GPU of this host, put into its samples; unset: the price book decides',
  },
  AGENT_ENGINE: {
    kind: 'text',
    default: null,
    secret: true,
    help: 'Engines whose tokens agent counts: auto, off, or their pages, http[s]://[NAME:PASSWORD@]host:port[/metrics][,…]; unset: auto, those that are found on this host',
  },
  AGENT_GPUS: {
    kind: 'text',
    default: null,
    help: 'GPUs of the engines that AGENT_ENGINE names, or whose GPUs cannot be found: indexes, as in 0,1',
  },
  AGENT_ENGINE_INTERVAL_SEC: {
    kind: 'number',
    default: 5,
    min: 0.2,
    max: 60,
    unit: 's',
    help: 'Time between two looks at an engine: an engine that dies loses at most what it did in it',
  },
  AGENT_PORT: { kind: 'integer', default: 8419, min: 0, max: 65_535, help: 'Loopback port of agent; 0: any free one' },
  AGENT_SPOOL_MB: {
    kind: 'integer',
    default: 256,
    min: 1,
    max: 1_048_576,
    unit: 'MiB',
    help: 'Bound of agent’s spool; when full the oldest GPU samples are dropped',
  },
  API_TOKEN: { kind: 'text', default: null, secret: true, help: 'Token for another pertoken: agent --to, --url' },
  GPU_SEED: { kind: 'text', default: null, help: 'Seed file of produce: JSON array of GPUs' },
  GPU_SEED_LOCAL: { kind: 'text', default: null, help: 'Seed file that wins over GPU_SEED where it exists' },
  BATCH: {
    kind: 'integer',
    default: 20,
    min: 0,
    max: 1_000_000_000,
    unit: 'pairs',
    help: 'Pairs that produce publishes; 0: until stopped',
  },
  SLEEP_SEC: { kind: 'number', default: 0.5, min: 0, max: 86_400, unit: 's', help: 'Pause between pairs of produce' },
  HOSTNAME: { kind: 'text', default: hostname(), help: 'Host in the events that this machine publishes' },
  DEFAULT_HOST: { kind: 'text', default: null, help: 'Host of events that name none; unset: inferred where possible' },
  WINDOW_SECONDS: { kind: 'integer', default: 30, min: 1, max: 3600, unit: 's', help: 'Length of the live window' },
  ALLOWED_LATENESS_SECONDS: {
    kind: 'integer',
    default: 10,
    min: 0,
    max: 3600,
    unit: 's',
    help: 'How late an event may be and still get a live price',
  },
  LOG_LEVEL: {
    kind: 'choice',
    default: 'info',
    choices: ['debug', 'info', 'warn', 'error', 'silent'],
    help: 'Least level that is logged',
  },
} as const satisfies Record<string, Option>

export type OptionName = keyof typeof OPTIONS
type ValueOf<O> = O extends { choices: readonly (infer C)[]; default: infer D }
  ? D extends null
    ? C | null
    : C
  : O extends { kind: 'integer' | 'number'; default: infer D }
    ? D extends null
      ? number | null
      : number
    : O extends { default: string }
      ? string
      : string | null
/** The effective settings by environment name. */
export type Config = { readonly [K in OptionName]: ValueOf<(typeof OPTIONS)[K]> }
