// What a command is, and how its arguments are parsed: every command has --help and takes flags for the settings that
// matter to it. All wrong arguments are reported at once, with a pointer to the help, and end in exit code 2.

import { type ConfigInput, loadConfig } from './config.ts'
import { readEnvFile } from './env-file.ts'
import { type Config, OPTIONS, type OptionName } from './options.ts'

/** A flag of one command: for a setting (`option`), or the command's own. */
export interface Flag {
  /** The setting that the flag sets; the value of a flag without one is in `flags` of the context. */
  option?: OptionName
  /** Name of the value in the help; a flag without one is a switch. */
  value?: string
  help: string
}

export interface Command {
  /** Words after the command's name, for the usage line. */
  usage: string
  flags: Readonly<Record<string, Flag>>
  /** Settings whose flag is their own name in lower case with dashes: --data-dir for DATA_DIR. */
  options: readonly OptionName[]
  /** Further lines of help. */
  details?: string
  run(context: CommandContext): Promise<number>
}

export interface CommandContext {
  config: Config
  /** Arguments that are no flags. */
  words: readonly string[]
  /** The command's own flags: text, or true for a switch. */
  flags: Readonly<Record<string, string | true | undefined>>
  /** Aborts on SIGINT and SIGTERM. */
  signal: AbortSignal
  /** Writes to standard output. */
  print(text: string): void
  /** Writes to standard error. */
  say(text: string): void
  loaded: ReturnType<typeof loadConfig>
  /** The environment, for what is no setting of ours: the variables that name a proxy. */
  env: ConfigInput['env']
}

/** Wrong usage: the message alone is printed, exit code 2. */
export class UsageError extends Error {}

function flagOf(name: OptionName): string {
  return name.toLowerCase().replaceAll('_', '-')
}

function allFlags(command: Command): Map<string, Flag> {
  const flags = new Map<string, Flag>()
  for (const name of command.options) {
    flags.set(flagOf(name), { option: name, value: 'VALUE', help: OPTIONS[name].help })
  }
  for (const [name, flag] of Object.entries(command.flags)) flags.set(name, flag)
  return flags
}

/** The text of `pertoken NAME --help`. */
export function helpOf(name: string, summary: string, command: Command): string {
  const lines = [`pertoken ${name}${command.usage ? ` ${command.usage}` : ''}`, '', summary]
  if (command.details !== undefined) lines.push('', command.details)
  lines.push('', 'Flags:')
  for (const [flag, { value, help, option }] of [
    ...allFlags(command),
    ['help', { help: 'Shows this' } as Flag] as const,
  ]) {
    const words = `  --${flag}${value === undefined ? '' : ` ${value}`}`
    lines.push(`${words.padEnd(34)} ${help}${option === undefined ? '' : ` [${option}]`}`)
  }
  return `${lines.join('\n')}\n`
}

/** Parses a command's arguments and loads the settings; throws a UsageError that lists everything that is wrong. */
export function parseWords(
  name: string,
  command: Command,
  words: readonly string[],
  env: ConfigInput['env'],
): Pick<CommandContext, 'config' | 'words' | 'flags' | 'loaded' | 'env'> {
  const known = allFlags(command)
  const problems: string[] = []
  const plain: string[] = []
  const flags: Record<string, string | true> = {}
  const settings: Partial<Record<OptionName, string>> = {}
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!
    if (!word.startsWith('--') || word === '--') {
      if (word !== '--') plain.push(word)
      continue
    }
    const [flagName, inline] = splitOnce(word.slice(2))
    const flag = known.get(flagName)
    if (flag === undefined) {
      problems.push(`Unknown flag --${flagName}${nearest(flagName, known)}`)
      if (inline === undefined && words[i + 1] !== undefined && !words[i + 1]!.startsWith('--')) i++
      continue
    }
    if (flag.value === undefined) {
      if (inline !== undefined) problems.push(`Flag --${flagName} takes no value: got "${inline}"`)
      flags[flagName] = true
      continue
    }
    const value = inline ?? words[++i]
    if (value === undefined || (inline === undefined && value.startsWith('--'))) {
      problems.push(`Flag --${flagName} needs a value: ${flag.value}`)
      if (value !== undefined) i--
    } else if (flag.option !== undefined) settings[flag.option] = value
    else flags[flagName] = value
  }
  const loaded = loadConfig({ env, envFile: readEnvFile(), flags: settings })
  problems.push(...loaded.problems)
  if (problems.length > 0) {
    throw new UsageError(`${problems.map((problem) => `${problem}\n`).join('')}See: pertoken ${name} --help`)
  }
  return { config: loaded.config, words: plain, flags, loaded, env }
}

/** The value of a flag as a number within bounds, or the default; throws a UsageError. */
export function numberFlag(
  flags: CommandContext['flags'],
  name: string,
  bounds: { min: number; max: number; default: number; integer?: boolean },
): number {
  const text = flags[name]
  if (text === undefined || text === true) return bounds.default
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (!(value >= bounds.min && value <= bounds.max) || (bounds.integer === true && !Number.isInteger(value))) {
    const what = bounds.integer === true ? 'an integer' : 'a number'
    throw new UsageError(`Flag --${name} is "${text}": expected ${what} from ${bounds.min} to ${bounds.max}`)
  }
  return value
}

/** The value of a flag, undefined when the flag is not given. */
export function textFlag(flags: CommandContext['flags'], name: string): string | undefined {
  const value = flags[name]
  return typeof value === 'string' ? value : undefined
}

function splitOnce(word: string): [string, string | undefined] {
  const at = word.indexOf('=')
  return at === -1 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)]
}

function nearest(name: string, known: ReadonlyMap<string, Flag>): string {
  const close = [...known.keys()].find((flag) => flag.startsWith(name.slice(0, 3)) && name.length >= 3)
  return close === undefined ? '' : `: did you mean --${close}?`
}
