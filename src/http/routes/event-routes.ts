// Events: listed as they are stored, in pages, and posted into the log. The response to a post is 202 only once the log
// has acknowledged all of it; a 503 means that this is unknown, and the client retries: events with an `event_id` (and
// CloudEvents) are still counted once. Authorization and content type are checked before a byte of the body is read;
// concurrent posts are bounded, since each holds its whole body in memory.

import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { EventKind } from '../../domain/events/event.ts'
import { LogError } from '../../log/event-log.ts'
import { requireEventAllowance } from '../access/auth.ts'
import type { HttpDependencies } from '../dependencies.ts'
import { jsonResponse, object, page, problemResponse } from '../open-api.ts'
import { cursorParameter, gpuIndexParameter, hostParameter, readPage } from '../parameters.ts'
import { HttpProblem, type ProblemIssue, unsupportedMediaType } from '../problem.ts'
import {
  badParameters,
  choice,
  defined,
  instant,
  integer,
  optional,
  Query,
  required,
  text,
  withDefault,
} from '../query.ts'
import { whenEnded } from '../when-ended.ts'
import { type BodyForm, MAX_EVENTS, type PostedRecords, PostRejection, readPosted } from './posted-events.ts'

/** Largest body of a post, bytes; one event in it may have 1 MiB. */
const MAX_BODY_BYTES = 8 * 1024 * 1024
/** Posts that are processed at once: of all callers, of one token. */
const MAX_POSTS = 32
const MAX_POSTS_EACH = 16
/** A post counts at least one event for so many bytes of its body against the limit, also an invalid one. */
const BYTES_PER_EVENT = 1024

const KINDS = { gpu_metrics: 'gpu', token_usage: 'token' } as const
const collection = choice(Object.keys(KINDS) as (keyof typeof KINDS)[], 'Collection that the events belong to')
const EventSchema = { anyOf: [{ $ref: 'gpu.metrics.v1#' }, { $ref: 'token.usage.v1#' }] }
const FORMS: Readonly<Record<string, BodyForm>> = {
  'application/json': 'json',
  'application/cloudevents+json': 'structured',
  'application/cloudevents-batch+json': 'batch',
}
const FORM_NAMES = Object.keys(FORMS)

interface PostRoute {
  Body: Buffer | undefined
}

export function addEventRoutes(app: FastifyInstance, dependencies: HttpDependencies): void {
  addListing(app, dependencies)
  addPosting(app, dependencies)
}

function addListing(app: FastifyInstance, { store }: HttpDependencies): void {
  const query = new Query({
    collection: required(collection),
    from: optional(instant('Event time of the first')),
    to: optional(instant('Event time before which the last is')),
    host: optional(hostParameter),
    gpu_index: optional(gpuIndexParameter),
    model: optional(text(256, 'Name of the model; token_usage only')),
    tenant: optional(text(256, 'Tenant; token_usage only')),
    limit: withDefault(integer(1, 1000, 'Most items of a page'), 100),
    cursor: optional(cursorParameter),
  })
  const schema = {
    tags: ['events'],
    summary: 'Events as they are stored, by event time',
    querystring: query.schema,
    response: { 200: jsonResponse(page(EventSchema), 'A page'), default: problemResponse },
  }
  app.get('/api/v1/events', { schema, config: { scope: 'read' } }, async (request) => {
    const { collection: name, from: fromMs, to: toMs, gpu_index: gpuIndex, limit, ...rest } = query.parse(request.query)
    const wrong: ProblemIssue[] = []
    for (const path of ['model', 'tenant'] as const) {
      if (name === 'token_usage' || rest[path] === undefined) continue
      wrong.push({ path, reason: 'wrong_value', message: 'Does not apply to gpu_metrics: leave it out' })
    }
    if (fromMs !== undefined && toMs !== undefined && fromMs > toMs) {
      wrong.push({ path: 'to', reason: 'wrong_value', message: 'Is before from: expected a later instant' })
    }
    if (wrong.length > 0) throw badParameters(wrong)
    const wanted = { limit, ...defined({ ...rest, fromMs, toMs, gpuIndex }) }
    return readPage(rest.cursor, () => store.listEvents(KINDS[name], wanted))
  })
}

const postQuery = new Query({ collection: optional(collection) })
const EnvelopeSchema = object({
  specversion: { const: '1.0' },
  id: { type: 'string' },
  source: { type: 'string' },
  type: { type: 'string', description: 'Ends in gpu.metrics.v1 or token.usage.v1' },
  data: EventSchema,
})
const postSchema = {
  tags: ['events'],
  summary: 'Puts events into the log',
  description:
    `One event, or an array of at most ${MAX_EVENTS} of which all or none are taken, or CloudEvents (structured, batch, or ` +
    'binary with ce-* headers). With a token of scope ingest, or from this machine where there are no tokens. After a 503 ' +
    'or 429 send the same again, when Retry-After has passed: events with an event_id, and CloudEvents, are counted once.',
  querystring: postQuery.schema,
  body: {
    content: {
      'application/json': {
        schema: {
          anyOf: [...EventSchema.anyOf, { type: 'array', maxItems: MAX_EVENTS, items: EventSchema }],
        },
      },
      'application/cloudevents+json': { schema: EnvelopeSchema },
      'application/cloudevents-batch+json': { schema: { type: 'array', maxItems: MAX_EVENTS, items: EnvelopeSchema } },
    },
  },
  response: {
    202: jsonResponse(object({ accepted: { type: 'integer', description: 'Number of events' } }), 'The log has them'),
    default: problemResponse,
  },
}

function addPosting(app: FastifyInstance, dependencies: HttpDependencies): void {
  let openPosts = 0
  app.addContentTypeParser(FORM_NAMES, { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  app.route<PostRoute>({
    method: 'POST',
    url: '/api/v1/events',
    schema: postSchema,
    config: { scope: 'ingest' },
    bodyLimit: MAX_BODY_BYTES,
    onRequest: async (request, reply) => {
      formOf(request)
      requireEventAllowance(request, dependencies)
      const { allowance } = request
      if (openPosts >= MAX_POSTS || (allowance !== null && allowance.openPosts >= MAX_POSTS_EACH)) {
        throw HttpProblem.later('overloaded', 'Too many posts at once: try again, or send arrays')
      }
      openPosts++
      if (allowance !== null) allowance.openPosts++
      whenEnded(reply, () => {
        openPosts--
        if (allowance !== null) allowance.openPosts--
      })
    },
    handler: async (request, reply) => {
      const accepted = await post(request, dependencies)
      reply.code(202)
      return { accepted }
    },
  })
}

/** Appends the events of a request to the log; returns their number. */
async function post(request: FastifyRequest<PostRoute>, dependencies: HttpDependencies): Promise<number> {
  const { collection: forced } = postQuery.parse(request.query)
  const kind = forced === undefined ? null : KINDS[forced]
  const bytes = request.body ?? Buffer.alloc(0)
  const form = formOf(request)
  const attributes = form === 'json' ? attributesOf(request) : null
  // Checked again, because other posts of the same caller may have been read while this body arrived.
  requireEventAllowance(request, dependencies)
  const nowMs = dependencies.now()
  const records = readPosted({ bytes, form, attributes, kind, nowMs })
  const count = records instanceof PostRejection ? records.total : records.gpu.length + records.token.length
  request.allowance?.events.spend(Math.max(count, bytes.length / BYTES_PER_EVENT), nowMs)
  if (records instanceof PostRejection) throw problemOf(records)
  await append(dependencies, records)
  return count
}

/** The form of the body, by its content type. */
function formOf({ headers }: Pick<FastifyRequest, 'headers'>): BodyForm {
  const [type = '', ...parameters] = (headers['content-type'] ?? '').toLowerCase().split(';')
  const form = Object.hasOwn(FORMS, type.trim()) ? FORMS[type.trim()] : undefined
  if (form === undefined) {
    const given = headers['content-type'] === undefined ? 'missing' : JSON.stringify(type.trim().slice(0, 80))
    throw unsupportedMediaType(`Content type is ${given}: expected ${FORM_NAMES.join(', ')}`)
  }
  const charset = parameters.map((text) => text.trim()).find((text) => text.startsWith('charset='))
  if (charset !== undefined && !/^charset="?utf-?8"?$/.test(charset)) {
    throw unsupportedMediaType(`Content type says ${JSON.stringify(charset.slice(0, 80))}: expected UTF-8`)
  }
  const encoding = headers['content-encoding']
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
    throw unsupportedMediaType(`Content encoding is ${JSON.stringify(encoding.slice(0, 80))}: send it uncompressed`)
  }
  return form
}

/** Headers of the binary mode of CloudEvents as they were sent, by name without prefix; null when there are none. */
function attributesOf({ headers }: Pick<FastifyRequest, 'headers'>): Record<string, string> | null {
  const named = Object.entries(headers).filter(([name]) => /^ce-[a-z0-9]+$/.test(name))
  if (named.length === 0) return null
  return Object.fromEntries(named.map(([name, value]) => [name.slice(3), String(value)]))
}

async function append({ log, topics, logger }: HttpDependencies, records: PostedRecords): Promise<void> {
  const topicOf: Record<EventKind, string> = { gpu: topics.metric, token: topics.token }
  try {
    for (const kind of ['gpu', 'token'] as const) {
      if (records[kind].length > 0) await log.append(topicOf[kind], records[kind])
    }
  } catch (error) {
    if (!(error instanceof LogError)) throw error
    logger.warn({ err: error }, 'Cannot append posted events: the log did not confirm them; the client receives a 503')
    const detail = 'The log did not confirm the events: send the same again; /health says what is wrong'
    throw HttpProblem.later('log-unavailable', detail)
  }
}

function problemOf({ issues, wrong, total }: PostRejection): HttpProblem {
  const isTooLarge = issues.some(({ reason, path }) => reason === 'too_large' && path === '')
  const what = total === 1 ? 'The event is wrong' : `${wrong} of ${total} events are wrong`
  const detail = `${what}, nothing was taken: correct what errors lists and send it again`
  return new HttpProblem(isTooLarge ? 413 : 400, isTooLarge ? 'too-large' : 'bad-event', { detail, errors: issues })
}
