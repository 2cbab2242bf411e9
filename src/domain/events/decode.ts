// From bytes to a document or a rejection, the same for records of the log and for posted bodies: UTF-8, JSON,
// CloudEvents envelope, schema, bounds, event time, id. No coercion: "2" is not 2, null is absent and not 0. A bad
// value never throws. The good path allocates the parsed object, which becomes the document, and nothing else but its
// id and date; what explains a fault runs only when there is one.

import { Compile } from 'typebox/compile'
import { type CloudEventAttributes, envelopeOf, fillTime, isEnvelope, unwrapStructured } from './cloudevents.ts'
import { hasDuplicateKey } from './duplicate-keys.ts'
import type { EventKind, GpuDocument, TokenDocument, TokenUsage } from './event.ts'
import { GpuSampleSchema, gpuIndexesOf, KNOWN_FIELDS, TokenUsageSchema } from './event.ts'
import { hostlessEventId, logEventId, ownEventId } from './event-id.ts'
import { decodeText, parseObject } from './json-object.ts'
import { removeNulls } from './null-fields.ts'
import { LATEST_MS, MAX_AHEAD_MS, OLDEST_MS, recordTimeOf } from './record-time.ts'
import { Rejection } from './rejection.ts'
import { parseIsoMs } from './timestamp.ts'
import { AlteredIntegers, checkUnknown, type Json, MAX_DEPTH } from './unknown-fields.ts'
import { explain, explainTime, setListAside } from './validation-errors.ts'

const validators = { gpu: Compile(GpuSampleSchema), token: Compile(TokenUsageSchema) }

/** What the decoder needs of a record. `timestampMs` is the log's time of the record, whatever a producer sent. */
export interface SourceRecord {
  offset: number
  timestampMs: number
  value: Buffer | null
  headers: ReadonlyMap<string, Buffer | null> | null
}

/**
 * Decodes one record of the topic of `kind`. Returns its document (live price not yet filled in) or the rejection.
 * `idPrefix` (see logIdPrefix) and the checksum function make the id of an event that brings none; `now` bounds the
 * time of an event whose record has none.
 */
export function decodeRecord<K extends EventKind>(
  kind: K,
  idPrefix: string,
  record: SourceRecord,
  crc32: (bytes: Uint8Array) => number,
  now: () => number,
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
  let json: Json = value
  if (envelope.structured || (attributes === null && isEnvelope(event))) {
    const unwrapped = unwrapStructured(event)
    if (unwrapped instanceof Rejection) return unwrapped
    event = unwrapped.data
    attributes = unwrapped.attributes
    json = unwrapped.text ?? value
  }
  if (hasDuplicateKey(value, event)) {
    return Rejection.of('duplicate_field', 'Field is there twice: a JSON object with each name once was expected')
  }
  const wrong = attributes === null ? null : fillTime(event, attributes)
  const recordMs = recordTimeOf(record.timestampMs) ?? now()
  const tsMs = wrong ?? checkedTimeOf(kind, event, recordMs, json)
  if (tsMs instanceof Rejection) return tsMs
  const own = envelope.id ?? ownIdOf(kind, event, attributes)
  event['_id'] = own ?? logEventId(idPrefix, record.offset, crc32(value))
  event['ts'] = new Date(tsMs)
  if (event['host'] === undefined) event['host'] = null
  return event as unknown as DocumentOf<K>
}

/** The document type of a kind. */
export type DocumentOf<K extends EventKind> = K extends 'gpu' ? GpuDocument : TokenDocument

/**
 * Checks a parsed event against all that the log's decoder checks; null when it is good. `recordMs` is the time that
 * "one hour ahead" is measured from, milliseconds; `text` the JSON that the event is in. Optional fields that are null
 * are removed from it.
 */
export function checkEvent(
  kind: EventKind,
  event: Record<string, unknown>,
  recordMs: number,
  text?: Json,
): Rejection | null {
  const checked = checkedTimeOf(kind, event, recordMs, text)
  return checked instanceof Rejection ? checked : null
}

/** Event time of a good event, epoch milliseconds, or the rejection. */
function checkedTimeOf(
  kind: EventKind,
  event: Record<string, unknown>,
  recordMs: number,
  text: Json | undefined,
): number | Rejection {
  const wrong = checkSchema(kind, event)
  if (wrong !== null) return wrong
  const known: ReadonlySet<string> = KNOWN_FIELDS[kind]
  let integers: AlteredIntegers | null = null
  for (const name in event) {
    if (known.has(name)) continue
    integers ??= new AlteredIntegers(text)
    const refusal = checkUnknown(name, event[name], integers)
    if (refusal !== null) return refusal
  }
  const ts = event['ts']
  const tsMs = typeof ts === 'number' ? Math.trunc(ts) : parseIsoMs(ts as string)
  const latestMs = Math.min(recordMs + MAX_AHEAD_MS, LATEST_MS)
  if (!(tsMs >= OLDEST_MS && tsMs <= latestMs)) return new Rejection([explainTime(ts, tsMs, latestMs)])
  const cached = event['cached_prompt_tokens']
  if (cached !== undefined && kind === 'token' && (cached as number) > (event['prompt_tokens'] as number)) {
    const message = `Is ${cached}: expected at most prompt_tokens, which is ${event['prompt_tokens']}`
    return Rejection.of('cached_exceeds_prompt', message, '/cached_prompt_tokens')
  }
  return tsMs
}

function checkSchema(kind: EventKind, event: Record<string, unknown>): Rejection | null {
  try {
    if (validators[kind].Check(event)) return null
    if (removeNulls(kind, event) && validators[kind].Check(event)) return null
    const { list, rest } = setListAside(event)
    return new Rejection([...list, ...explain(rest, validators[kind].Errors(rest), list.length > 0)])
  } catch (error) {
    // The validator and JSON.stringify recurse: a known field that nests thousands deep overflows the stack.
    if (error instanceof RangeError)
      return Rejection.of('too_deep', `Nests deeper than ${MAX_DEPTH} levels: flatten it`)
    throw error
  }
}

/** Whether a posted event is meant as token usage: it names a model or counts tokens; else it is a GPU sample. */
export function kindByShape(event: Record<string, unknown>): EventKind {
  const shown = event['model'] ?? event['prompt_tokens'] ?? event['completion_tokens'] ?? null
  return shown !== null ? 'token' : 'gpu'
}

/** The event's own id in its scope, or null: CloudEvents source and id first, then `event_id`. */
function ownIdOf(
  kind: EventKind,
  event: Record<string, unknown>,
  attributes: CloudEventAttributes | null,
): string | null {
  if (attributes !== null) return ownEventId(`ce:${attributes.source}`, attributes.id)
  const { event_id: id, host, engine } = event as Partial<TokenUsage>
  if (id === undefined) return null
  if (host !== undefined) return ownEventId(host, id)
  return kind === 'gpu'
    ? hostlessEventId([event['gpu_index'] as number], undefined, id)
    : hostlessEventId(gpuIndexesOf(event as unknown as TokenUsage), engine, id)
}
