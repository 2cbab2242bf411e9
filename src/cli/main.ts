// The command line: finds the command, parses its arguments, runs it until it ends or is stopped. Exit codes: 0 done, 1
// failed, 2 wrong usage or configuration. SIGINT (Ctrl-C) and SIGTERM drain; a second signal ends the process at once.

import { type Command, helpOf, parseWords, UsageError } from './command.ts'
import type { Config } from './options.ts'
import { version } from './version.ts'

/**
 * All commands, in the order of the help. The module of a command is loaded only when that command is named: `--help`
 * and `--version` need neither the HTTP server nor a database driver.
 */
const COMMANDS: Readonly<Record<string, { summary: string; load: () => Promise<Command> }>> = {
  up: {
    summary: 'Everything in one process: log, processor, HTTP, page; --demo adds a demo workload and fleet',
    load: async () => (await import('./commands/up.ts')).up,
  },
  processor: {
    summary: 'Consumes the two topics, stores every event, prices it, serves HTTP',
    load: async () => (await import('./commands/processor.ts')).processor,
  },
  produce: {
    summary: 'Publishes pairs (GPU sample, token event) made from the seed file',
    load: async () => (await import('./commands/produce.ts')).produce,
  },
  agent: {
    summary: 'Samples this host’s GPUs and sends them, through a disk spool, to Kafka or to another pertoken',
    load: async () => (await import('./commands/agent.ts')).agent,
  },
  replay: {
    summary: 'Puts a trace (CSV of TIMESTAMP,ContextTokens,GeneratedTokens, or JSON lines of events) into the log',
    load: async () => (await import('./commands/replay.ts')).replay,
  },
  topics: {
    summary: 'Makes and describes the topics; seek moves the group to another position',
    load: async () => (await import('./commands/topics.ts')).topics,
  },
  report: {
    summary: 'Says what a range cost: by model, tenant, host, GPU, price kind; fully loaded and busy',
    load: async () => (await import('./commands/report.ts')).report,
  },
  prices: {
    summary: 'Lists and sets price books, and explains the price of a GPU',
    load: async () => (await import('./commands/prices.ts')).prices,
  },
  reprice: {
    summary: 'Reprices a past range with a version of the price book, and shows before and after',
    load: async () => (await import('./commands/reprice.ts')).reprice,
  },
  verify: {
    summary: 'Recomputes the ledger from the raw documents and compares; exit 1 on any difference',
    load: async () => (await import('./commands/verify.ts')).verify,
  },
  tokens: {
    summary: 'Adds, lists and removes the API tokens that HTTP asks for',
    load: async () => (await import('./commands/tokens.ts')).tokens,
  },
  'dead-letters': {
    summary: 'Lists, shows and redrives refused records',
    load: async () => (await import('./commands/dead-letters.ts')).deadLetters,
  },
  doctor: {
    summary: 'Looks at everything that can be wrong from here; one line each with what to do; exit 1 when something is',
    load: async () => (await import('./commands/doctor.ts')).doctor,
  },
  config: {
    summary: 'Shows every setting: value, unit, default, and where the value came from',
    load: async () => (await import('./commands/config.ts')).config,
  },
}

/** Runs `pertoken ...words`; returns the exit code. */
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
  if (!Object.hasOwn(COMMANDS, name)) {
    process.stderr.write(`Unknown command "${name}"\nSee: pertoken --help\n`)
    return 2
  }
  const { summary, load } = COMMANDS[name]!
  const command = await load()
  if (rest.includes('--help') || rest.includes('-h')) {
    process.stdout.write(helpOf(name, summary, command))
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
  let logLevel: Config['LOG_LEVEL'] | undefined
  try {
    const parsed = parseWords(name, command, words, process.env)
    logLevel = parsed.config.LOG_LEVEL
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
    if (logLevel === 'debug' && error instanceof Error) process.stderr.write(`${error.stack}\n`)
    return 1
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
  }
}

function overview(): string {
  const lines = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(14)} ${summary}\n`)
  return (
    `pertoken ${version()}: what does a token cost, now and over any past period, and where did the money go?\n\n` +
    `${lines.join('')}\nEach has --help. Settings: pertoken config --print\n`
  )
}
