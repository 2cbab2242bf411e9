// Reads a trace file, in either of two formats, as a stream of events: CSV with the header
// `TIMESTAMP,ContextTokens,GeneratedTokens` (the format of the Azure LLM inference traces), or JSON lines of our own
// events. An invalid line becomes an error item; the lines after it are read. Each event has an id that consists of its
// line's content, the number of equal lines before it and the options, so that a second replay changes nothing and a
// longer file adds only its new rows. Memory is bounded: one line (1 MiB) and a count for each of the last 1,048,576
// distinct lines; equal lines further apart than that count as one.

import { hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { basename, extname } from 'node:path'
import { checkEvent, kindByShape } from '../domain/events/decode.ts'
import { hasDuplicateKey } from '../domain/events/duplicate-keys.ts'
import type { GpuSample, TokenUsage } from '../domain/events/event.ts'
import { MAX_RECORD_BYTES, parseObject } from '../domain/events/json-object.ts'
import { Rejection } from '../domain/events/rejection.ts'
import { parseIsoMs } from '../domain/events/timestamp.ts'

/** Values for fields that a row lacks. */
export interface TraceOptions {
  /** Model of token usage; when absent, the file's name without folder and extension. */
  model?: string
  /** Host of every event; `replay` when absent. */
  host?: string
  /** Index of the GPU; 0 when absent. */
  gpuIndex?: number
  /** Tenant of token usage; none when absent. */
  tenant?: string
}

/** A line that is an event; `line` counts from 1, the header included. */
export type TraceEvent =
  | { topic: 'token'; event: TokenUsage; line: number }
  | { topic: 'gpu'; event: GpuSample; line: number }

/** A line that is not: what is wrong with it and what was expected. */
export interface TraceError {
  line: number
  error: string
}

const HEADER = 'TIMESTAMP,ContextTokens,GeneratedTokens'
const ROW_EXAMPLE = '2023-11-16 18:17:03.9799600,4808,10'
/** Distinct lines whose number of occurrences is remembered; about 50 MB. */
const MAX_COUNTED_LINES = 1_048_576
const MAX_LINE_BYTES = MAX_RECORD_BYTES
const LINE_FEED = 10
const utf8 = new TextDecoder('utf-8', { fatal: true })

/**
 * Reads the trace at `path`, in the order of the file: an event or an error for each line that is not blank. JSON lines
 * when the name ends in .jsonl or .ndjson or the first byte is `{`, else CSV; CSV without the right header yields one
 * error and ends, as the meaning of its columns is unknown. JSON lines keep their own fields and `event_id`.
 * @throws the file system's error when the file cannot be opened or read.
 */
export async function* readTrace(path: string, options: TraceOptions = {}): AsyncGenerator<TraceEvent | TraceError> {
  const builder = new EventBuilder(path, options)
  let parse = /\.(jsonl|ndjson)$/i.test(path) ? parseJsonLine : null
  let line = 0
  for await (const bytes of linesOf(path)) {
    line++
    const text = decodeLine(bytes)
    if (text instanceof Rejection) {
      yield { line, error: text.message }
      if (parse === null) return
    } else if (parse === null && !text.startsWith('{')) {
      if (text !== HEADER) {
        yield { line, error: `Header is ${quote(text)}: expected ${quote(HEADER)}, or JSON lines` }
        return
      }
      parse = parseCsvRow
    } else if (text.trim() !== '') {
      parse ??= parseJsonLine
      const item = builder.build(text, parse(text))
      yield 'error' in item ? { line, error: item.error } : { ...item, line }
    }
  }
  if (line === 0) yield { line: 1, error: `File is empty: expected the header ${quote(HEADER)}, or JSON lines` }
}

type Parsed = Record<string, unknown> | Rejection

/** Fills in what a parsed line lacks, assigns its id and validates it. */
class EventBuilder {
  readonly #fill: { model: string; host: string; gpuIndex: number; tenant: string | undefined }
  /** The options that ids depend on. The model's default is not among them: a copy of the file has the same rows. */
  readonly #idOptions: string
  readonly #counts = new Map<number, number>()

  constructor(path: string, options: TraceOptions) {
    const { model, host = 'replay', gpuIndex = 0, tenant } = options
    this.#fill = { model: model ?? (basename(path, extname(path)) || 'unknown'), host, gpuIndex, tenant }
    this.#idOptions = JSON.stringify([model ?? null, host, gpuIndex, tenant ?? null])
  }

  build(text: string, parsed: Parsed): BuiltEvent | { error: string } {
    if (parsed instanceof Rejection) return { error: parsed.message }
    const topic = kindByShape(parsed)
    const { model, host, gpuIndex, tenant } = this.#fill
    const event: Record<string, unknown> = { ...parsed }
    event['host'] ??= host
    if (event['gpus'] === undefined || topic === 'gpu') event['gpu_index'] ??= gpuIndex
    if (topic === 'token') {
      event['model'] ??= model
      if (tenant !== undefined) event['tenant'] ??= tenant
    }
    event['event_id'] ??= this.#idOf(text)
    // No clock here: whether an event is too far ahead is decided by the log's reader.
    const rejection = checkEvent(topic, event, Number.POSITIVE_INFINITY)
    if (rejection !== null) return { error: rejection.message }
    // The check above is the proof of these types.
    return topic === 'token'
      ? { topic, event: event as unknown as TokenUsage }
      : { topic, event: event as unknown as GpuSample }
  }

  #idOf(text: string): string {
    return hash('sha256', JSON.stringify([text, this.#occurrenceOf(text), this.#idOptions])).slice(0, 32)
  }

  /** Number of equal lines so far, this one included. Keyed by 48 bits of a hash: a collision only skips a number. */
  #occurrenceOf(text: string): number {
    const key = Number.parseInt(hash('sha256', text).slice(0, 12), 16)
    const occurrence = (this.#counts.get(key) ?? 0) + 1
    this.#counts.delete(key)
    this.#counts.set(key, occurrence)
    if (this.#counts.size > MAX_COUNTED_LINES) this.#counts.delete(this.#counts.keys().next().value!)
    return occurrence
  }
}

type BuiltEvent = { topic: 'token'; event: TokenUsage } | { topic: 'gpu'; event: GpuSample }

function parseCsvRow(text: string): Parsed {
  const cells = text.split(',')
  if (cells.length !== 3) {
    return wrongLine(`Row has ${cells.length} column${cells.length === 1 ? '' : 's'}: expected 3 like ${ROW_EXAMPLE}`)
  }
  const [time, prompt, completion] = cells.map((cell) => cell.trim()) as [string, string, string]
  const tsMs = parseIsoMs(time)
  const issues: string[] = []
  if (Number.isNaN(tsMs)) {
    issues.push(`TIMESTAMP is ${quote(time)}: expected a UTC time like 2023-11-16 18:17:03.9799600`)
  }
  for (const [name, cell] of [['ContextTokens', prompt] as const, ['GeneratedTokens', completion] as const]) {
    if (!/^\d{1,10}$/.test(cell)) issues.push(`${name} is ${quote(cell)}: expected an integer from 0 to 1000000000`)
  }
  if (issues.length > 0) return wrongLine(issues.join('; '))
  return {
    ts: new Date(tsMs).toISOString(),
    prompt_tokens: Number(prompt),
    completion_tokens: Number(completion),
  }
}

function parseJsonLine(text: string): Parsed {
  const event = parseObject(text)
  if (event instanceof Rejection || !hasDuplicateKey(Buffer.from(text), event)) return event
  return wrongLine('Field is there twice: a JSON object with each name once was expected')
}

function wrongLine(message: string): Rejection {
  return Rejection.of('wrong_type', message)
}

function decodeLine(bytes: Buffer | null): string | Rejection {
  if (bytes === null) return wrongLine(`Line is too long: expected at most ${MAX_LINE_BYTES} bytes`)
  try {
    // A TextDecoder drops the byte order mark that some tools begin a file with.
    const text = utf8.decode(bytes)
    return text.endsWith('\r') ? text.slice(0, -1) : text
  } catch {
    return wrongLine('Line is not valid UTF-8: expected UTF-8')
  }
}

/** The file's lines without their line feed, the last one whether it has one or not; null for one that is too long. */
async function* linesOf(path: string): AsyncGenerator<Buffer | null> {
  let parts: Buffer[] = []
  let bytes = 0
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    let from = 0
    for (let end = chunk.indexOf(LINE_FEED); end !== -1; end = chunk.indexOf(LINE_FEED, from)) {
      bytes += end - from
      yield bytes > MAX_LINE_BYTES ? null : Buffer.concat([...parts, chunk.subarray(from, end)])
      parts = []
      bytes = 0
      from = end + 1
    }
    bytes += chunk.length - from
    if (bytes > MAX_LINE_BYTES) parts = []
    else if (from < chunk.length) parts.push(chunk.subarray(from))
  }
  if (bytes > 0) yield bytes > MAX_LINE_BYTES ? null : Buffer.concat(parts)
}

function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
}
