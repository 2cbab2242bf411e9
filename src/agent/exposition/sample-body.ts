// What follows the name on a line of metrics: labels, value, and maybe a time and an exemplar, which is not read.

export interface SampleBody {
  labels: ReadonlyMap<string, string>
  /** May be NaN, Infinity or -Infinity. */
  value: number
  /** As it is printed: some exporters print an integer field without and a float field with decimals. */
  valueText: string
  /** Epoch milliseconds, where the page states a time; null: the time of the request. */
  timestampMs: number | null
}

const LABEL = /[ \t]*([a-zA-Z_]\w*)[ \t]*=[ \t]*"([^"\\]*(?:\\[\s\S][^"\\]*)*)"[ \t]*/y
const VALUE = /[ \t]*(\S+)(?:[ \t]+([^\s#]\S*))?[ \t]*(?:#[\s\S]*)?$/y
const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i
const WORDS: Readonly<Record<string, number>> = {
  nan: Number.NaN,
  inf: Number.POSITIVE_INFINITY,
  '+inf': Number.POSITIVE_INFINITY,
  '-inf': Number.NEGATIVE_INFINITY,
}
const NO_LABELS: ReadonlyMap<string, string> = new Map()
/** Times below are seconds (OpenMetrics), others milliseconds: 1e11 ms is in 1973, 1e11 s in the year 5138. */
const SECONDS_BELOW = 1e11

/** What a line holds after its name; a text is the reason why it cannot be read. */
export function readSampleBody(text: string): SampleBody | string {
  let at = 0
  while (text[at] === ' ' || text[at] === '\t') at += 1
  let labels = NO_LABELS
  if (text[at] === '{') {
    const found = labelsAt(text, at + 1)
    if (found === null) return 'has labels that cannot be read'
    labels = found.labels
    at = found.end
  } else if (at === 0) return 'has no space after its name'
  VALUE.lastIndex = at
  const [, valueText, timeText] = VALUE.exec(text) ?? []
  const value = valueText === undefined ? null : numberOf(valueText)
  if (valueText === undefined || value === null) return 'has no value that is a number'
  if (timeText === undefined) return { labels, value, valueText, timestampMs: null }
  const time = numberOf(timeText)
  if (time === null || !Number.isFinite(time)) return 'has a time that is no number'
  return { labels, value, valueText, timestampMs: Math.abs(time) < SECONDS_BELOW ? Math.round(time * 1000) : time }
}

/** Labels up to the closing brace, and the position after it; null: they cannot be read. */
function labelsAt(text: string, start: number): { labels: Map<string, string>; end: number } | null {
  const labels = new Map<string, string>()
  let at = start
  for (;;) {
    LABEL.lastIndex = at
    const found = LABEL.exec(text)
    if (found === null) break
    const [, name, value] = found as unknown as [string, string, string]
    if (labels.has(name)) return null
    labels.set(name, value.includes('\\') ? unescaped(value) : value)
    at = LABEL.lastIndex
    if (text[at] !== ',') break
    at += 1
  }
  while (text[at] === ' ' || text[at] === '\t') at += 1
  return text[at] === '}' ? { labels, end: at + 1 } : null
}

function unescaped(value: string): string {
  return value.replaceAll(/\\(.)/g, (pair, char: string) => (char === 'n' ? '\n' : /["\\]/.test(char) ? char : pair))
}

function numberOf(text: string): number | null {
  return NUMBER.test(text) ? Number(text) : (WORDS[text.toLowerCase()] ?? null)
}
