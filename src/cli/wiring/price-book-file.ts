// A price book in a file that operators write: YAML or JSON (which is YAML too), every problem with its line. The file
// is followed while it changes; it is read when two looks in a row have found it the same, because the beginning of a
// book that is still being written may be a valid book. A file that is invalid or gone changes nothing: the book before
// it stays effective, and the problems are reported once.

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Document, isNode, isScalar, LineCounter, parseDocument, visit, type YAMLError } from 'yaml'
import { checkPriceBook, type PriceBookCheck } from '../../domain/prices/price-book-check.ts'
import type { PriceBookDocument } from '../../domain/prices/price-book-schema.ts'
import type { Problem } from '../../domain/prices/schema-errors.ts'
import { FileChanges, LOOK_INTERVAL_MS } from '../../runtime/watched-file.ts'
import { syntaxHint, takeSlips, withSpelling } from './yaml-slips.ts'

/** Largest file that is read, bytes. */
const MAX_FILE_BYTES = 8 * 1024 * 1024
/** Problems of a file that are reported one by one: a line may have thousands. */
const MAX_PROBLEMS = 100
/** How much of a line is looked at for a hint. */
const MAX_HINT_CHARACTERS = 1000
/** A changed file is looked at again after this long, milliseconds: writers need a moment. */
const SETTLE_MS = 200

/** Parses and checks a price book's text; each problem with its line. Never throws. */
export function parsePriceBook(text: string): PriceBookCheck {
  try {
    return parse(text)
  } catch (error) {
    // Too many aliases, or nested too deeply.
    const expected = `text that can be read: ${(error as Error).message}`
    return { book: null, problems: [wholeProblem('the price book', expected)], warnings: [] }
  }
}

function parse(text: string): PriceBookCheck {
  const lines = new LineCounter()
  // The core schema has no tags that create objects of classes; merge keys and thousands of aliases are not wanted.
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: false, prettyErrors: false })
  // Warnings are tags that are not known, and were ignored.
  const faults = [...document.errors, ...document.warnings, ...repeatedKeys(document)]
  if (faults.length > 0) {
    const first = faults.slice(0, MAX_PROBLEMS).map((fault) => syntaxProblem(fault, lines, text))
    return { book: null, problems: firstOf(first, faults.length), warnings: [] }
  }
  const { slips, more } = takeSlips(document, MAX_PROBLEMS)
  const lineOf = (path: string): number | undefined => {
    // A missing field has no position: it is missing in the object around it.
    for (let keys = keysOf(path); ; keys = keys.slice(0, -1)) {
      const node = document.getIn(keys, true)
      const start = isNode(node) ? node.range?.[0] : undefined
      if (start !== undefined) return lines.linePos(start).line
      if (keys.length === 0) return undefined
    }
  }
  const { book, problems, warnings } = checkPriceBook(document.toJS({ maxAliasCount: 100 }))
  const slipped = new Set(slips.map(({ path }) => path))
  const others = problems.filter(({ path }) => !slipped.has(path))
  const placed = (found: Problem): Problem => ({ ...found, line: lineOf(found.path) ?? null })
  const ofSlips = slips.map(
    ({ path, offset, value, expected }): Problem => ({
      path,
      line: lines.linePos(offset).line,
      field: path.slice(path.lastIndexOf('/') + 1),
      value,
      expected,
    }),
  )
  // Only of what is reported: to find a place takes as long as the maps around it.
  const first = others
    .slice(0, MAX_PROBLEMS - slips.length)
    .map((found) => withSpelling(placed(found), document.getIn(keysOf(found.path), true)))
  return {
    book: slips.length === 0 ? book : null,
    problems: firstOf([...ofSlips, ...first], slips.length + others.length + more),
    warnings: warnings.map(placed),
  }
}

/** What is reported of so many problems. */
function firstOf(problems: Problem[], count: number): Problem[] {
  if (count <= MAX_PROBLEMS) return problems
  const rest = wholeProblem(`wrong in ${count - MAX_PROBLEMS} more places`, 'those above to be corrected first')
  return [...problems.slice(0, MAX_PROBLEMS), rest]
}

/** Reads and checks a file. Throws an Error that names the cause when it cannot be read at all. */
export function readPriceBook(path: string): PriceBookCheck {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw new Error(`Cannot read the price book "${path}": ${(error as Error).message}`, { cause: error })
  }
  if (bytes.length > MAX_FILE_BYTES) {
    throw new Error(`Cannot read the price book "${path}": it has ${bytes.length} bytes, more than ${MAX_FILE_BYTES}`)
  }
  return parsePriceBook(bytes.toString('utf8'))
}

/**
 * Reads the file now and whenever it has changed, until the signal aborts. `onBook` is called with every valid book
 * (also when only its comments changed); it may be slow and may reject, in which case the same file is tried again at
 * every look. `onProblems` is called with what is wrong, once for the same problems. Calls do not overlap.
 */
export async function watchPriceBook(
  path: string,
  onBook: (book: PriceBookDocument, warnings: readonly Problem[]) => unknown,
  onProblems: (problems: readonly Problem[]) => unknown,
  signal: AbortSignal,
): Promise<void> {
  const changes = new FileChanges([path])
  let reported = ''
  const reportOnce = async (problems: readonly Problem[]) => {
    const text = JSON.stringify(problems)
    if (text !== reported) await onProblems(problems)
    reported = text
  }
  const applyFile = async (): Promise<void> => {
    const { book, problems, warnings } = checkFile(path)
    if (book === null) return reportOnce(problems)
    await onBook(book, warnings)
    reported = ''
  }
  for (let isFirst = true; !signal.aborted; isFirst = false) {
    const change = changes.look()
    if (isFirst || change === 'settled') {
      await applyFile()
        .then(() => changes.markHandled())
        .catch((error: Error) => reportOnce([wholeProblem(path, error.message)]))
        // A report that fails is repeated with the file at the next look.
        .catch(() => {})
    }
    const pauseMs = change === 'changing' ? SETTLE_MS : LOOK_INTERVAL_MS
    await sleep(pauseMs, undefined, { signal }).catch(() => {})
  }
}

/** Reads and checks a file; one that cannot be read is a problem as well. */
function checkFile(path: string): PriceBookCheck {
  try {
    return readPriceBook(path)
  } catch (error) {
    return { book: null, problems: [wholeProblem(path, (error as Error).message)], warnings: [] }
  }
}

/** Keys of a JSON pointer; indexes as numbers. */
function keysOf(path: string): (string | number)[] {
  if (path === '') return []
  const parts = path.slice(1).split('/')
  return parts.map((part) => (/^\d+$/.test(part) ? Number(part) : part.replaceAll('~1', '/').replaceAll('~0', '~')))
}

type Fault = Pick<YAMLError, 'pos' | 'message'>

/** Keys that a map has twice. The library's own check compares each key with all before it. */
function repeatedKeys(document: Document.Parsed): Fault[] {
  const faults: Fault[] = []
  visit(document, {
    Map(_key, { items }) {
      const seen = new Set<unknown>()
      for (const { key } of items) {
        if (!isScalar(key)) continue
        const at = key.range?.[0] ?? 0
        if (seen.has(key.value)) faults.push({ pos: [at, at], message: 'Map keys must be unique' })
        seen.add(key.value)
      }
    },
  })
  return faults
}

function syntaxProblem(error: Fault, lines: LineCounter, text: string): Problem {
  const { line } = lines.linePos(error.pos[0])
  const message = error.message.split('\n', 1)[0]!
  const lineAt = lines.lineStarts[line - 1] ?? 0
  const hint = syntaxHint(text.slice(lineAt, lineAt + MAX_HINT_CHARACTERS).split('\n', 1)[0]!)
  return { path: '', line, field: '', value: 'not YAML or JSON', expected: `valid text: ${message}${hint}` }
}

function wholeProblem(value: string, expected: string): Problem {
  return { path: '', line: null, field: '', value, expected }
}
