// Reads a trace file as a stream of events: CSV with the columns of a public trace (trace-csv.ts), or JSON lines, which
// are our own events, those of Mooncake or what mongoexport wrote (trace-json.ts); gzip or not, or standard input. An
// invalid line becomes an error item; the lines after it are read. Each event has an id that consists of its line's
// content, the number of equal lines before it and the options, so that a second replay changes nothing and a longer
// file adds only its new rows. Memory is bounded: one line (1 MiB) and a count for each of the last 1,048,576 distinct
// lines; equal lines further apart than that count as one.

import { hash } from 'node:crypto'
import { basename, extname } from 'node:path'
import { checkEvent, kindByShape } from '../domain/events/decode.ts'
import type { GpuSample, TokenUsage } from '../domain/events/event.ts'
import { type ParsedLine, unreadText } from './parsed-line.ts'
import { CsvReader, HEADER } from './trace-csv.ts'
import { isDamagedGzip, linesOf, MAX_LINE_BYTES } from './trace-input.ts'
import { parseJsonLine } from './trace-json.ts'
import { TraceClock } from './trace-time.ts'

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
  /** The instant that relative times count from, epoch milliseconds; without it a trace of such times is an error. */
  beginMs?: number
  /** Read instead of the file, whose path then is only a name. */
  input?: AsyncIterable<Buffer>
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

/** What the reader leaves out of the lines from here on, once. */
export interface TraceNote {
  line: number
  note: string
}

/** Distinct lines whose number of occurrences is remembered; about 50 MB. */
const MAX_COUNTED_LINES = 1_048_576
/** Names of fields that are noted; a file with more has a name of its own in each line. */
const MAX_NOTED = 100
const utf8 = new TextDecoder('utf-8', { fatal: true })

/**
 * Reads the trace at `path`, in the order of the file: an event or an error for each line that is not blank. JSON lines
 * when the name ends in .jsonl or .ndjson (and .gz) or the first byte is `{`, else CSV; CSV without the columns that it
 * needs yields one error and ends, as the meaning of its columns is unknown. JSON lines keep their own fields and
 * `event_id`.
 * @throws the file system's error when the file cannot be opened or read, and an error for what is no text.
 */
export async function* readTrace(
  path: string,
  options: TraceOptions = {},
): AsyncGenerator<TraceEvent | TraceError | TraceNote> {
  const reader = new LineReader(path, options)
  let line = 0
  try {
    for await (const bytes of linesOf(path, options.input)) {
      line++
      for (const item of reader.read(bytes)) yield { ...item, line }
      if (reader.isOver) return
    }
  } catch (error) {
    if (!isDamagedGzip(error)) throw error
    const message = `Gzip data is cut off or damaged here (${(error as Error).message}): the lines before are read, get the file again`
    yield { line: line + 1, error: message }
  }
  if (line === 0 || !reader.hasFormat) {
    yield { line: 1, error: `File is empty: expected the header "${HEADER}", or JSON lines` }
  }
}

type Item = BuiltEvent | { error: string } | { note: string }

/** Recognizes the format by the first line that is not blank, and reads lines in it. */
class LineReader {
  readonly #builder: EventBuilder
  readonly #clock: TraceClock
  readonly #noted = new Set<string>()
  #parse: ((text: string) => ParsedLine) | null = null
  /** After an error that all further lines would have. */
  isOver = false

  constructor(path: string, options: TraceOptions) {
    this.#builder = new EventBuilder(path, options)
    this.#clock = new TraceClock(options.beginMs)
    if (/\.(jsonl|ndjson)(\.gz)?$/i.test(path)) this.#parse = this.#parseJson
  }

  get hasFormat(): boolean {
    return this.#parse !== null || this.isOver
  }

  read(bytes: Buffer | null): Item[] {
    const text = decodeLine(bytes)
    if (typeof text !== 'string') {
      this.isOver = this.#parse === null
      return [text]
    }
    if (text.trim() === '') return []
    if (this.#parse === null && !text.startsWith('{')) return this.#readHeader(text)
    this.#parse ??= this.#parseJson
    const parsed = this.#parse(text)
    if ('error' in parsed) {
      this.isOver = parsed.isFatal
      return [{ error: parsed.error }]
    }
    return [...this.#noteOf(parsed.unread ?? []), this.#builder.build(text, parsed.event)]
  }

  readonly #parseJson = (text: string): ParsedLine => parseJsonLine(text, this.#clock)

  #readHeader(text: string): Item[] {
    const csv = CsvReader.of(text, this.#clock)
    if (typeof csv === 'string') {
      this.isOver = true
      return [{ error: csv }]
    }
    this.#parse = (row) => csv.read(row)
    return csv.note === null ? [] : [{ note: csv.note }]
  }

  #noteOf(unread: readonly string[]): Item[] {
    const fresh = unread.filter((name) => !this.#noted.has(name))
    if (fresh.length === 0 || this.#noted.size >= MAX_NOTED) return []
    for (const name of fresh) this.#noted.add(name)
    return [{ note: unreadText(fresh) }]
  }
}

/** Fills in what a parsed line lacks, assigns its id and validates it. */
class EventBuilder {
  readonly #fill: { model: string; host: string; gpuIndex: number; tenant: string | undefined }
  /** The options that ids depend on. The model's default is not among them: a copy of the file has the same rows. */
  readonly #idOptions: string
  readonly #counts = new Map<number, number>()

  constructor(path: string, options: TraceOptions) {
    const { model, host = 'replay', gpuIndex = 0, tenant } = options
    const name = path === '-' ? 'stdin' : path.replace(/\.gz$/i, '')
    this.#fill = { model: model ?? (basename(name, extname(name)) || 'unknown'), host, gpuIndex, tenant }
    this.#idOptions = JSON.stringify([model ?? null, host, gpuIndex, tenant ?? null])
  }

  build(text: string, parsed: Readonly<Record<string, unknown>>): BuiltEvent | { error: string } {
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

/** The text of a line, or why it is none. */
function decodeLine(bytes: Buffer | null): string | { error: string } {
  if (bytes === null) return { error: `Line is too long: expected at most ${MAX_LINE_BYTES} bytes` }
  try {
    // A TextDecoder drops the byte order mark that some tools begin a file with.
    const text = utf8.decode(bytes)
    return text.endsWith('\r') ? text.slice(0, -1) : text
  } catch {
    return { error: 'Line is not valid UTF-8: expected UTF-8' }
  }
}
