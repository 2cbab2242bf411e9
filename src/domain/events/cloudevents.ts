// CloudEvents 1.0, both ways that its Kafka and HTTP bindings have: binary (attributes in headers `ce_*`, data is the
// value as it is) and structured (the whole event in the value). Only what pertoken needs of the envelope is kept:
// source and id, which name the event, and type and time, which may say what it is.
// Source: CloudEvents specification 1.0.2, Kafka protocol binding, sections 3.1 to 3.3.

import { isOwnId } from './event-id.ts'
import { Rejection } from './rejection.ts'

/** The attributes of an envelope that pertoken uses. */
export interface CloudEventAttributes {
  source: string
  id: string
  type: string
}

/** A byte order mark stays: ids are made of these texts. */
const utf8 = new TextDecoder('utf-8', { ignoreBOM: true })
/** Largest length of source, id and type. */
const MAX_ATTRIBUTE_LENGTH = 1024

/** Reads and checks the attributes from a plain object of attribute values. */
export function readAttributes(from: Record<string, unknown>): CloudEventAttributes | Rejection {
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
  return { source: values['source']!, id: values['id']!, type: values['type']! }
}

/** Takes a structured CloudEvent apart: its attributes and its data, which must be a JSON object. */
export function unwrapStructured(
  envelope: Record<string, unknown>,
): { attributes: CloudEventAttributes; data: Record<string, unknown> } | Rejection {
  const attributes = readAttributes(envelope)
  if (attributes instanceof Rejection) return attributes
  const data = envelope['data']
  if (typeof data !== 'object' || data === null || Array.isArray(data)) {
    const hint = 'data_base64' in envelope ? ' (data_base64 is not taken: send JSON in data)' : ''
    return Rejection.of('bad_cloudevent', `data is not a JSON object: expected the event there${hint}`, '/data')
  }
  return { attributes, data: data as Record<string, unknown> }
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

function textOf(value: Uint8Array | null): string | undefined {
  return value === null ? undefined : utf8.decode(value)
}

/** Reads the envelope from a record's headers; unknown headers are ignored. */
export function envelopeOf(headers: ReadonlyMap<string, Uint8Array | null> | null): Envelope | Rejection {
  if (headers === null) return NO_ENVELOPE
  const envelope = { ...NO_ENVELOPE }
  const attributes: Record<string, unknown> = {}
  let binary = false
  for (const [name, value] of headers) {
    const lower = name.toLowerCase()
    if (lower === REDRIVE_ID_HEADER) {
      const id = textOf(value)
      if (isOwnId(id)) envelope.id = id!
    } else if (lower === 'content-type' && value !== null) envelope.structured = isStructured(textOf(value)!)
    else if (lower.startsWith('ce_')) {
      binary = true
      attributes[lower.slice(3)] = textOf(value)
    }
  }
  if (!binary || envelope.structured) return envelope
  const read = readAttributes(attributes)
  if (read instanceof Rejection) return read
  return { ...envelope, cloudEvent: read }
}
