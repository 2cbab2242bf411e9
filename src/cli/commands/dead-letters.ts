// `pertoken dead-letters`: lists rejected records, shows one with its bytes, and appends one (or all of a reason) to
// its topic again, where it gets the id that it would have had.

import { REASON_CODES } from '../../domain/events/rejection.ts'
import { redrive } from '../../processor/ingest/dead-letters.ts'
import type { DeadLetter, EventStore } from '../../store/event-store.ts'
import { type Command, type CommandContext, numberFlag, textFlag, UsageError } from '../command.ts'
import { makeLogger, openLog, openStore } from '../wiring/wire.ts'

const PAGE_SIZE = 500

export const deadLetters: Command = {
  usage: 'list [--reason CODE] | show ID | redrive ID | redrive --reason CODE',
  flags: {
    reason: { value: 'CODE', help: 'Only those with this reason code' },
    topic: { value: 'NAME', help: 'Only those of this topic' },
    limit: { value: 'N', help: 'At most so many (100)' },
    json: { help: 'Prints the result as JSON' },
  },
  options: ['KAFKA_BOOTSTRAP', 'MONGO_URL', 'DATA_DIR', 'LOG_LEVEL'],
  async run(context) {
    const { config, flags, words } = context
    const reason = textFlag(flags, 'reason')
    if (reason !== undefined && !Object.hasOwn(REASON_CODES, reason)) {
      throw new UsageError(`Flag --reason is "${reason}": expected one of ${Object.keys(REASON_CODES).join(', ')}`)
    }
    const [action = 'list', id] = words
    const store = await openStore(config, makeLogger(config))
    try {
      await store.prepare()
      if (action === 'list') return await list(context, store)
      if (action === 'show' && id !== undefined) return await show(context, store, id)
      if (action === 'redrive' && (id !== undefined || reason !== undefined))
        return await redriveAll(context, store, id)
      throw new UsageError(
        'Expected list, show ID, redrive ID or redrive --reason CODE\nSee: pertoken dead-letters --help',
      )
    } finally {
      await store.close()
    }
  },
}

async function* lettersOf(
  store: EventStore,
  flags: CommandContext['flags'],
  limit: number,
): AsyncGenerator<DeadLetter> {
  const [reason, topic] = [textFlag(flags, 'reason'), textFlag(flags, 'topic')]
  let cursor: string | null = null
  let left = limit
  do {
    const page = await store.listDeadLetters({
      limit: Math.min(PAGE_SIZE, left),
      ...(reason === undefined ? {} : { reason }),
      ...(topic === undefined ? {} : { topic }),
      ...(cursor === null ? {} : { cursor }),
    })
    yield* page.items
    left -= page.items.length
    cursor = page.cursor
  } while (cursor !== null && left > 0)
}

async function list({ flags, print }: CommandContext, store: EventStore): Promise<number> {
  const limit = numberFlag(flags, 'limit', { min: 1, max: 1_000_000, default: 100, integer: true })
  for await (const letter of lettersOf(store, flags, limit)) {
    if (flags['json'] === true) print(`${JSON.stringify(printable(letter))}\n`)
    else
      print(
        `${letter.time.toISOString()}  ${letter.topic}/${letter.partition}@${letter.offset}  ${letter.reason}  ${letter.message}  ${letter._id}\n`,
      )
  }
  return 0
}

async function show({ print, say, flags }: CommandContext, store: EventStore, id: string): Promise<number> {
  const letter = await store.readDeadLetter(id)
  if (letter === null) {
    say(`There is no dead letter "${id}"\n`)
    return 1
  }
  print(`${JSON.stringify(printable(letter), null, flags['json'] === true ? undefined : 2)}\n`)
  return 0
}

async function redriveAll(
  { config, flags, say, signal }: CommandContext,
  store: EventStore,
  id: string | undefined,
): Promise<number> {
  const letters: DeadLetter[] = []
  if (id !== undefined) {
    const letter = await store.readDeadLetter(id)
    if (letter === null) {
      say(`There is no dead letter "${id}"\n`)
      return 1
    }
    letters.push(letter)
  } else {
    const limit = numberFlag(flags, 'limit', { min: 1, max: 1_000_000, default: 100, integer: true })
    for await (const letter of lettersOf(store, flags, limit)) letters.push(letter)
  }
  const log = await openLog(config, makeLogger(config))
  let failed = 0
  try {
    for (const letter of letters) {
      if (signal.aborted) break
      try {
        await redrive(log, store, letter, new Date())
        say(`Put ${letter._id} back into ${letter.topic}\n`)
      } catch (error) {
        failed++
        say(`${(error as Error).message}\n`)
      }
    }
  } finally {
    await log.close()
  }
  return failed > 0 ? 1 : 0
}

/** A dead letter as it is printed: bytes as text where they are UTF-8, else base64. */
function printable(letter: DeadLetter): object {
  return { ...letter, key: bytes(letter.key), value: bytes(letter.value) }
}

function bytes(value: Buffer | null): string | { base64: string } | null {
  if (value === null) return null
  const text = value.toString('utf8')
  return text.includes('\ufffd') ? { base64: value.toString('base64') } : text
}
