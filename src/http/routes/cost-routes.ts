// GET /api/v1/cost: the cost of a range, by model, tenant, host and so on, in steps. JSON is paged, with the totals of
// the whole; CSV and FOCUS are streamed whole, whatever their length. Concurrent requests are bounded, since each may
// read much of the ledger.

import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply } from 'fastify'
import { parseInstantMs } from '../../domain/events/timestamp.ts'
import { DAY_MS } from '../../domain/ledger/buckets.ts'
import { CostReading, type CostSource, costPage } from '../../processor/cost/cost-reading.ts'
import { Commitments } from '../../processor/prices/commitments.ts'
import { FrozenDaysError } from '../../processor/recompute/ledger-as-of.ts'
import { type CostRow, parseCursor, TooManyRows } from '../../report/cost-grouping.ts'
import { type CostQuery, costQuery, GROUPINGS, IDLE_WAYS, parseGroupings, STEPS } from '../../report/cost-query.ts'
import { costCsv, PIECE_CHARS } from '../../report/csv.ts'
import { focusFile, focusQuery } from '../../report/focus.ts'
import { costSourceOf, type HttpDependencies } from '../dependencies.ts'
import { hostParameter } from '../parameters.ts'
import { HttpProblem } from '../problem.ts'
import {
  badParameters,
  choice,
  instant,
  integer,
  optional,
  Query,
  text,
  type ValueKind,
  withDefault,
} from '../query.ts'
import { whenEnded } from '../when-ended.ts'
import { costResponse } from './cost-response.ts'

const FORMATS = ['json', 'csv', 'focus'] as const
const DEFAULT_LIMIT = 10_000
const MAX_LIMIT = 50_000
/** Requests that are processed at once. */
const MAX_READINGS = 16
/** Longest time for a streamed response, milliseconds. */
const STREAM_TIMEOUT_MS = 600_000

/** An instant, or a date as its first instant. */
const instantOrDate = (description: string): ValueKind<number> => {
  const kind = instant(description)
  return {
    ...kind,
    read: (value) => {
      const ms = value.length === 10 ? parseInstantMs(value) : Number.NaN
      return Number.isNaN(ms) ? kind.read(value) : ms
    },
    allowed: `${kind.allowed}, or a date`,
  }
}

const groupings: ValueKind<CostQuery['by']> = {
  read: (value) => parseGroupings(value) ?? undefined,
  allowed: `any of ${GROUPINGS.join(', ')}, each once, with commas between`,
  schema: { type: 'string', description: `Any of ${GROUPINGS.join(', ')}, with commas between; model when absent` },
}

const query = new Query({
  from: optional(instantOrDate('First instant; a day before `to` when absent')),
  to: optional(instantOrDate('First instant after the range; now when absent')),
  step: optional(choice(STEPS, 'Length of a row, aligned to UTC; all when absent (focus: 1d)')),
  by: optional(groupings),
  model: optional(text(256, 'Only this model')),
  tenant: optional(text(256, 'Only this tenant')),
  host: optional(hostParameter),
  idle: withDefault(
    choice(IDLE_WAYS, 'Idle, model loaded, of no known model: a row of its own, or spread over each slot-hour'),
    'own',
  ),
  format: withDefault(choice(FORMATS, 'json in pages; csv and focus (FOCUS 1.2) whole'), 'json'),
  revision: optional(integer(0, 1e9, 'The ledger as it was with the revisions up to this one; 0: with none')),
  limit: withDefault(integer(1, MAX_LIMIT, 'Most rows of a page; json only'), DEFAULT_LIMIT),
  cursor: optional(text(16_384, 'Where the page before ended: its `cursor`; json only')),
})

export function addCostRoutes(app: FastifyInstance, dependencies: HttpDependencies): void {
  const source = costSourceOf(dependencies)
  let open = 0
  app.route({
    method: 'GET',
    url: '/api/v1/cost',
    schema,
    config: { scope: 'read' },
    handlerTimeout: STREAM_TIMEOUT_MS,
    onRequest: async (_request, reply) => {
      if (open >= MAX_READINGS)
        throw HttpProblem.later('overloaded', 'Too many questions about cost at once: try again')
      open++
      whenEnded(reply, () => open--)
    },
    handler: async (request, reply) => {
      const parameters = query.parse(request.query)
      const { format, limit, cursor, revision = null } = parameters
      const checked = costQueryOf(parameters, dependencies.now())
      await requireRevision(source, revision)
      if (format === 'json') {
        const after = cursor === undefined ? null : parseCursor(cursor)
        const reading = new CostReading(source, checked, { revision })
        return costPage(reading, { limit, after }).catch((error: unknown) => Promise.reject(asParameter(error)))
      }
      const reading = new CostReading(source, format === 'focus' ? focusQuery(checked) : checked, { revision })
      // Ahead of the rows: few clients can read a trailer.
      const { final, watermark } = await reading.outlook()
      reply.header('x-pertoken-final', String(final))
      if (watermark !== null) reply.header('x-pertoken-watermark', watermark)
      const day = reading.head.from.slice(0, 10)
      if (format === 'csv') return stream(reply, costCsv(reading.rows()), `cost-${day}.csv`)
      const commitments = await Commitments.of(source.ledger, revision)
      const commitmentOf = (row: CostRow) => commitments.idOf(row)
      return stream(reply, focusFile(reading.rows(), { isFinal: final, commitmentOf }), `focus-${day}.csv`)
    },
  })
}

type Parameters = ReturnType<typeof query.parse>

/** The query, checked as a whole; throws a problem that lists every issue. */
function costQueryOf(parameters: Parameters, nowMs: number): CostQuery {
  const { model, tenant, host, idle, format, cursor } = parameters
  const isFocus = format === 'focus'
  if (cursor !== undefined) {
    const wrong = (path: string, message: string) => badParameters([{ path, reason: 'wrong_value', message }])
    if (parseCursor(cursor) === null) throw wrong('cursor', 'Is no cursor of an answer: begin again without it')
    if (parameters.from === undefined || parameters.to === undefined) {
      throw wrong('cursor', 'Continues an answer of a certain range: expected from and to beside it, as it says them')
    }
  }
  const toMs = parameters.to ?? nowMs
  const fromMs = parameters.from ?? toMs - DAY_MS
  const by = parameters.by ?? (isFocus ? GROUPINGS : ['model' as const])
  const step = parameters.step ?? (isFocus ? '1d' : 'all')
  const checked = costQuery({ fromMs, toMs, step, by, idle, model, tenant, host })
  if (!Array.isArray(checked)) return checked as CostQuery
  throw badParameters(checked.map(({ field, message }) => ({ path: field, reason: 'wrong_value', message })))
}

async function requireRevision({ ledger }: CostSource, revision: number | null): Promise<void> {
  if (revision === null || revision === 0) return
  const revisions = await ledger.readRevisions()
  if (revisions.some((stored) => stored.revision === revision)) return
  const known = revisions.length === 0 ? 'there is none yet' : `there are 1 to ${revisions.length}`
  const message = `Is ${revision}: ${known}; expected one of these, or 0 for the ledger before the first`
  throw badParameters([{ path: 'revision', reason: 'wrong_value', message }])
}

/** Errors of the reading that are due to the parameters, as problems; others unchanged. */
function asParameter(error: unknown): unknown {
  const path = error instanceof TooManyRows ? 'by' : error instanceof FrozenDaysError ? 'revision' : null
  if (path === null) return error
  const message = `${(error as Error).message}: expected a narrower question`
  return badParameters([{ path, reason: 'wrong_value', message }])
}

/** Sends lines as produced. A failure before the first is still a problem; a later one truncates the response. */
async function stream(reply: FastifyReply, lines: AsyncGenerator<string>, fileName: string): Promise<FastifyReply> {
  const first = await lines.next().catch((error: unknown) => Promise.reject(asParameter(error)))
  async function* all() {
    if (first.done !== true) yield first.value
    yield* lines
  }
  reply
    .type('text/csv; charset=utf-8; header=present')
    .header('content-disposition', `attachment; filename="${fileName}"`)
  return reply.send(Readable.from(all(), { objectMode: false, highWaterMark: PIECE_CHARS }))
}

const schema = {
  tags: ['cost'],
  summary: 'What a range cost: rows by model, tenant, host, GPU, price kind; in steps; fully loaded and busy',
  description:
    'The range is widened to whole minutes; from and to of the answer say so. Idle, nothing loaded, is a row with model and ' +
    'tenant null. final: nothing of the range will change but by later corrections; of csv and focus it is the header ' +
    'X-Pertoken-Final.',
  querystring: query.schema,
  response: costResponse,
}
