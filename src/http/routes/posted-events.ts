// From the bytes of a posted body to records for the log, or to every issue in it. The checks are those of the log's
// decoder (domain/events/decode.ts), so nothing that is accepted here is rejected later. All or nothing: one invalid
// event of an array rejects the array, and each invalid one is named. The records keep the bytes as received.

import { isUtf8 } from 'node:buffer'
import {
  attributesOfHttp,
  type CloudEventAttributes,
  fillTime,
  isEnvelope,
  readAttributes,
  unwrapStructured,
} from '../../domain/events/cloudevents.ts'
import { checkEvent, kindByShape } from '../../domain/events/decode.ts'
import { hasDuplicateKey } from '../../domain/events/duplicate-keys.ts'
import type { EventKind } from '../../domain/events/event.ts'
import { asObject, MAX_RECORD_BYTES, parseObject } from '../../domain/events/json-object.ts'
import { type Issue, Rejection } from '../../domain/events/rejection.ts'
import type { NewRecord } from '../../log/event-log.ts'
import { elementsOf } from './json-array.ts'

/** Most events of one call. */
export const MAX_EVENTS = 10_000

/** Form of a body: plain JSON (one event or an array), one structured CloudEvent, or a batch of them. */
export type BodyForm = 'json' | 'structured' | 'batch'

export interface PostedBody {
  bytes: Buffer
  form: BodyForm
  /** Values of `ce-*` headers (binary mode) as they were sent, by name without prefix; null when there are none. */
  attributes: Readonly<Record<string, string>> | null
  /** The kind that the caller names; null: by type and shape. */
  kind: EventKind | null
  /** Time that "one hour ahead" is relative to, epoch milliseconds. */
  nowMs: number
}

/** Records by kind, in order. */
export type PostedRecords = Record<EventKind, NewRecord[]>

/** Why a body is rejected: every issue with its path, and the number of invalid events. */
export class PostRejection {
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
export function readPosted(posted: PostedBody): PostedRecords | PostRejection {
  const attributes = posted.attributes === null ? null : attributesOfHttp(posted.attributes)
  if (attributes instanceof Rejection) return new PostRejection(attributes.issues)
  const body = { ...posted, attributes }
  const { bytes } = body
  if (bytes.length === 0) return reject('empty_value', 'Body is empty: expected a JSON object or an array of them')
  if (!isUtf8(bytes)) return reject('not_utf8', 'Body is not valid UTF-8: expected UTF-8 JSON')
  const text = bytes.toString('utf8')
  const isArray = /^[ \t\r\n]*\[/.test(text)
  if (body.form === 'batch' || (isArray && body.form === 'json')) return readArray(body, text, isArray)
  const event = readEvent(body, bytes, () => parseObject(text))
  if (event instanceof Rejection) return new PostRejection(event.issues)
  return { gpu: [], token: [], [event.kind]: [event.record] }
}

function readArray(body: PostedBody, text: string, isArray: boolean): PostedRecords | PostRejection {
  if (body.attributes !== null) {
    return reject('bad_cloudevent', 'Body is an array: ce-* headers describe one event, send it alone')
  }
  let parsed: unknown[]
  try {
    parsed = JSON.parse(text)
  } catch (error) {
    return reject('not_json', `Not JSON: ${(error as Error).message.slice(0, 200)}`)
  }
  if (!isArray) return reject('not_an_object', 'Body is not an array: expected an array of CloudEvents')
  const { length } = parsed
  if (length > MAX_EVENTS) {
    return reject('too_large', `Array has ${length} events: expected at most ${MAX_EVENTS}, send the rest in another`)
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
  return wrong === 0 ? records : new PostRejection(issues, wrong, length)
}

/** One event of a body: its bytes, parsed by `read`, as a record. */
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
  const form = body.form === 'json' && body.attributes === null && isEnvelope(parsed) ? 'structured' : body.form
  const opened =
    form === 'json' ? { data: parsed, attributes: binaryAttributes(body), text: null } : unwrapStructured(parsed)
  if (opened instanceof Rejection) return opened
  const { data, attributes } = opened
  if (attributes instanceof Rejection) return attributes
  if (hasDuplicateKey(bytes, data)) {
    return Rejection.of('duplicate_field', 'Field is there twice: a JSON object with each name once was expected')
  }
  const untimed = attributes === null ? null : fillTime(data, attributes)
  if (untimed !== null) return untimed
  const kind = body.kind ?? (attributes === null ? null : kindByType(attributes.type)) ?? kindByShape(data)
  const rejection = checkEvent(kind, data, body.nowMs, opened.text ?? bytes)
  if (rejection !== null) return form === 'json' ? rejection : insideData(rejection)
  const key = (data['host'] as string | undefined) ?? null
  return { kind, record: { key, value: bytes, ...headersOf(form, body.attributes) } }
}

function binaryAttributes(body: PostedBody): CloudEventAttributes | Rejection | null {
  return body.attributes === null ? null : readAttributes(body.attributes)
}

/** The kind by a CloudEvent's type, which ends in the published name of the event. */
function kindByType(type: string): EventKind | null {
  return type.endsWith('gpu.metrics.v1') ? 'gpu' : type.endsWith('token.usage.v1') ? 'token' : null
}

function insideData({ issues }: Rejection): Rejection {
  return new Rejection(issues.map((issue) => ({ ...issue, path: `/data${issue.path}` })))
}

/** The record's headers, by the Kafka binding of CloudEvents. */
function headersOf(form: BodyForm, attributes: PostedBody['attributes']): Pick<NewRecord, 'headers'> {
  if (form !== 'json') return { headers: { 'content-type': 'application/cloudevents+json' } }
  if (attributes === null) return {}
  const named = Object.entries(attributes).map(([name, value]) => [`ce_${name}`, value] as const)
  return { headers: { 'content-type': 'application/json', ...Object.fromEntries(named) } }
}

function reject(reason: Issue['reason'], message: string): PostRejection {
  return new PostRejection([{ reason, path: '', message }])
}
