// The command line: finds the command, takes its words apart, runs it until it ends or is told to stop. Exit codes: 0
// done, 1 something failed, 2 wrong usage or configuration. Ctrl-C and SIGTERM drain; a second one ends at once.

import { type Command, helpOf, parseWords, UsageError } from './command.ts'
import { version } from './version.ts'

/** Each command is loaded only when it is asked for: `--version` must not wait for two database drivers. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  up: async () => (await import('./commands/up.ts')).up,
  processor: async () => (await import('./commands/processor.ts')).processor,
  produce: async () => (await import('./commands/produce.ts')).produce,
  agent: async () => (await import('./commands/agent.ts')).agent,
  replay: async () => (await import('./commands/replay.ts')).replay,
  topics: async () => (await import('./commands/topics.ts')).topics,
  report: async () => (await import('./commands/report.ts')).report,
  prices: async () => (await import('./commands/prices.ts')).prices,
  reprice: async () => (await import('./commands/reprice.ts')).reprice,
  verify: async () => (await import('./commands/verify.ts')).verify,
  tokens: async () => (await import('./commands/tokens.ts')).tokens,
  'dead-letters': async () => (await import('./commands/dead-letters.ts')).deadLetters,
  doctor: async () => (await import('./commands/doctor.ts')).doctor,
  config: async () => (await import('./commands/config.ts')).config,
}

/** Runs `pertoken ...words`; answers the exit code. */
export async function main(words: readonly string[]): Promise<number> {
  const [name, ...rest] = words
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(await overview())
    return name === undefined ? 2 : 0
  }
  if (name === '--version' || name === '-v') {
    process.stdout.write(`${version()}\n`)
    return 0
  }
  if (!Object.hasOwn(COMMANDS, name)) {
    process.stderr.write(`Unknown command "${name}"\nSee: pertoken --help\n`)
    return 2
  }
  const command = await COMMANDS[name]!()
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

async function overview(): Promise<string> {
  const lines: string[] = []
  for (const [name, load] of Object.entries(COMMANDS)) lines.push(`  ${name.padEnd(14)} ${(await load()).summary}`)
  return `pertoken ${version()}: what does a token cost, now and over any past period, and where did the money go?\n\n${lines.join('\n')}\n\nEach has --help. Settings: pertoken config --print\n`
}
