// From the bytes of a posted body to records for the log, or to everything that is wrong with it. The checks are those of
// the log's decoder (domain/decode.ts), so nothing that is taken here is refused later. All or nothing: one bad event of
// an array and none is taken, with each bad one named. The records keep the bytes as they came.

import { isUtf8 } from 'node:buffer'
import { type CloudEventAttributes, readAttributes, unwrapStructured } from '../../domain/events/cloudevents.ts'
import { asObject, checkEvent, kindByShape, MAX_RECORD_BYTES, parseObject } from '../../domain/events/decode.ts'
import type { EventKind } from '../../domain/events/documents.ts'
import { hasDuplicateKey } from '../../domain/events/duplicate-keys.ts'
import { type Issue, Rejection } from '../../domain/events/rejection.ts'
import type { NewRecord } from '../../log/event-log.ts'
import { elementsOf } from './json-array.ts'

/** Most events of one call. */
export const MAX_EVENTS = 10_000

/** How a body is written: plain JSON (one event or an array), one structured CloudEvent, or a batch of them. */
export type BodyForm = 'json' | 'structured' | 'batch'

export interface PostedBody {
  bytes: Buffer
  form: BodyForm
  /** Attributes from `ce-*` headers (binary mode), by name without prefix; null when there are none. */
  attributes: Readonly<Record<string, string>> | null
  /** The kind that the caller says, instead of type and shape. */
  kind: EventKind | null
  /** What "one hour ahead" is measured from, epoch milliseconds. */
  nowMs: number
}

/** Records by kind, in order. */
export type PostedRecords = Record<EventKind, NewRecord[]>

/** Why nothing of a body is taken: every issue with its path, and how many events are wrong. */
export class PostRefusal {
  readonly issues: readonly Issue[]
  readonly wrong: number
  readonly total: number

  constructor(issues: readonly Issue[], wrong = 1, total = 1) {
    this.issues = issues
    this.wrong = wrong
    this.total = total
  }
}

/** Reads a posted body. */
export function readPosted(body: PostedBody): PostedRecords | PostRefusal {
  const { bytes } = body
  if (bytes.length === 0) return refuse('empty_value', 'Body is empty: expected a JSON object or an array of them')
  if (!isUtf8(bytes)) return refuse('not_utf8', 'Body is not valid UTF-8: expected UTF-8 JSON')
  const text = bytes.toString('utf8')
  const isArray = /^[ \t\r\n]*\[/.test(text)
  if (body.form === 'batch' || (isArray && body.form === 'json')) return readArray(body, text, isArray)
  const event = readEvent(body, bytes, () => parseObject(text))
  if (event instanceof Rejection) return new PostRefusal(event.issues)
  return { gpu: [], token: [], [event.kind]: [event.record] }
}

function readArray(body: PostedBody, text: string, isArray: boolean): PostedRecords | PostRefusal {
  if (body.attributes !== null) {
    return refuse('bad_cloudevent', 'Body is an array: ce-* headers describe one event, send it alone')
  }
  let parsed: unknown[]
  try {
    parsed = JSON.parse(text)
  } catch (error) {
    return refuse('not_json', `Not JSON: ${(error as Error).message.slice(0, 200)}`)
  }
  if (!isArray) return refuse('not_an_object', 'Body is not an array: expected an array of CloudEvents')
  const { length } = parsed
  if (length > MAX_EVENTS) {
    return refuse('too_large', `Array has ${length} events: expected at most ${MAX_EVENTS}, send the rest in another`)
  }
  const records: PostedRecords = { gpu: [], token: [] }
  const issues: Issue[] = []
  let wrong = 0
  elementsOf(body.bytes).forEach((element, index) => {
    const event = readEvent(body, element, () => asObject(parsed[index]))
    if (event instanceof Rejection) {
      wrong++
      for (const issue of event.issues) issues.push({ ...issue, path: `/${index}${issue.path}` })
    } else {
      records[event.kind].push(event.record)
    }
  })
  return wrong === 0 ? records : new PostRefusal(issues, wrong, length)
}

/** One event of a body: its own bytes, and what they say. */
function readEvent(
  body: PostedBody,
  bytes: Buffer,
  read: () => Record<string, unknown> | Rejection,
): { kind: EventKind; record: NewRecord } | Rejection {
  if (bytes.length > MAX_RECORD_BYTES) {
    return Rejection.of('too_large', `Event has ${bytes.length} bytes: expected at most ${MAX_RECORD_BYTES}`)
  }
  const parsed = read()
  if (parsed instanceof Rejection) return parsed
  const isEnvelope = body.form !== 'json'
  const opened = isEnvelope ? unwrapStructured(parsed) : { data: parsed, attributes: binaryAttributes(body) }
  if (opened instanceof Rejection) return opened
  const { data, attributes } = opened
  if (attributes instanceof Rejection) return attributes
  if (hasDuplicateKey(bytes, data)) {
    return Rejection.of('duplicate_field', 'Field is there twice: a JSON object with each name once was expected')
  }
  const kind = body.kind ?? (attributes === null ? null : kindByType(attributes.type)) ?? kindByShape(data)
  const refusal = checkEvent(kind, data, body.nowMs)
  if (refusal !== null) return isEnvelope ? insideData(refusal) : refusal
  const key = (data['host'] as string | undefined) ?? null
  return { kind, record: { key, value: bytes, ...headersOf(body) } }
}

function binaryAttributes(body: PostedBody): CloudEventAttributes | Rejection | null {
  return body.attributes === null ? null : readAttributes(body.attributes)
}

/** The kind that a CloudEvent's type names: it ends in the published name of the event. */
function kindByType(type: string): EventKind | null {
  return type.endsWith('gpu.metrics.v1') ? 'gpu' : type.endsWith('token.usage.v1') ? 'token' : null
}

function insideData(refusal: Rejection): Rejection {
  return new Rejection(refusal.issues.map((issue) => ({ ...issue, path: `/data${issue.path}` })))
}

/** The record's headers, as the Kafka binding of CloudEvents has them. */
function headersOf({ form, attributes }: PostedBody): Pick<NewRecord, 'headers'> {
  if (form !== 'json') return { headers: { 'content-type': 'application/cloudevents+json' } }
  if (attributes === null) return {}
  const named = Object.entries(attributes).map(([name, value]) => [`ce_${name}`, value] as const)
  return { headers: { 'content-type': 'application/json', ...Object.fromEntries(named) } }
}

function refuse(reason: Issue['reason'], message: string): PostRefusal {
  return new PostRefusal([{ reason, path: '', message }])
}
