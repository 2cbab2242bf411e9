// Every setting of the program in one table: environment name, kind, default, bounds, unit, help. Flags win over the
// environment, the environment over `.env`. All wrong values are reported at once. Secrets have `_FILE` variants and are
// masked wherever the configuration is shown. Nothing else in the program reads the environment.

import { existsSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { parseEnv } from 'node:util'

type Kind = 'text' | 'integer' | 'number' | 'choice' | 'url' | 'file'

interface Option {
  kind: Kind
  default: string | number | null
  help: string
  unit?: string
  min?: number
  max?: number
  choices?: readonly string[]
  /** A word that a file's place may be taken by. */
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
    help: 'How long raw events are kept, in whole days of event time; 0: all',
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
    choices: ['auto', 'nvml', 'nvidia-smi', 'seed'],
    help: 'Where GPU figures come from; auto: nvml, then nvidia-smi, then the seed file where one is named',
  },
  NVML_LIBRARY: { kind: 'text', default: 'libnvidia-ml.so.1', help: 'NVML library of the NVIDIA driver, name or path' },
  NVIDIA_SMI: { kind: 'text', default: 'nvidia-smi', help: 'The nvidia-smi command, name or path' },
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
/** All settings that are in force, by environment name. */
export type Config = { readonly [K in OptionName]: ValueOf<(typeof OPTIONS)[K]> }

/** Where a value came from, for `config --print`. */
export type Source = 'flag' | 'environment' | '.env' | 'file' | 'default'

export interface LoadedConfig {
  config: Config
  sources: Record<OptionName, Source>
  /** Files that secrets came from, for who reads them again. */
  secretFiles: Partial<Record<OptionName, string>>
  /** One line a problem; empty when all is well. */
  problems: string[]
}

export interface ConfigInput {
  env: Readonly<Record<string, string | undefined>>
  /** Text of `.env`, '' for none. */
  envFile: string
  flags: Partial<Record<OptionName, string>>
}

/** Reads the settings from their three places and checks all of them. */
export function loadConfig(input: ConfigInput): LoadedConfig {
  const fromFile = parseEnv(input.envFile)
  const values: Record<string, string | number | null> = {}
  const sources = {} as Record<OptionName, Source>
  const secretFiles: Partial<Record<OptionName, string>> = {}
  const problems: string[] = []
  for (const name of Object.keys(OPTIONS) as OptionName[]) {
    const option: Option = OPTIONS[name]
    const found = find(name, option, input, fromFile, problems)
    sources[name] = found.source
    if (found.path !== undefined) secretFiles[name] = found.path
    values[name] = found.text === null ? option.default : parse(name, option, found.text, problems)
  }
  checkTogether(values as unknown as Config, problems)
  return { config: values as unknown as Config, sources, secretFiles, problems }
}

/** The text of `.env` in the working directory, '' when there is none. */
export function readEnvFile(): string {
  return existsSync('.env') ? readFileSync('.env', 'utf8') : ''
}

/** A setting as it may be shown: secrets masked, in URLs the credentials and those parameters that hold secrets. */
export function shown(name: OptionName, value: string | number | null): string | number | null {
  const option: Option = OPTIONS[name]
  if (value === null || option.secret !== true) return value
  if (option.kind !== 'url') return '***'
  // Up to the last @: a password that holds one, or a slash, ought to be encoded and sometimes is not.
  return String(value)
    .replace(/^([a-z+]*:\/\/)?.*@/is, '$1***@')
    .replaceAll(/([?&][^=&]*(?:password|token|properties)[^=&]*=)[^&]*/gi, '$1***')
}

function find(
  name: OptionName,
  option: Option,
  input: ConfigInput,
  fromFile: Record<string, string | undefined>,
  problems: string[],
): { text: string | null; source: Source; path?: string } {
  const flag = input.flags[name]
  if (flag !== undefined) return { text: flag, source: 'flag' }
  for (const [place, source] of [
    [input.env, 'environment'],
    [fromFile, '.env'],
  ] as const) {
    // An empty variable counts as unset: that is how compose files and shells pass on what is not there.
    const text = place[name]
    if (text !== undefined && text !== '') return { text, source }
    const path = option.secret === true ? place[`${name}_FILE`] : undefined
    if (path !== undefined && path !== '') return { text: readSecret(name, path, problems), source: 'file', path }
  }
  return { text: null, source: 'default' }
}

function readSecret(name: string, path: string, problems: string[]): string | null {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch (error) {
    problems.push(`${name}_FILE is "${path}": cannot be read (${(error as Error).message})`)
    return null
  }
}

function parse(name: OptionName, option: Option, text: string, problems: string[]): string | number | null {
  const wrong = (allowed: string) => {
    problems.push(`${name} is "${shown(name, text)}": expected ${allowed}`)
    return option.default
  }
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = option
  switch (option.kind) {
    case 'integer':
    case 'number': {
      const what = option.kind === 'integer' ? 'an integer' : 'a number'
      const unit = option.unit === undefined ? '' : ` (${option.unit})`
      const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text.trim()) ? Number(text) : Number.NaN
      const fits = option.kind === 'integer' ? Number.isSafeInteger(value) : Number.isFinite(value)
      return fits && value >= min && value <= max ? value : wrong(`${what} from ${min} to ${max}${unit}`)
    }
    case 'choice': {
      const choice = option.choices!.find((one) => one.toLowerCase() === text.toLowerCase())
      return choice ?? wrong(`one of ${option.choices!.join(', ')}`)
    }
    case 'url':
      return /^mongodb(\+srv)?:\/\/./.test(text) ? text : wrong('a URL that starts with mongodb:// or mongodb+srv://')
    case 'file': {
      const { orWord } = option
      if (text === orWord || existsSync(text)) return text
      return wrong(`the path of a file that exists${orWord === undefined ? '' : `, or ${orWord}`}`)
    }
    case 'text':
      return text.length <= 4096 ? text : wrong('at most 4096 characters')
  }
}

function checkTogether(config: Config, problems: string[]): void {
  const topics = [config.TOPIC_METRIC, config.TOPIC_TOKEN, config.TOPIC_DEAD]
  for (const [i, name] of (['TOPIC_METRIC', 'TOPIC_TOKEN', 'TOPIC_DEAD'] as const).entries()) {
    if (!/^[A-Za-z0-9._-]{1,249}$/.test(config[name])) {
      problems.push(`${name} is "${config[name]}": expected 1 to 249 letters, digits, dots, dashes and underscores`)
    }
    if (topics.indexOf(config[name]) !== i)
      problems.push(`${name} is "${config[name]}": expected another name than the other topics`)
  }
  if (config.KAFKA_BOOTSTRAP !== null) {
    for (const server of config.KAFKA_BOOTSTRAP.split(',')) {
      if (!/^(\[[0-9a-f:]+\]|[^\s:/,]+):\d{1,5}$/i.test(server.trim())) {
        problems.push(`KAFKA_BOOTSTRAP has "${server.trim()}": expected host:port`)
      }
    }
  }
  for (const name of ['HOSTNAME', 'DEFAULT_HOST'] as const) {
    const value = config[name]
    if (value !== null && (value.length < 1 || value.length > 256))
      problems.push(`${name} has ${value.length} characters: expected 1 to 256`)
  }
  const { KAFKA_SASL_MECHANISM: mechanism, KAFKA_SASL_USERNAME: user, KAFKA_SASL_PASSWORD: password } = config
  if (mechanism !== null && (user === null || password === null)) {
    problems.push(
      `KAFKA_SASL_MECHANISM is "${mechanism}": expected KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD beside it`,
    )
  }
  if (mechanism === null && (user !== null || password !== null)) {
    problems.push('KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD is set: expected KAFKA_SASL_MECHANISM beside it')
  }
  if (config.AGENT_TO !== null) {
    const to = URL.canParse(config.AGENT_TO) ? new URL(config.AGENT_TO) : null
    // Credentials in an address end up in logs and process lists.
    if (to === null || !/^https?:$/.test(to.protocol) || to.username !== '' || to.password !== '') {
      const given = config.AGENT_TO.replace(/\/\/[^/]*@/, '//***@')
      problems.push(`AGENT_TO is "${given}": expected https://host[:port][/path], the token in API_TOKEN`)
    }
  }
  if (config.API_TOKEN !== null && !/^[\x21-\x7e]+$/.test(config.API_TOKEN)) {
    problems.push(
      'API_TOKEN holds spaces or characters that no token has: expected one line, as "tokens add" showed it',
    )
  }
  if ((config.HTTP_TLS_CERT === null) !== (config.HTTP_TLS_KEY === null)) {
    problems.push('Only one of HTTP_TLS_CERT and HTTP_TLS_KEY is set: expected both or none')
  }
  if (config.MONGO_URL !== null && config.MONGO_PASSWORD !== null) {
    const [, user, password] = /^[a-z+]*:\/\/([^:@/?]+)(:[^@/?]*)?@/i.exec(config.MONGO_URL) ?? []
    if (user === undefined || password !== undefined) {
      const given = `MONGO_PASSWORD is set, and MONGO_URL ${user === undefined ? 'names no user' : 'holds a password as well'}`
      problems.push(`${given}: expected mongodb://USER@host/…`)
    }
  }
  if ((config.KAFKA_TLS_CERT === null) !== (config.KAFKA_TLS_KEY === null)) {
    problems.push('Only one of KAFKA_TLS_CERT and KAFKA_TLS_KEY is set: expected both or none')
  }
}
