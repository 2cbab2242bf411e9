// Reads the settings of options.ts. Flags win over the environment, the environment over `.env`. All wrong values are
// reported at once. Secrets have `_FILE` variants and are masked wherever the configuration is shown. The environment
// comes in as an argument, from main.ts alone: what a program does follows from its Config.

import { existsSync, readFileSync } from 'node:fs'
import { parsePageUrl } from '../agent/exposition/page-url.ts'
import { OWN_SEGMENTS } from '../http/base-path.ts'
import { type NameKind, parseEnvFile } from './env-file.ts'
import { type Config, OPTIONS, type Option, type OptionName } from './options.ts'

/** A MongoDB URL without login, up to its path: host[:port], several separated by commas. */
const PLAIN_HOSTS =
  /^(?:[a-z+]*:\/\/)?(?:(?:^|,|(?<=\/\/))(?:\[[0-9a-f:.]+\]|[^:@/?#,\s[\]]+)(?::\d{1,5})?)+(?:[/?]|$)/i
const WHOLE_URL =
  'host[:port] behind "//" or behind a login with its @; where a password was cut, put quotes around the URL, ' +
  'and write @ : / ? # [ ] % in it as in %40 for @'

/** Where a value came from, for `config --print`. */
export type Source = 'flag' | 'environment' | '.env' | 'file' | 'default'

export interface LoadedConfig {
  config: Config
  sources: Record<OptionName, Source>
  /** Files that secrets were read from, for those who read them again when they change. */
  secretFiles: Partial<Record<OptionName, string>>
  /** One line for each problem; empty when there is none. */
  problems: string[]
}

export interface ConfigInput {
  env: Readonly<Record<string, string | undefined>>
  /** Text of `.env`, '' for none. */
  envFile: string
  flags: Partial<Record<OptionName, string>>
}

/** Reads the settings from flags, environment and `.env`, and checks all of them. */
export function loadConfig(input: ConfigInput): LoadedConfig {
  const { values: fromFile, faults } = parseEnvFile(input.envFile, kindOfName)
  const values: Record<string, string | number | null> = {}
  const sources = {} as Record<OptionName, Source>
  const secretFiles: Partial<Record<OptionName, string>> = {}
  const problems = faults
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

/** Whether a name in `.env` is a setting, or the file of a secret one. */
export function kindOfName(name: string): NameKind {
  const option = Object.hasOwn(OPTIONS, name) ? (OPTIONS as Record<string, Option>)[name] : undefined
  if (option !== undefined) return option.secret === true ? 'secret' : 'setting'
  return name.endsWith('_FILE') && kindOfName(name.slice(0, -'_FILE'.length)) === 'secret' ? 'setting' : 'foreign'
}

/** A setting as it may be shown: secrets masked; in a URL, the credentials and those parameters that hold secrets. */
export function shown(name: OptionName, value: string | number | null): string | number | null {
  const option: Option = OPTIONS[name]
  if (value === null || option.secret !== true) return value
  if (option.kind !== 'url') return '***'
  const text = String(value)
  // Without @, what is no host may be a login that was cut before its @.
  if (!text.includes('@') && !PLAIN_HOSTS.test(text)) return text.replace(/^([a-z+]*:\/\/)?.*/is, '$1***')
  // Up to the last @: a password that holds one, or a slash, ought to be encoded and sometimes is not.
  return text
    .replace(/^([a-z+]*:\/\/)?.*@/is, '$1***@')
    .replaceAll(/([?&][^=&]*(?:password|token|properties)[^=&]*=)[^&]*/gi, '$1***')
}

function find(
  name: OptionName,
  option: Option,
  input: ConfigInput,
  fromFile: Readonly<Record<string, string | undefined>>,
  problems: string[],
): { text: string | null; source: Source; path?: string } {
  const flag = input.flags[name]
  if (flag !== undefined) return { text: flag, source: 'flag' }
  for (const [place, source] of [
    [input.env, 'environment'],
    [fromFile, '.env'],
  ] as const) {
    // An empty variable counts as unset: compose files and shells pass unset variables on as empty ones.
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
      const choice = option.choices!.find((allowed) => allowed.toLowerCase() === text.toLowerCase())
      return choice ?? wrong(`one of ${option.choices!.join(', ')}`)
    }
    case 'url':
      if (!/^mongodb(\+srv)?:\/\/./.test(text)) return wrong('a URL that starts with mongodb:// or mongodb+srv://')
      return text.includes('@') || PLAIN_HOSTS.test(text) ? text : wrong(WHOLE_URL)
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
  const [, first, ...others] = config.BASE_PATH?.split('/') ?? []
  const isPath = [first ?? '', ...others].every((part) => /^(?!\.\.?$)[\w.~-]+$/.test(part))
  if (config.BASE_PATH !== null && (!config.BASE_PATH.startsWith('/') || !isPath || OWN_SEGMENTS.includes(first!))) {
    problems.push(
      `BASE_PATH is "${config.BASE_PATH}": expected a path like /pertoken, without a slash at its end, that does not ` +
        `begin with a path of pertoken's own (${OWN_SEGMENTS.join(', ')})`,
    )
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
  if (config.DCGM_URL !== null && parsePageUrl(config.DCGM_URL) === null) {
    problems.push(`DCGM_URL is "${shown('DCGM_URL', config.DCGM_URL)}": expected http[s]://host[:port][/metrics]`)
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
      const url = user === undefined ? 'names no user' : 'holds a password as well'
      problems.push(`MONGO_PASSWORD is set, and MONGO_URL ${url}: expected mongodb://USER@host/…`)
    }
  }
  if ((config.KAFKA_TLS_CERT === null) !== (config.KAFKA_TLS_KEY === null)) {
    problems.push('Only one of KAFKA_TLS_CERT and KAFKA_TLS_KEY is set: expected both or none')
  }
}
