// From bytes to a JSON object, or why there is none: size, UTF-8, JSON, the kind of value. Of records of the log,
// posted bodies, lines of a trace, and data inside a CloudEvent.

import { Rejection } from './rejection.ts'

/** Largest record, bytes. */
export const MAX_RECORD_BYTES = 1_048_576

const fatalUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The text of a record's bytes, or why it is none. */
export function decodeText(value: Buffer): string | Rejection {
  if (value.length === 0) return Rejection.of('empty_value', 'Record is empty: expected a JSON object')
  if (value.length > MAX_RECORD_BYTES) {
    return Rejection.of('too_large', `Record has ${value.length} bytes: expected at most ${MAX_RECORD_BYTES}`)
  }
  const text = value.toString('utf8')
  if (!text.includes('\ufffd')) return text
  return strictText(value) ?? Rejection.of('not_utf8', 'Record is not valid UTF-8: expected UTF-8 JSON')
}

/** Bytes as text; null when they are not valid UTF-8. */
export function strictText(bytes: Uint8Array): string | null {
  try {
    return fatalUtf8.decode(bytes)
  } catch {
    return null
  }
}

/** Parses text to a JSON object, or returns why it is none. */
export function parseObject(text: string): Record<string, unknown> | Rejection {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (error) {
    return Rejection.of('not_json', `Not JSON: ${(error as Error).message.slice(0, 200)}`)
  }
  return asObject(parsed)
}

/** A parsed value as a JSON object, or why it is none. */
export function asObject(parsed: unknown): Record<string, unknown> | Rejection {
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    const found = parsed === null ? 'null' : Array.isArray(parsed) ? 'an array' : `a ${typeof parsed}`
    return Rejection.of('not_an_object', `Is ${found}: expected a JSON object`)
  }
  return parsed as Record<string, unknown>
}
