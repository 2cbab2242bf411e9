// The command line: finds the command, takes its words apart, runs it until it ends or is told to stop. Exit codes: 0
// done, 1 something failed, 2 wrong usage or configuration. Ctrl-C and SIGTERM drain; a second one ends at once.

import { type Command, helpOf, parseWords, UsageError } from './command.ts'
import { config } from './commands/config.ts'
import { deadLetters } from './commands/dead-letters.ts'
import { doctor } from './commands/doctor.ts'
import { prices } from './commands/prices.ts'
import { processor } from './commands/processor.ts'
import { produce } from './commands/produce.ts'
import { replay } from './commands/replay.ts'
import { report } from './commands/report.ts'
import { reprice } from './commands/reprice.ts'
import { topics } from './commands/topics.ts'
import { up } from './commands/up.ts'
import { verify } from './commands/verify.ts'
import { version } from './version.ts'

const COMMANDS: Readonly<Record<string, Command>> = {
  up,
  processor,
  produce,
  replay,
  topics,
  report,
  prices,
  reprice,
  verify,
  'dead-letters': deadLetters,
  doctor,
  config,
}

/** Runs `pertoken ...words`; answers the exit code. */
export async function main(words: readonly string[]): Promise<number> {
  const [name, ...rest] = words
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(overview())
    return name === undefined ? 2 : 0
  }
  if (name === '--version' || name === '-v') {
    process.stdout.write(`${version()}\n`)
    return 0
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name]! : undefined
  if (command === undefined) {
    process.stderr.write(`Unknown command "${name}"\nSee: pertoken --help\n`)
    return 2
  }
  if (rest.includes('--help') || rest.includes('-h')) {
    process.stdout.write(helpOf(name, command))
    return 0
  }
  return run(name, command, rest)
}

async function run(name: string, command: Command, words: readonly string[]): Promise<number> {
  const stop = new AbortController()
  const onSignal = (signal: NodeJS.Signals) => {
    if (stop.signal.aborted) process.exit(signal === 'SIGINT' ? 130 : 143)
    stop.abort()
  }
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
  try {
    const parsed = parseWords(name, command, words, process.env)
    return await command.run({
      ...parsed,
      signal: stop.signal,
      print: (text) => void process.stdout.write(text),
      say: (text) => void process.stderr.write(text),
    })
  } catch (error) {
    if (error instanceof UsageError) {
      process.stderr.write(`${error.message}\n`)
      return 2
    }
    process.stderr.write(`pertoken ${name} failed: ${error instanceof Error ? error.message : String(error)}\n`)
    if (process.env['LOG_LEVEL'] === 'debug' && error instanceof Error) process.stderr.write(`${error.stack}\n`)
    return 1
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
  }
}

function overview(): string {
  const lines = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(14)} ${summary}`)
  return `pertoken ${version()}: what does a token cost, now and over any past period, and where did the money go?\n\n${lines.join('\n')}\n\nEach has --help. Settings: pertoken config --print\n`
}
