// CloudEvents 1.0, both ways that its Kafka and HTTP bindings have: binary (attributes in headers, data is the value as
// it is) and structured (the whole event in the value, data as JSON or as base64 of JSON). Only what pertoken needs of
// the envelope is kept: source and id, which name the event, type, which may say what it is, and time, where the event
// itself has none. Sources: CloudEvents specification 1.0.2, JSON format 3.1; Kafka protocol binding 3.1 to 3.3, where
// `ce_specversion` makes a record binary and the content type is a header "if present"; HTTP protocol binding 3.1.3.2.

import { hasDuplicateKey } from './duplicate-keys.ts'
import { isOwnId } from './event-id.ts'
import { asObject, decodeText, parseObject, strictText } from './json-object.ts'
import { Rejection } from './rejection.ts'
import { parseIsoMs } from './timestamp.ts'

/** The attributes of an envelope that pertoken uses. */
export interface CloudEventAttributes {
  source: string
  id: string
  type: string
  /** Time of the occurrence, as it was sent. */
  time?: string
}

/** Names of the attributes that are read. */
const USED = ['specversion', 'source', 'id', 'type', 'time']
/** Largest length of source, id and type. */
const MAX_ATTRIBUTE_LENGTH = 1024

/** Reads and checks the attributes from a plain object of attribute values. */
export function readAttributes(from: Readonly<Record<string, unknown>>): CloudEventAttributes | Rejection {
  const version = from['specversion']
  if (version !== '1.0') {
    return Rejection.of('bad_cloudevent', `specversion is ${JSON.stringify(version)?.slice(0, 80)}: expected "1.0"`)
  }
  const values: Record<string, string> = {}
  for (const name of ['source', 'id', 'type']) {
    const value = from[name]
    if (typeof value !== 'string' || value.length === 0 || value.length > MAX_ATTRIBUTE_LENGTH) {
      const found = JSON.stringify(value)?.slice(0, 80)
      return Rejection.of(
        'bad_cloudevent',
        `${name} is ${found}: expected text of 1 to ${MAX_ATTRIBUTE_LENGTH} characters`,
      )
    }
    values[name] = value
  }
  const time = from['time']
  const attributes = { source: values['source']!, id: values['id']!, type: values['type']! }
  return typeof time === 'string' ? { ...attributes, time } : attributes
}

/** Gives an event without `ts` the time of its envelope, where that has one; returns why that is none. */
export function fillTime(event: Record<string, unknown>, { time }: CloudEventAttributes): Rejection | null {
  if (time === undefined || (event['ts'] ?? null) !== null) return null
  if (Number.isNaN(parseIsoMs(time))) {
    const found = JSON.stringify(time.slice(0, 80))
    return Rejection.of('bad_cloudevent', `time is ${found}: expected ISO 8601, since the event has no ts`, '/time')
  }
  event['ts'] = time
  return null
}

/** Whether an object is a structured CloudEvent by its fields: no event of ours is without `ts`. */
export function isEnvelope(object: Record<string, unknown>): boolean {
  return object['specversion'] !== undefined && object['ts'] === undefined && (hasData(object) || hasBase64(object))
}

const hasData = (envelope: Record<string, unknown>) => (envelope['data'] ?? null) !== null
const hasBase64 = (envelope: Record<string, unknown>) => (envelope['data_base64'] ?? null) !== null

/** A structured CloudEvent, taken apart. */
export interface OpenedEnvelope {
  attributes: CloudEventAttributes
  data: Record<string, unknown>
  /** The JSON of the data, where that was base64; null where it is in the envelope's own text. */
  text: string | null
}

/** Takes a structured CloudEvent apart: its attributes and its data, which must be a JSON object. */
export function unwrapStructured(envelope: Record<string, unknown>): OpenedEnvelope | Rejection {
  const attributes = readAttributes(envelope)
  if (attributes instanceof Rejection) return attributes
  const opened = hasBase64(envelope) ? dataOfBase64(envelope) : dataOf(envelope)
  if (opened instanceof Rejection) return opened
  return { attributes, ...opened }
}

function dataOf(envelope: Record<string, unknown>): Pick<OpenedEnvelope, 'data' | 'text'> | Rejection {
  const data = asObject(envelope['data'] ?? null)
  if (!(data instanceof Rejection)) return { data, text: null }
  return Rejection.of('bad_cloudevent', 'data is not a JSON object: expected the event there', '/data')
}

function dataOfBase64(envelope: Record<string, unknown>): Pick<OpenedEnvelope, 'data' | 'text'> | Rejection {
  const wrong = (what: string) => Rejection.of('bad_cloudevent', what, '/data_base64')
  if (hasData(envelope)) return wrong('data_base64 and data are both there: expected one of them')
  const base64 = envelope['data_base64']
  const bytes = Buffer.from(String(base64), 'base64')
  if (typeof base64 !== 'string' || bytes.toString('base64').replace(/=+$/, '') !== base64.replace(/=+$/, '')) {
    return wrong('data_base64 is not base64: expected the JSON of the event in it')
  }
  const text = decodeText(bytes)
  const data = text instanceof Rejection ? text : parseObject(text)
  if (text instanceof Rejection || data instanceof Rejection) {
    return wrong(`data_base64 does not hold an event in JSON: ${(data as Rejection).message}`)
  }
  if (hasDuplicateKey(bytes, data)) {
    return Rejection.of('duplicate_field', 'Field is there twice: expected each name once', '/data_base64')
  }
  return { data, text }
}

/** Whether a content type announces a structured CloudEvent, and not a batch (`application/cloudevents-batch`). */
function isStructured(contentType: string): boolean {
  return /^application\/cloudevents(\+|;|$)/i.test(contentType.trim())
}

/** Header that carries the id which a redriven record would have had at its first place. */
export const REDRIVE_ID_HEADER = 'pertoken_id'

/** What the headers of a record say about its value. */
export interface Envelope {
  /** CloudEvents attributes (binary mode), or null. */
  cloudEvent: CloudEventAttributes | null
  /** The whole CloudEvent is in the value (structured mode). */
  structured: boolean
  /** The id to give the document, where a redriven record brings the one of its first place; else null. */
  id: string | null
}

const NO_ENVELOPE: Envelope = { cloudEvent: null, structured: false, id: null }

/**
 * Reads the envelope from a record's headers; unknown headers are ignored, and so are `ce_…` headers without
 * `ce_specversion`: proxies and sinks leave some of their own.
 */
export function envelopeOf(headers: ReadonlyMap<string, Uint8Array | null> | null): Envelope | Rejection {
  if (headers === null) return NO_ENVELOPE
  const envelope = { ...NO_ENVELOPE }
  const found = new Map<string, Uint8Array>()
  for (const [name, value] of headers) {
    if (value === null) continue
    const lower = name.toLowerCase()
    if (lower.startsWith('ce_')) found.set(lower.slice(3), value)
    else if (lower === REDRIVE_ID_HEADER) {
      const id = strictText(value)
      if (isOwnId(id)) envelope.id = id
    } else if (lower === 'content-type') envelope.structured = isStructured(strictText(value) ?? '')
  }
  if (envelope.structured || !found.has('specversion')) return envelope
  const attributes: Record<string, string> = {}
  for (const name of USED) {
    const value = found.get(name)
    if (value === undefined) continue
    const text = strictText(value)
    if (text === null) return notUtf8(`ce_${name}`)
    attributes[name] = text
  }
  const read = readAttributes(attributes)
  return read instanceof Rejection ? read : { ...envelope, cloudEvent: read }
}

/**
 * Attributes of the binary mode from the values of HTTP headers `ce-…`, by name without prefix: unquoted, then
 * percent-decoded, as the HTTP binding wants it. Null without `ce-specversion`: then the body is a plain event.
 */
export function attributesOfHttp(
  headers: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> | Rejection | null {
  if (headers['specversion'] === undefined) return null
  const decoded: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers)) {
    const text = headerText(value)
    if (text === null) return notUtf8(`ce-${name}`)
    decoded[name] = text
  }
  return decoded
}

/** The text of an HTTP header's value, in which each character is a byte; null when it is not UTF-8. */
function headerText(value: string): string | null {
  const quoted = /^\s*"((?:[^"\\]|\\.)*)"\s*$/s.exec(value)
  const unquoted = quoted === null ? value : quoted[1]!.replace(/\\(.)/gs, '$1')
  const bytes = unquoted.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  return strictText(Buffer.from(bytes, 'latin1'))
}

function notUtf8(header: string): Rejection {
  return Rejection.of('bad_cloudevent', `Header ${header} is not valid UTF-8: expected UTF-8, percent-encoded in HTTP`)
}
