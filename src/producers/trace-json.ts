// The JSON lines of a trace as events: our own as they are, the lines that `mongoexport` writes of an older deployment
// (`{"$date": …}`, `{"$oid": …}`, `{"$numberLong": …}`, canonical and relaxed), and the requests of the Mooncake traces
// (`{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": […]}`, relative milliseconds).

import { kindByShape } from '../domain/events/decode.ts'
import { hasDuplicateKey } from '../domain/events/duplicate-keys.ts'
import { KNOWN_FIELDS } from '../domain/events/event.ts'
import { isOwnId } from '../domain/events/event-id.ts'
import { foreignEvent } from '../domain/events/foreign-document.ts'
import { parseObject } from '../domain/events/json-object.ts'
import { Rejection } from '../domain/events/rejection.ts'
import { type ParsedLine, quote, wrongLine } from './parsed-line.ts'
import type { TraceClock } from './trace-time.ts'

type JsonObject = Record<string, unknown>

/** Deeper values stay as they are; the check of the event refuses what nests so deep. */
const MAX_DEPTH = 40
const KNOWN: ReadonlySet<string> = KNOWN_FIELDS.token

/** Parses one line. */
export function parseJsonLine(text: string, clock: TraceClock): ParsedLine {
  const parsed = parseObject(text)
  if (parsed instanceof Rejection) return wrongLine(parsed.message)
  if (hasDuplicateKey(Buffer.from(text), parsed)) {
    return wrongLine('Field is there twice: a JSON object with each name once was expected')
  }
  if (isMooncake(parsed)) return eventOfMooncake(parsed, clock)
  return isExported(parsed) ? eventOfExport(parsed) : { event: parsed }
}

function isMooncake(line: JsonObject): boolean {
  return !('ts' in line) && 'timestamp' in line && 'input_length' in line && 'output_length' in line
}

function eventOfMooncake(line: JsonObject, clock: TraceClock): ParsedLine {
  const { timestamp, input_length: prompt_tokens, output_length: completion_tokens, ...others } = line
  if (typeof timestamp !== 'number' && typeof timestamp !== 'string') {
    const found = JSON.stringify(timestamp)?.slice(0, 80)
    return wrongLine(`timestamp is ${found}: expected milliseconds from the beginning of the trace`)
  }
  const ts = clock.read('timestamp', timestamp, 'ms')
  if (typeof ts !== 'number') return ts
  const known = Object.entries(others).filter(([name]) => KNOWN.has(name))
  const unread = Object.keys(others).filter((name) => !KNOWN.has(name))
  return { event: { ts, prompt_tokens, completion_tokens, ...Object.fromEntries(known) }, unread }
}

function isExported(line: JsonObject): boolean {
  return Object.values(line).some((value) => plainOf(value) !== undefined)
}

function eventOfExport(line: JsonObject): ParsedLine {
  const document = withoutTypes(line, 0) as JsonObject
  const id = document['_id']
  // A name that changes objects is refused by the check of the event, which needs to see it.
  if (id === undefined || Object.hasOwn(document, '__proto__')) return { event: document }
  // A document of ours with its event_id becomes itself again; without, it would be a second one beside the first.
  if (isOwnId(id) && typeof document['event_id'] !== 'string') {
    return wrongLine(
      `_id is ${quote(String(id))}, a document that pertoken itself has stored: a replay would count it twice; restore it with mongorestore`,
    )
  }
  return { event: foreignEvent(kindByShape(document), document) }
}

/** MongoDB's Extended JSON as plain JSON: dates become ISO 8601, ids text, numbers numbers. */
function withoutTypes(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null || depth > MAX_DEPTH) return value
  const plain = plainOf(value)
  if (plain !== undefined) return plain
  if (Array.isArray(value)) return value.map((item) => withoutTypes(item, depth + 1))
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, withoutTypes(item, depth + 1)]))
}

/** The value of a type wrapper of Extended JSON; undefined when it is none. */
function plainOf(value: unknown): string | number | undefined {
  const wrapper = wrapperOf(value)
  if (wrapper === null) return undefined
  if (wrapper.name !== '$date')
    return typeof wrapper.inner === 'string' ? scalarOf(wrapper.name, wrapper.inner) : undefined
  if (typeof wrapper.inner === 'string') return wrapper.inner
  // Canonical: {"$date": {"$numberLong": "1764590400000"}}.
  const { name, inner } = wrapperOf(wrapper.inner) ?? { name: '', inner: null }
  const ms = name === '$numberLong' && typeof inner === 'string' ? Number(inner) : Number.NaN
  return Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : undefined
}

function wrapperOf(value: unknown): { name: string; inner: unknown } | null {
  if (typeof value !== 'object' || value === null) return null
  const entries = Object.entries(value)
  return entries.length === 1 ? { name: entries[0]![0], inner: entries[0]![1] } : null
}

function scalarOf(name: string, text: string): string | number | undefined {
  if (name === '$oid') return text
  if (!/^\$number(Long|Int|Double|Decimal)$/.test(name)) return undefined
  const number = text.trim() === '' ? Number.NaN : Number(text)
  // A number that no double has exactly stays text, rather than become another one.
  const isExact = Number.isFinite(number) && (!Number.isInteger(number) || Number.isSafeInteger(number))
  return isExact ? number : text
}
