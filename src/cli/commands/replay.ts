// `pertoken replay`: appends a trace (CSV or JSON lines) or the documents of an older deployment to the log, paced by
// its own times or as fast as the log accepts it. Ids are derived from the content, so that a second replay changes
// nothing.

import { setTimeout as sleep } from 'node:timers/promises'
import { parseIsoMs } from '../../domain/events/timestamp.ts'
import type { EventLog, NewRecord } from '../../log/event-log.ts'
import { appendUntilTaken } from '../../producers/append.ts'
import { readTrace, type TraceError, type TraceEvent } from '../../producers/trace-file.ts'
import { type Command, type CommandContext, numberFlag, textFlag, UsageError } from '../command.ts'
import { defaultPartitions, makeLogger, openLog } from '../wiring/wire.ts'

/** Most events of one append. */
const MAX_BATCH = 1000
/** Wrong rows that are shown; further ones are only counted. */
const MAX_SHOWN = 20
const PROGRESS_MS = 1000

export const replay: Command = {
  usage: 'FILE [--speed N|max] [--from-now] | --from-mongo URL',
  flags: {
    speed: { value: 'N|max', help: 'So many times as fast as the trace (1), or as fast as the log takes it' },
    'from-now': { help: 'Shifts the trace so that it begins now' },
    model: { value: 'NAME', help: 'Model of events that name none (the file’s name)' },
    host: { value: 'NAME', help: 'Host of events that name none (replay)' },
    'gpu-index': { value: 'N', help: 'GPU of events that name none (0)' },
    tenant: { value: 'NAME', help: 'Tenant of events that name none' },
    'from-mongo': { value: 'URL', help: 'Takes in the documents of an older deployment instead of a file' },
    json: { help: 'Prints the result as JSON' },
  },
  options: ['KAFKA_BOOTSTRAP', 'DATA_DIR', 'TOPIC_METRIC', 'TOPIC_TOKEN', 'LOG_LEVEL'],
  async run(context) {
    const { config, flags, words, print, say, signal } = context
    const mongoUrl = textFlag(flags, 'from-mongo')
    if ((words.length === 1) === (mongoUrl !== undefined))
      throw new UsageError('Expected one FILE, or --from-mongo URL\nSee: pertoken replay --help')
    const speedText = textFlag(flags, 'speed') ?? '1'
    const speed =
      speedText === 'max'
        ? Number.POSITIVE_INFINITY
        : numberFlag({ speed: speedText }, 'speed', { min: 0.001, max: 1e9, default: 1 })
    const source =
      mongoUrl === undefined
        ? readTrace(words[0]!, traceOptions(flags))
        : (await import('../../store/mongo/events/foreign.ts')).readForeignDocuments(mongoUrl)
    const log = await openLog(config, makeLogger(config))
    try {
      const partitions = defaultPartitions(config)
      await log.ensureTopics([config.TOPIC_METRIC, config.TOPIC_TOKEN].map((name) => ({ name, partitions })))
      const result = await feed(context, log, source, {
        speed: mongoUrl === undefined ? speed : Number.POSITIVE_INFINITY,
        fromNow: flags['from-now'] === true,
      })
      if (flags['json'] === true) print(`${JSON.stringify(result)}\n`)
      else say(`Replayed ${result.events} events into ${log.description}; ${result.wrong} rows were wrong\n`)
      return result.wrong > 0 || signal.aborted ? 1 : 0
    } finally {
      await log.close()
    }
  },
}

function traceOptions(flags: CommandContext['flags']): Parameters<typeof readTrace>[1] {
  const [model, host, tenant] = [textFlag(flags, 'model'), textFlag(flags, 'host'), textFlag(flags, 'tenant')]
  const gpuIndex = numberFlag(flags, 'gpu-index', { min: 0, max: 1023, default: -1, integer: true })
  return {
    ...(model === undefined ? {} : { model }),
    ...(host === undefined ? {} : { host }),
    ...(tenant === undefined ? {} : { tenant }),
    ...(gpuIndex < 0 ? {} : { gpuIndex }),
  }
}

async function feed(
  { config, say, signal }: CommandContext,
  log: EventLog,
  source: AsyncIterable<TraceEvent | TraceError>,
  pace: { speed: number; fromNow: boolean },
): Promise<{ events: number; wrong: number }> {
  const batch: Record<'gpu' | 'token', NewRecord[]> = { gpu: [], token: [] }
  const topics = { gpu: config.TOPIC_METRIC, token: config.TOPIC_TOKEN }
  const startedMs = Date.now()
  const result = { events: 0, wrong: 0 }
  let firstMs: number | null = null
  let shownMs = startedMs
  const flush = async () => {
    for (const kind of ['gpu', 'token'] as const) {
      if (batch[kind].length === 0) continue
      const records = batch[kind]
      batch[kind] = []
      const onFault = (error: Error) => say(`Repeating until the log takes it: ${error.message}\n`)
      if (await appendUntilTaken(log, topics[kind], records, signal, onFault)) result.events += records.length
    }
    if (process.stderr.isTTY && Date.now() - shownMs > PROGRESS_MS) {
      shownMs = Date.now()
      say(`${result.events} events\r`)
    }
  }
  for await (const row of source) {
    if (signal.aborted) break
    if ('error' in row) {
      if (++result.wrong <= MAX_SHOWN) say(`Line ${row.line}: ${row.error}\n`)
      continue
    }
    const { event } = row
    const tsMs = typeof event.ts === 'number' ? event.ts : parseIsoMs(event.ts)
    if (!Number.isNaN(tsMs)) {
      firstMs ??= tsMs
      const waitMs = startedMs + (tsMs - firstMs) / pace.speed - Date.now()
      if (waitMs > 0) {
        await flush()
        await sleep(waitMs, undefined, { signal }).catch(() => {})
        if (signal.aborted) break
      }
      if (pace.fromNow) event.ts = new Date(startedMs + tsMs - firstMs).toISOString()
    }
    batch[row.topic].push({ key: event.host ?? null, value: Buffer.from(JSON.stringify(event)) })
    if (batch.gpu.length + batch.token.length >= MAX_BATCH) await flush()
  }
  await flush()
  if (result.wrong > MAX_SHOWN) say(`${result.wrong - MAX_SHOWN} more wrong rows are not shown\n`)
  return result
}
