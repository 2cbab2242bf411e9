// Parses a page of metrics in Prometheus' text format (0.0.4, and what OpenMetrics adds to it: exemplars, `# EOF`).
// Pure. One pass, one call for each sample that is wanted: of every other line only the name is looked at, as a page of
// an engine has thousands of lines and a reader wants a dozen. What cannot be read is left out, counted and reported,
// never guessed: a last line without its line feed may be half a number, so it is not read.
// Format: https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md

import { readSampleBody, type SampleBody } from './sample-body.ts'

/** One sample as it stands on the page. */
export interface ExpositionSample extends SampleBody {
  /** With its suffix, as `_total` or `_bucket`. */
  name: string
  /** As the page's `# TYPE` states it, for the name or for its family (without suffix); null: not stated. */
  type: string | null
}

export interface ExpositionSummary {
  /** Samples on the page, wanted or not. */
  series: number
  /** By family, as the page states them. */
  types: ReadonlyMap<string, string>
  /** The page ends within a line: the rest is missing, and that line was not read. */
  isCut: boolean
  /** Lines that were left out because they cannot be read. */
  malformed: number
  /** What was wrong, one line each; the first ten. */
  faults: readonly string[]
}

export type ExpositionErrorCode = 'page-too-large' | 'too-many-series'

/** The page exceeds a limit; samples before it were already passed on. */
export class ExpositionError extends Error {
  override name = 'ExpositionError'
  readonly code: ExpositionErrorCode

  constructor(code: ExpositionErrorCode, message: string) {
    super(message)
    this.code = code
  }
}

/** Characters of a page. */
export const MAX_PAGE_CHARS = 16 * 1024 * 1024
const MAX_LINE_CHARS = 64 * 1024
const MAX_SERIES = 200_000
const MAX_FAULTS = 10
const MAX_QUOTED = 80
const SUFFIX = /_(?:total|sum|count|bucket|created|info|gsum|gcount)$/
const TYPE_LINE = /^# TYPE[ \t]+(\S+)[ \t]+(\S+)[ \t]*$/

const HASH = 0x23
const RETURN = 0x0d

/** Names that occurred, with whether they are wanted. */
interface Name {
  text: string
  isWanted: boolean
  /** Found at its first wanted sample; undefined before. */
  type: string | null | undefined
}

/**
 * Calls `onSample` for each sample whose name (with its suffix) is wanted, in the order of the page. `isWanted` is
 * called once a name.
 * @throws ExpositionError when the page has more than 16 Mi characters or 200,000 samples.
 */
export function parseExposition(
  text: string,
  isWanted: (name: string) => boolean,
  onSample: (sample: ExpositionSample) => void,
): ExpositionSummary {
  if (text.length > MAX_PAGE_CHARS) {
    throw new ExpositionError(
      'page-too-large',
      `Page has ${text.length} characters, expected ${MAX_PAGE_CHARS} at most`,
    )
  }
  return new PageReader(text, isWanted, onSample).read()
}

class PageReader {
  readonly #text: string
  readonly #isWanted: (name: string) => boolean
  readonly #onSample: (sample: ExpositionSample) => void
  readonly #types = new Map<string, string>()
  readonly #names = new Map<string, Name>()
  readonly #faults: string[] = []
  /** The line before has most often the same name. */
  #last: Name | null = null
  #series = 0
  #malformed = 0
  #line = 0

  constructor(text: string, isWanted: (name: string) => boolean, onSample: (sample: ExpositionSample) => void) {
    this.#text = text
    this.#isWanted = isWanted
    this.#onSample = onSample
  }

  read(): ExpositionSummary {
    const text = this.#text
    let isCut = false
    for (let start = 0; start < text.length; ) {
      const feed = text.indexOf('\n', start)
      const hasEnded = isEofLine(text, start, feed === -1 ? text.length : feed)
      if (hasEnded) break
      if (feed === -1) {
        isCut = text.slice(start).trim() !== ''
        break
      }
      this.#line += 1
      if (feed - start > MAX_LINE_CHARS) this.#leaveOut(start, feed, `has over ${MAX_LINE_CHARS} characters`)
      else this.#readLine(start, text.charCodeAt(feed - 1) === RETURN && feed > start ? feed - 1 : feed)
      start = feed + 1
    }
    if (isCut) this.#report(`The page ends within line ${this.#line + 1}, which was not read`)
    return { series: this.#series, types: this.#types, isCut, malformed: this.#malformed, faults: this.#faults }
  }

  #readLine(start: number, end: number): void {
    const text = this.#text
    let at = start
    while (at < end && isBlank(text.charCodeAt(at))) at += 1
    if (at === end) return
    if (text.charCodeAt(at) === HASH) {
      if (text.startsWith('# TYPE', at)) this.#readType(text.slice(at, end))
      return
    }
    this.#series += 1
    if (this.#series > MAX_SERIES) {
      throw new ExpositionError(
        'too-many-series',
        `Page has over ${MAX_SERIES} samples, expected ${MAX_SERIES} at most`,
      )
    }
    const name = this.#nameAt(at, end)
    if (name === null) this.#leaveOut(at, end, 'does not begin with the name of a metric')
    else if (name.isWanted) this.#readSample(name, at, end)
  }

  #readSample(name: Name, start: number, end: number): void {
    const body = readSampleBody(this.#text.slice(start + name.text.length, end))
    if (typeof body === 'string') {
      this.#leaveOut(start, end, body)
      return
    }
    if (name.type === undefined) name.type = this.#typeOf(name.text)
    this.#onSample({ name: name.text, type: name.type, ...body })
  }

  #nameAt(at: number, end: number): Name | null {
    const text = this.#text
    const last = this.#last
    if (last !== null && text.startsWith(last.text, at) && !isNameChar(text.charCodeAt(at + last.text.length))) {
      return last
    }
    let nameEnd = at
    while (nameEnd < end && isNameChar(text.charCodeAt(nameEnd))) nameEnd += 1
    if (nameEnd === at || isDigit(text.charCodeAt(at))) return null
    const name = text.slice(at, nameEnd)
    let known = this.#names.get(name)
    if (known === undefined) {
      known = { text: name, isWanted: this.#isWanted(name), type: undefined }
      this.#names.set(name, known)
    }
    this.#last = known
    return known
  }

  #readType(line: string): void {
    const [, family, type] = TYPE_LINE.exec(line) ?? []
    if (family === undefined || type === undefined || this.#types.size >= MAX_SERIES) return
    const before = this.#types.get(family)
    if (before === undefined) this.#types.set(family, type)
    else if (before !== type) {
      this.#report(`Line ${this.#line}: type of ${quote(family)} is ${quote(type)} after ${before}; ${before} is used`)
    }
  }

  #typeOf(name: string): string | null {
    return this.#types.get(name) ?? this.#types.get(name.replace(SUFFIX, '')) ?? null
  }

  #leaveOut(start: number, end: number, why: string): void {
    this.#malformed += 1
    this.#report(`Line ${this.#line} ${why}: ${quote(this.#text.slice(start, Math.min(end, start + MAX_QUOTED + 1)))}`)
  }

  #report(fault: string): void {
    if (this.#faults.length < MAX_FAULTS) this.#faults.push(fault)
  }
}

function isEofLine(text: string, start: number, end: number): boolean {
  return text.startsWith('# EOF', start) && text.slice(start + 5, Math.min(end, start + 7)).trim() === ''
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39
}

/** Letters, digits, `_` and `:`. */
function isNameChar(code: number): boolean {
  return (
    (code >= 0x61 && code <= 0x7a) || code === 0x5f || isDigit(code) || code === 0x3a || (code >= 0x41 && code <= 0x5a)
  )
}

function quote(text: string): string {
  return JSON.stringify(text.length > MAX_QUOTED ? `${text.slice(0, MAX_QUOTED)}…` : text)
}
