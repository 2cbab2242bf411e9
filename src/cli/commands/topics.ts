// `pertoken topics`: creates the topics, describes them with their lag, and moves a group's positions (`seek`). The
// store's positions are authoritative, the group's offsets in the log serve monitoring tools: seek sets both, with the
// group stopped.

import { parseIsoMs } from '../../domain/events/timestamp.ts'
import type { EventLog, Position, TopicDescription } from '../../log/event-log.ts'
import { type Command, type CommandContext, numberFlag, textFlag, UsageError } from '../command.ts'
import { defaultPartitions, makeLogger, openLog, openStore } from '../wiring/wire.ts'

export const topics: Command = {
  usage: '[create | describe | seek --to earliest|latest|TIME]',
  flags: {
    partitions: { value: 'N', help: 'Partitions of topics that are made (12)' },
    replication: { value: 'N', help: 'Replicas of topics that are made (1)' },
    to: { value: 'WHERE', help: 'For seek: earliest, latest, or an ISO 8601 time' },
    json: { help: 'Prints the result as JSON' },
  },
  options: [
    'KAFKA_BOOTSTRAP',
    'MONGO_URL',
    'DATA_DIR',
    'TOPIC_METRIC',
    'TOPIC_TOKEN',
    'TOPIC_DEAD',
    'KAFKA_GROUP',
    'LOG_LEVEL',
  ],
  details: 'Without a word: create, then describe. Topics that exist are left as they are.',
  async run(context) {
    const { config, words } = context
    const action = words[0] ?? 'all'
    if (!['all', 'create', 'describe', 'seek'].includes(action) || words.length > 1) {
      throw new UsageError(`Unknown words "${words.join(' ')}": expected create, describe or seek`)
    }
    const log = await openLog(config, makeLogger(config))
    try {
      if (action === 'seek') return await seek(context, log)
      if (action !== 'describe') await create(context, log)
      if (action !== 'create') await describe(context, log)
      return 0
    } finally {
      await log.close()
    }
  },
}

async function create({ config, flags, say }: CommandContext, log: EventLog): Promise<void> {
  const usual = defaultPartitions(config)
  const partitions = numberFlag(flags, 'partitions', { min: 1, max: 10_000, default: usual, integer: true })
  const replication = numberFlag(flags, 'replication', { min: 1, max: 100, default: 1, integer: true })
  const names = [config.TOPIC_METRIC, config.TOPIC_TOKEN, config.TOPIC_DEAD]
  const created = await log.ensureTopics(names.map((name) => ({ name, partitions, replication })))
  for (const name of names)
    say(created.includes(name) ? `Made ${name} with ${partitions} partitions\n` : `Left ${name} as it is\n`)
}

async function describe({ config, flags, print }: CommandContext, log: EventLog): Promise<void> {
  const names = [config.TOPIC_METRIC, config.TOPIC_TOKEN, config.TOPIC_DEAD]
  const described = await log.describe(names, config.KAFKA_GROUP)
  if (flags['json'] === true) {
    print(`${JSON.stringify(described, null, 2)}\n`)
    return
  }
  print(`${['TOPIC', 'PARTITION', 'EARLIEST', 'END', `COMMITTED (${config.KAFKA_GROUP})`, 'LAG'].join('\t')}\n`)
  for (const topic of described) {
    for (const { partition, earliestOffset, endOffset, committedOffset } of topic.partitions) {
      const lag = committedOffset === null ? '-' : endOffset - committedOffset
      print(`${[topic.name, partition, earliestOffset, endOffset, committedOffset ?? '-', lag].join('\t')}\n`)
    }
  }
}

async function seek({ config, flags, say }: CommandContext, log: EventLog): Promise<number> {
  const to = textFlag(flags, 'to')
  if (to === undefined) throw new UsageError('Seek needs --to earliest, latest or a time')
  const timeMs = to === 'earliest' || to === 'latest' ? null : parseIsoMs(to)
  if (timeMs !== null && Number.isNaN(timeMs)) {
    throw new UsageError(
      `Flag --to is "${to}": expected earliest, latest or an ISO 8601 time like 2026-01-31T12:00:00Z`,
    )
  }
  const described = await log.describe([config.TOPIC_METRIC, config.TOPIC_TOKEN])
  const positions: Position[] = []
  for (const topic of described) {
    const byTime = timeMs === null ? [] : await log.offsetsAt(topic.name, timeMs)
    for (const partition of topic.partitions) positions.push(positionAt(topic, partition, to, byTime))
  }
  const store = await openStore(config, makeLogger(config))
  try {
    await store.prepare()
    // The log goes first: it fails while the group has members, and then nothing has changed.
    await log.resetOffsets(config.KAFKA_GROUP, positions)
    await store.resetPositions(config.KAFKA_GROUP, positions)
  } finally {
    await store.close()
  }
  for (const { topic, partition, offset } of positions) say(`${topic}/${partition} is at ${offset}\n`)
  return 0
}

function positionAt(
  topic: TopicDescription,
  partition: TopicDescription['partitions'][number],
  to: string,
  byTime: readonly { partition: number; offset: number }[],
): Position {
  const timed = byTime.find((found) => found.partition === partition.partition)?.offset
  const offset =
    to === 'earliest'
      ? partition.earliestOffset
      : to === 'latest'
        ? partition.endOffset
        : (timed ?? partition.endOffset)
  return { topic: topic.name, topicId: topic.topicId, partition: partition.partition, offset }
}
