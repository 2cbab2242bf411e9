// `pertoken report`: what a range cost, by model, tenant, host, GPU, price kind; as a table, CSV, JSON or FOCUS. Opens
// the store or asks a running server. How far the log has been read is known only to a running processor; from the
// store a report is final when nothing is pending and its range ended more than an hour ago and before the newest
// stored event.

import { DAY_MS } from '../../domain/ledger/buckets.ts'
import { CostReading, storedProgress } from '../../processor/cost/cost-reading.ts'
import { Commitments } from '../../processor/prices/commitments.ts'
import { type CostAnswer, streamedJson } from '../../report/cost-answer.ts'
import { type CostFigures, figuresOf } from '../../report/cost-figures.ts'
import { type CostRow, TooManyRows } from '../../report/cost-grouping.ts'
import { type CostQuery, costQuery, GROUPINGS, IDLE_WAYS, parseGroupings, STEPS } from '../../report/cost-query.ts'
import { costCsv } from '../../report/csv.ts'
import { focusFile, focusQuery } from '../../report/focus.ts'
import { costTable } from '../../report/table.ts'
import type { EventStore } from '../../store/event-store.ts'
import { ApiClient } from '../api-client.ts'
import { type Command, type CommandContext, numberFlag, textFlag, UsageError } from '../command.ts'
import { instantFlag } from '../parse-instant.ts'
import { ProgressLine } from '../progress-line.ts'
import { makeLogger, openStore } from '../wiring/wire.ts'

const FORMATS = ['table', 'csv', 'json', 'focus'] as const
type Format = (typeof FORMATS)[number]
/** Rows that a table shows; further ones are only counted. */
const MAX_TABLE_ROWS = 10_000

export const report: Command = {
  usage: '[--from TIME] [--to TIME] [--by model,tenant,host,gpu,price_kind] [--step 1m|1h|1d|all] [--format …]',
  flags: {
    from: { value: 'TIME', help: 'First instant: a date, ISO 8601, or so long ago: 24h, 7d (a day before --to)' },
    to: { value: 'TIME', help: 'First instant after the range (now)' },
    by: { value: 'NAMES', help: `Any of ${GROUPINGS.join(', ')}, with commas between (model)` },
    step: { value: 'STEP', help: 'Length of a row: 1m, 1h, 1d or all (all)' },
    idle: {
      value: 'WAY',
      help: 'Idle, model loaded, of no known model: own (a row) or spread (over each slot-hour) (own)',
    },
    model: { value: 'NAME', help: 'Only this model' },
    tenant: { value: 'NAME', help: 'Only this tenant' },
    host: { value: 'NAME', help: 'Only this host' },
    revision: { value: 'N', help: 'The ledger as it was with the revisions up to N; 0: with none' },
    format: { value: 'FORMAT', help: 'table, csv, json or focus (FOCUS 1.2) (table)' },
    json: { help: 'The same as --format json' },
    url: { value: 'URL', help: 'Asks a running pertoken instead of opening the store' },
  },
  options: ['MONGO_URL', 'DATA_DIR', 'ALLOWED_LATENESS_SECONDS', 'LOG_LEVEL'],
  details: 'Times are UTC. The range is widened to whole minutes. See docs/reports.md for what the figures mean.',
  async run(context) {
    if (context.words.length > 0)
      throw new UsageError(`Unknown words "${context.words.join(' ')}": expected only flags`)
    const format = formatOf(context)
    const revision = revisionOf(context)
    const query = queryOf(context, format)
    const url = textFlag(context.flags, 'url')
    if (url !== undefined)
      await remoteReport(context, new ApiClient(url, context.config.API_TOKEN), { query, format, revision })
    else await ownReport(context, { query, format, revision })
    return 0
  },
}

interface ReportRequest {
  query: CostQuery
  format: Format
  revision: number | null
}

function formatOf({ flags }: CommandContext): Format {
  const given = textFlag(flags, 'format')
  const format = FORMATS.find((name) => name === (given ?? (flags['json'] === true ? 'json' : 'table')))
  if (format === undefined) throw new UsageError(`Flag --format is "${given}": expected one of ${FORMATS.join(', ')}`)
  if (flags['json'] === true && format !== 'json') {
    throw new UsageError(`Flag --json contradicts --format ${format}: use one of them`)
  }
  return format
}

function revisionOf({ flags }: CommandContext): number | null {
  if (flags['revision'] === undefined) return null
  return numberFlag(flags, 'revision', { min: 0, max: 1e9, default: 0, integer: true })
}

/** The query that the flags describe; throws a UsageError that lists everything that is wrong. */
function queryOf({ flags }: CommandContext, format: Format): CostQuery {
  const nowMs = Date.now()
  const isFocus = format === 'focus'
  const byText = textFlag(flags, 'by')
  const by = byText === undefined ? (isFocus ? GROUPINGS : (['model'] as const)) : parseGroupings(byText)
  if (by === null) {
    throw new UsageError(`Flag --by is "${byText}": expected any of ${GROUPINGS.join(', ')}, each once`)
  }
  const toMs = instantFlag(flags, 'to', nowMs) ?? nowMs
  const fromMs = instantFlag(flags, 'from', nowMs) ?? toMs - DAY_MS
  const checked = costQuery({
    ...{ fromMs, toMs, by },
    step: choiceFlag(flags, 'step', STEPS, isFocus ? '1d' : 'all'),
    idle: choiceFlag(flags, 'idle', IDLE_WAYS, 'own'),
    model: textFlag(flags, 'model'),
    tenant: textFlag(flags, 'tenant'),
    host: textFlag(flags, 'host'),
  })
  if (!Array.isArray(checked)) return checked as CostQuery
  throw new UsageError(checked.map(({ field, message }) => `Flag --${field}: ${message}`).join('\n'))
}

function choiceFlag<T extends string>(
  flags: CommandContext['flags'],
  name: string,
  values: readonly T[],
  fallback: T,
): T {
  const given = textFlag(flags, name) ?? fallback
  const value = values.find((allowed) => allowed === given)
  if (value === undefined) throw new UsageError(`Flag --${name} is "${given}": expected one of ${values.join(', ')}`)
  return value
}

async function ownReport(context: CommandContext, request: ReportRequest): Promise<void> {
  const { config } = context
  const store = await openStore(config, makeLogger(config))
  try {
    await store.prepare()
    await write(context, store, request)
  } catch (error) {
    // A query that is too wide and a revision that does not exist are wrong usage.
    if (error instanceof TooManyRows || error instanceof RangeError) throw new UsageError(error.message)
    throw error
  } finally {
    await store.close()
  }
}

async function write(
  context: CommandContext,
  store: EventStore,
  { query, format, revision }: ReportRequest,
): Promise<void> {
  const { config, print } = context
  const progress = await storedProgress(store, Date.now())
  const source = { ledger: store.ledger, progress, latenessMs: config.ALLOWED_LATENESS_SECONDS * 1000 }
  await requireRevision(store, revision)
  const reading = new CostReading(source, format === 'focus' ? focusQuery(query) : query, { revision })
  const found = withProgress(reading)
  if (format === 'csv' || format === 'focus') {
    const { final } = await reading.outlook()
    await writeAll(context, format === 'csv' ? costCsv(found) : await focusOf(found, { store, revision, final }))
    const tail = await reading.tail()
    return context.say(`The file is ${stateText(tail.final)}\n${notesOf(tail)}`)
  }
  if (format === 'json') {
    const pieces = streamedJson(reading.head, found, () => reading.tail())
    return writeAll(context, pieces)
  }
  const rows: CostFigures[] = []
  let count = 0
  for await (const row of found) if (count++ < MAX_TABLE_ROWS) rows.push(figuresOf(row))
  const answer = { ...reading.head, ...(await reading.tail()), rows }
  print(tableText(query, answer, count))
}

/** The FOCUS file, whose reserved rows name their commitment. */
async function focusOf(
  rows: AsyncIterable<CostRow>,
  { store, revision, final }: { store: EventStore; revision: number | null; final: boolean },
): Promise<AsyncIterable<string>> {
  const commitments = await Commitments.of(store.ledger, revision)
  return focusFile(rows, { isFinal: final, commitmentOf: (row) => commitments.idOf(row) })
}

/** The rows; progress is shown on standard error unless the report itself goes to a terminal. */
async function* withProgress(reading: CostReading): AsyncGenerator<CostRow, void, undefined> {
  const line = new ProgressLine('Reading the ledger')
  const { fromMs, toMs } = reading.query
  try {
    for await (const row of reading.rows()) {
      if (process.stdout.isTTY !== true) line.show({ doneToMs: row.startMs, fromMs, toMs })
      yield row
    }
  } finally {
    line.clear()
  }
}

async function requireRevision(store: EventStore, revision: number | null): Promise<void> {
  if (revision === null || revision === 0) return
  const revisions = await store.ledger.readRevisions()
  if (revisions.some((known) => known.revision === revision)) return
  const existing = revisions.length === 0 ? 'there is none yet' : `there are 1 to ${revisions.length}`
  throw new UsageError(`Flag --revision is ${revision}: ${existing}; expected one of these, or 0`)
}

async function remoteReport(
  context: CommandContext,
  client: ApiClient,
  { query, format, revision }: ReportRequest,
): Promise<void> {
  const { step, by, idle, model, tenant, host } = query
  const parameters = {
    from: new Date(query.fromMs).toISOString(),
    to: new Date(query.toMs).toISOString(),
    step: step === 'month' ? 'all' : step,
    by: by.join(','),
    ...{ idle, model, tenant, host },
    revision: revision ?? undefined,
  }
  if (format === 'csv' || format === 'focus') {
    const response = await client.get('/api/v1/cost', { ...parameters, format })
    await writeAll(context, response.body!.pipeThrough(new TextDecoderStream()))
    const final = response.headers.get('x-pertoken-final')
    const state = final === null ? 'final or not: the server, an older one, does not tell' : stateText(final === 'true')
    return context.say(`The file is ${state}\n`)
  }
  const rows: CostFigures[] = []
  let answer: CostAnswer & { cursor: string | null }
  let cursor: string | undefined
  do {
    const response = await client.get('/api/v1/cost', { ...parameters, cursor })
    answer = (await response.json()) as CostAnswer & { cursor: string | null }
    rows.push(...answer.rows)
    cursor = answer.cursor ?? undefined
  } while (cursor !== undefined && (format === 'json' || rows.length < MAX_TABLE_ROWS))
  const { cursor: _, ...whole } = { ...answer, rows }
  if (format === 'json') context.print(`${JSON.stringify(whole)}\n`)
  else context.print(tableText(query, { ...whole, rows: rows.slice(0, MAX_TABLE_ROWS) }, rows.length))
}

/** Writes pieces as they arrive; throws when the command is stopped before the last one. */
async function writeAll({ print, signal }: CommandContext, pieces: AsyncIterable<string>): Promise<void> {
  for await (const piece of pieces) {
    if (signal.aborted) throw new Error('Stopped: the output is not whole')
    print(piece)
  }
}

function tableText(query: CostQuery, answer: CostAnswer, count: number): string {
  const { from, to, final, revision, rows, totals } = answer
  const of = revision === null ? '' : `, revision ${revision}`
  const cut = count > rows.length ? `The first ${rows.length} of ${count} rows; all of them: --format csv\n` : ''
  const none = totals.reason === null ? '' : `No cost of a million tokens: ${totals.reason}\n`
  const head = `${from} to ${to}${of} (${stateText(final)})`
  return `${head}\n\n${costTable(query, rows, totals)}${cut}${none}${notesOf(answer)}`
}

function stateText(final: boolean): string {
  return final ? 'final' : 'not final: events of this range may still come or are being worked in'
}

function notesOf({ missing = [], notes = [] }: Pick<CostAnswer, 'missing' | 'notes'>): string {
  const gaps = missing.map((gap) => `Missing: ${gap.from} to ${gap.to}: ${gap.reason}\n`)
  return [...gaps, ...notes.map((note) => `${note}\n`)].join('')
}
