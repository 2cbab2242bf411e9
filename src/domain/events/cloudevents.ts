// CloudEvents 1.0, both ways that its Kafka and HTTP bindings have: binary (attributes in headers `ce_*`, data is the
// value as it is) and structured (the whole event in the value). Only what pertoken needs of the envelope is kept:
// source and id, which name the event, and type and time, which may say what it is.
// Source: CloudEvents specification 1.0.2, Kafka protocol binding, sections 3.1 to 3.3.

import { Rejection } from './rejection.ts'

/** The attributes of an envelope that pertoken uses. */
export interface CloudEventAttributes {
  source: string
  id: string
  type: string
}

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

/** Whether a content type announces a structured CloudEvent; batches (`application/cloudevents-batch`) are told apart. */
export function isStructured(contentType: string): boolean {
  return /^application\/cloudevents(\+|;|$)/i.test(contentType.trim())
}
