// `pertoken replay`: appends a trace (CSV or JSON lines) or the documents of an older deployment to the log, paced by
// its own times or as fast as the log accepts it. Ids are derived from the content, so that a second replay changes
// nothing.

import { parseIsoMs } from '../../domain/events/timestamp.ts'
import type { EventLog, NewRecord } from '../../log/event-log.ts'
import { appendUntilTaken } from '../../producers/append.ts'
import { sleepUntil } from '../../producers/long-sleep.ts'
import { readTrace, type TraceError, type TraceEvent, type TraceNote } from '../../producers/trace-file.ts'
import { type Command, type CommandContext, numberFlag, textFlag, UsageError } from '../command.ts'
import { instantFlag } from '../parse-instant.ts'
import { defaultPartitions, makeLogger, openLog } from '../wiring/wire.ts'

/** Most events of one append. */
const MAX_BATCH = 1000
/** Wrong rows that are shown; further ones are only counted. */
const MAX_SHOWN = 20
const PROGRESS_MS = 1000
/** A longer pause of the trace is announced: without that it looks like a command that hangs. */
const LONG_PAUSE_MS = 600_000

export const replay: Command = {
  usage: 'FILE [--speed N|max] [--from-now | --begin INSTANT] | --from-mongo URL',
  details:
    'FILE is CSV with the columns of a public trace (Azure, BurstGPT, Vidur), or JSON lines: events, Mooncake’s requests\n' +
    'or what mongoexport wrote. It may be gzip; - is standard input. Relative times need --begin or --from-now.',
  flags: {
    speed: { value: 'N|max', help: 'So many times as fast as the trace (1), or as fast as the log takes it' },
    'from-now': { help: 'Shifts the trace so that it begins now' },
    begin: { value: 'INSTANT', help: 'Shifts the trace so that it begins then' },
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
    const begin = instantFlag(flags, 'begin', Date.now())
    if (flags['from-now'] === true && flags['begin'] !== undefined)
      throw new UsageError('Flags --from-now and --begin exclude each other: give one of them')
    const log = await openLog(config, makeLogger(config))
    try {
      const partitions = defaultPartitions(config)
      await log.ensureTopics([config.TOPIC_METRIC, config.TOPIC_TOKEN].map((name) => ({ name, partitions })))
      const startedMs = Date.now()
      const beginMs = flags['from-now'] === true ? startedMs : begin
      const source =
        mongoUrl === undefined
          ? readTrace(words[0]!, { ...traceOptions(flags), ...inputOf(words[0]!, signal), ...beginOf(beginMs) })
          : (await import('../../store/mongo/events/foreign.ts')).readForeignDocuments(mongoUrl)
      const result = await feed(context, log, source, {
        speed: mongoUrl === undefined ? speed : Number.POSITIVE_INFINITY,
        startedMs,
        beginMs,
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

function beginOf(beginMs: number | undefined): { beginMs?: number } {
  return beginMs === undefined ? {} : { beginMs }
}

/** Standard input where the file is `-`; a stop ends the wait for what may never come. */
function inputOf(path: string, signal: AbortSignal): { input?: AsyncIterable<Buffer> } {
  if (path !== '-') return {}
  signal.addEventListener('abort', () => process.stdin.destroy(), { once: true })
  return { input: process.stdin }
}

/** The items of a source until the signal aborts, which may make the source fail. */
async function* untilStopped<T>(source: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
  try {
    yield* source
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

async function feed(
  { config, say, signal }: CommandContext,
  log: EventLog,
  source: AsyncIterable<TraceEvent | TraceError | TraceNote>,
  { speed, startedMs, beginMs }: { speed: number; startedMs: number; beginMs: number | undefined },
): Promise<{ events: number; wrong: number }> {
  const batch: Record<'gpu' | 'token', NewRecord[]> = { gpu: [], token: [] }
  const topics = { gpu: config.TOPIC_METRIC, token: config.TOPIC_TOKEN }
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
  for await (const row of untilStopped(source, signal)) {
    if (signal.aborted) break
    if ('note' in row) {
      say(`Line ${row.line}: ${row.note}\n`)
      continue
    }
    if ('error' in row) {
      if (++result.wrong <= MAX_SHOWN) say(`Line ${row.line}: ${row.error}\n`)
      continue
    }
    const { event } = row
    const tsMs = typeof event.ts === 'number' ? event.ts : parseIsoMs(event.ts)
    if (!Number.isNaN(tsMs)) {
      firstMs ??= tsMs
      const dueMs = startedMs + (tsMs - firstMs) / speed
      const waitMs = dueMs - Date.now()
      if (waitMs > 0) {
        await flush()
        if (waitMs > LONG_PAUSE_MS) say(`The next event is due in ${durationOf(waitMs)}; --speed makes it sooner\n`)
        await sleepUntil(dueMs, signal)
        if (signal.aborted) break
      }
      if (beginMs !== undefined) event.ts = shifted(beginMs + tsMs - firstMs)
    }
    batch[row.topic].push({ key: event.host ?? null, value: Buffer.from(JSON.stringify(event)) })
    if (batch.gpu.length + batch.token.length >= MAX_BATCH) await flush()
  }
  await flush()
  if (result.wrong > MAX_SHOWN) say(`${result.wrong - MAX_SHOWN} more wrong rows are not shown\n`)
  return result
}

/** An instant as text; one that no date has stays a number, which the processor refuses by name. */
function shifted(ms: number): string | number {
  return Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : ms
}

/** For example `30.0 days`. */
function durationOf(ms: number): string {
  const hours = ms / 3_600_000
  return hours < 48 ? `${hours.toFixed(1)} hours` : `${(hours / 24).toFixed(1)} days`
}
