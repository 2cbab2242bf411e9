// Rejected records: the list shows reason and position of each, a single one also its bytes. Values are not in the
// list, which would otherwise be megabytes of unreadable data.

import { isUtf8 } from 'node:buffer'
import type { FastifyInstance } from 'fastify'
import { REASON_CODES, type ReasonCode } from '../../domain/events/rejection.ts'
import type { DeadLetter } from '../../store/event-store.ts'
import type { HttpDependencies } from '../dependencies.ts'
import { jsonResponse, nullable, object, page, problemResponse } from '../open-api.ts'
import { cursorParameter, readPage } from '../parameters.ts'
import { HttpProblem } from '../problem.ts'
import { choice, defined, integer, NO_QUERY, optional, Query, text, withDefault } from '../query.ts'

const REASONS = Object.keys(REASON_CODES) as ReasonCode[]

const summaryFields = {
  id: { type: 'string' },
  reason: { enum: REASONS },
  message: { type: 'string' },
  topic: { type: 'string' },
  partition: { type: 'integer' },
  offset: { type: 'integer' },
  record_time: {
    type: ['string', 'null'],
    format: 'date-time',
    description: "The log's time of the record; null where that is no time between 2015 and 2100",
  },
  time: { type: 'string', format: 'date-time', description: 'When it was refused' },
  value_length: { type: 'integer' },
  value_sha256: { type: 'string' },
  redriven_at: nullable('string', 'When it was put back into its topic'),
}

export function addDeadLetterRoutes(app: FastifyInstance, { store }: HttpDependencies): void {
  const query = new Query({
    reason: optional(choice(REASONS, 'Only those refused for this reason')),
    topic: optional(text(249, 'Only those of this topic')),
    limit: withDefault(integer(1, 200, 'Most items of a page'), 50),
    cursor: optional(cursorParameter),
  })
  const listSchema = {
    tags: ['events'],
    summary: 'Refused records, newest first',
    querystring: query.schema,
    response: { 200: jsonResponse(page(object(summaryFields)), 'A page, without values'), default: problemResponse },
  }
  app.get('/api/v1/dead-letters', { schema: listSchema, config: { scope: 'read' } }, async (request) => {
    const { reason, topic, limit, cursor } = query.parse(request.query)
    const found = await readPage(cursor, () => store.listDeadLetters({ limit, ...defined({ reason, topic, cursor }) }))
    return { items: found.items.map(summaryOf), cursor: found.cursor }
  })

  const oneSchema = {
    tags: ['events'],
    summary: 'One refused record with its bytes',
    querystring: NO_QUERY.schema,
    params: { type: 'object', properties: { id: { type: 'string' } }, required: ['id'] },
    response: {
      200: jsonResponse(
        object({
          ...summaryFields,
          headers: { type: 'object', additionalProperties: { type: 'string' } },
          key_base64: nullable('string', 'Key'),
          key_text: nullable('string', 'Key, where it is UTF-8'),
          value_base64: nullable('string', 'Value; null for a tombstone'),
          value_text: nullable('string', 'Value, where it is UTF-8'),
          value_cut: { type: 'boolean', description: 'The store keeps only the beginning of the value' },
        }),
        'The record',
      ),
      default: problemResponse,
    },
  }
  const oneOptions = { schema: oneSchema, config: { scope: 'read' as const } }
  app.get<{ Params: { id: string } }>('/api/v1/dead-letters/:id', oneOptions, async (request) => {
    NO_QUERY.parse(request.query)
    const letter = await store.readDeadLetter(request.params.id)
    if (letter !== null) return fullOf(letter)
    throw new HttpProblem(404, 'not-found', { detail: 'No dead letter has this id: see /api/v1/dead-letters' })
  })
}

function summaryOf(letter: DeadLetter): Record<string, unknown> {
  const { _id, reason, message, topic, partition, offset, record_time, time, value_length, value_sha256 } = letter
  const position = { topic, partition, offset, record_time, time }
  return { id: _id, reason, message, ...position, value_length, value_sha256, redriven_at: letter.redriven_at ?? null }
}

function fullOf(letter: DeadLetter): Record<string, unknown> {
  const { key, value, headers, value_length } = letter
  const isCut = value !== null && value.length < value_length
  return {
    ...summaryOf(letter),
    headers,
    key_base64: key?.toString('base64') ?? null,
    key_text: textOf(key, false),
    value_base64: value?.toString('base64') ?? null,
    value_text: textOf(value, isCut),
    value_cut: isCut,
  }
}

/** Bytes as text where they are UTF-8. Truncated bytes may end inside a character: up to three bytes are dropped. */
function textOf(bytes: Buffer | null, isCut: boolean): string | null {
  if (bytes === null) return null
  const missingAtMost = isCut ? Math.min(3, bytes.length) : 0
  for (let missing = 0; missing <= missingAtMost; missing++) {
    const head = bytes.subarray(0, bytes.length - missing)
    if (isUtf8(head)) return head.toString('utf8')
  }
  return null
}
