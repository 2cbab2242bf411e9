// From bytes to a document or a rejection, the same for records of the log and for posted bodies: UTF-8, JSON,
// CloudEvents envelope, schema, bounds, event time, id. No coercion: "2" is not 2, null is not 0. A bad value never
// throws. The good path allocates the parsed object, which becomes the document, and nothing else but its id and date;
// what explains a fault runs only when there is one.

import { Compile } from 'typebox/compile'
import { type CloudEventAttributes, envelopeOf, unwrapStructured } from './cloudevents.ts'
import { hasDuplicateKey } from './duplicate-keys.ts'
import type { EventKind, GpuDocument, TokenDocument } from './event.ts'
import { GpuSampleSchema, KNOWN_FIELDS, TokenUsageSchema } from './event.ts'
import { logEventId, ownEventId } from './event-id.ts'
import { Rejection } from './rejection.ts'
import { MAX_AHEAD_MS, OLDEST_MS, parseIsoMs } from './timestamp.ts'
import { checkUnknown, MAX_DEPTH } from './unknown-fields.ts'
import { explain, explainTime } from './validation-errors.ts'

/** Largest record, bytes. */
export const MAX_RECORD_BYTES = 1_048_576

const validators = { gpu: Compile(GpuSampleSchema), token: Compile(TokenUsageSchema) }
const fatalUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** What the decoder needs of a record. `timestampMs` is the log's time of the record. */
export interface SourceRecord {
  offset: number
  timestampMs: number
  value: Buffer | null
  headers: ReadonlyMap<string, Buffer | null> | null
}

/**
 * Decodes one record of the topic of `kind`. Returns its document (live price not yet filled in) or the rejection.
 * `idPrefix` (see logIdPrefix) and the checksum function make the id of an event that brings none.
 */
export function decodeRecord<K extends EventKind>(
  kind: K,
  idPrefix: string,
  record: SourceRecord,
  crc32: (bytes: Uint8Array) => number,
): DocumentOf<K> | Rejection {
  const envelope = envelopeOf(record.headers)
  if (envelope instanceof Rejection) return envelope
  const value = record.value
  if (value === null) return Rejection.of('tombstone', 'Record has no value: expected a JSON object')
  const text = decodeText(value)
  if (typeof text !== 'string') return text
  let event = parseObject(text)
  if (event instanceof Rejection) return event
  let attributes = envelope.cloudEvent
  if (envelope.structured) {
    const unwrapped = unwrapStructured(event)
    if (unwrapped instanceof Rejection) return unwrapped
    event = unwrapped.data
    attributes = unwrapped.attributes
  }
  if (hasDuplicateKey(value, event)) {
    return Rejection.of('duplicate_field', 'Field is there twice: a JSON object with each name once was expected')
  }
  const tsMs = checkedTimeOf(kind, event, record.timestampMs)
  if (tsMs instanceof Rejection) return tsMs
  const own = envelope.id ?? ownIdOf(event, attributes)
  event['_id'] = own ?? logEventId(idPrefix, record.offset, crc32(value))
  event['ts'] = new Date(tsMs)
  if (event['host'] === undefined) event['host'] = null
  return event as unknown as DocumentOf<K>
}

/** The document type of a kind. */
export type DocumentOf<K extends EventKind> = K extends 'gpu' ? GpuDocument : TokenDocument

/**
 * Checks a parsed event against all that the log's decoder checks; null when it is good. `recordMs` is the time that
 * "one hour ahead" is measured from, milliseconds.
 */
export function checkEvent(kind: EventKind, event: Record<string, unknown>, recordMs: number): Rejection | null {
  const checked = checkedTimeOf(kind, event, recordMs)
  return checked instanceof Rejection ? checked : null
}

/** Event time of a good event, epoch milliseconds, or the rejection. */
function checkedTimeOf(kind: EventKind, event: Record<string, unknown>, recordMs: number): number | Rejection {
  const wrong = checkSchema(kind, event)
  if (wrong !== null) return wrong
  const known: ReadonlySet<string> = KNOWN_FIELDS[kind]
  for (const name in event) {
    if (!known.has(name)) {
      const refusal = checkUnknown(name, event[name])
      if (refusal !== null) return refusal
    }
  }
  const ts = event['ts']
  const tsMs = typeof ts === 'number' ? ts : parseIsoMs(ts as string)
  if (!(tsMs >= OLDEST_MS && tsMs <= recordMs + MAX_AHEAD_MS)) return new Rejection([explainTime(ts, tsMs, recordMs)])
  const cached = event['cached_prompt_tokens']
  if (cached !== undefined && kind === 'token' && (cached as number) > (event['prompt_tokens'] as number)) {
    const message = `Is ${cached}: expected at most prompt_tokens, which is ${event['prompt_tokens']}`
    return Rejection.of('cached_exceeds_prompt', message, '/cached_prompt_tokens')
  }
  return tsMs
}

function checkSchema(kind: EventKind, event: unknown): Rejection | null {
  try {
    if (validators[kind].Check(event)) return null
    return new Rejection(explain(event as Record<string, unknown>, validators[kind].Errors(event)))
  } catch (error) {
    // The validator and JSON.stringify recurse: a known field that nests thousands deep overflows the stack.
    if (error instanceof RangeError)
      return Rejection.of('too_deep', `Nests deeper than ${MAX_DEPTH} levels: flatten it`)
    throw error
  }
}

/** Whether a posted event is meant as token usage: it names a model or counts tokens; else it is a GPU sample. */
export function kindByShape(event: Record<string, unknown>): EventKind {
  return 'model' in event || 'prompt_tokens' in event || 'completion_tokens' in event ? 'token' : 'gpu'
}

/** The text of a record's bytes, or why it is none. */
function decodeText(value: Buffer): string | Rejection {
  if (value.length === 0) return Rejection.of('empty_value', 'Record is empty: expected a JSON object')
  if (value.length > MAX_RECORD_BYTES) {
    return Rejection.of('too_large', `Record has ${value.length} bytes: expected at most ${MAX_RECORD_BYTES}`)
  }
  const text = value.toString('utf8')
  if (!text.includes('\ufffd')) return text
  try {
    return fatalUtf8.decode(value)
  } catch {
    return Rejection.of('not_utf8', 'Record is not valid UTF-8: expected UTF-8 JSON')
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

/** The event's own id in its scope, or null: CloudEvents source and id first, then `event_id`. */
function ownIdOf(event: Record<string, unknown>, attributes: CloudEventAttributes | null): string | null {
  if (attributes !== null) return ownEventId(`ce:${attributes.source}`, attributes.id)
  const id = event['event_id']
  return typeof id === 'string' ? ownEventId((event['host'] as string | undefined) ?? '', id) : null
}
