// A price book in a file that people write: YAML or JSON (which is YAML too), every problem with its line. The file is
// watched for change: by its folder, because editors and config maps replace a file rather than write into it, and by a
// look at it every few seconds, because not every file system tells. A file that is wrong or gone changes nothing: the
// book before it stays in force, and what is wrong is told once.

import { readFileSync, watch } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { isNode, LineCounter, parseDocument, type YAMLError } from 'yaml'
import { checkPriceBook, type PriceBookCheck } from '../../domain/prices/price-book-check.ts'
import type { PriceBookDocument } from '../../domain/prices/price-book-schema.ts'
import type { Problem } from '../../domain/prices/schema-errors.ts'

/** Largest file that is read, bytes. */
const MAX_FILE_BYTES = 8 * 1024 * 1024
/** Writers need a moment: the file is read when it has been quiet this long, milliseconds. */
const SETTLE_MS = 200
/** How often the file is looked at where nobody tells of a change, milliseconds. */
const LOOK_MS = 2000

/** Reads and checks a price book's text; each problem with the line that it is in. Never throws. */
export function parsePriceBook(text: string): PriceBookCheck {
  const lines = new LineCounter()
  // The core schema has no tags that make objects of classes; merge keys and aliases by the thousand are not wanted.
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, prettyErrors: false })
  if (document.errors.length > 0) {
    const problems = document.errors.map((error) => syntaxProblem(error, lines))
    return { book: null, problems, warnings: [] }
  }
  let value: unknown
  try {
    value = document.toJS({ maxAliasCount: 100 })
  } catch (error) {
    const expected = `text that can be read: ${(error as Error).message}`
    return { book: null, problems: [wholeProblem('the price book', expected)], warnings: [] }
  }
  const lineOf = (path: string): number | undefined => {
    // A field that is missing has no place: it is missing in the object around it.
    for (let keys = keysOf(path); ; keys = keys.slice(0, -1)) {
      const node = document.getIn(keys, true)
      const start = isNode(node) ? node.range?.[0] : undefined
      if (start !== undefined) return lines.linePos(start).line
      if (keys.length === 0) return undefined
    }
  }
  return checkPriceBook(value, lineOf)
}

/** Reads and checks a file. Throws an Error that says what is wrong when it cannot be read at all. */
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
 * Reads the file now and whenever it has changed, until the signal aborts. `onBook` is called with every book that is
 * right (also when only its comments changed); it may be slow and may reject, in which case the same file is tried
 * again every two seconds. `onProblems` is told what is wrong, the same only once. Calls come one after the other.
 */
export async function watchPriceBook(
  path: string,
  onBook: (book: PriceBookDocument, warnings: readonly Problem[]) => unknown,
  onProblems: (problems: readonly Problem[]) => unknown,
  signal: AbortSignal,
): Promise<void> {
  let seen = ''
  let told = ''
  let wake = () => {}
  const tellOnce = async (problems: readonly Problem[]) => {
    const text = JSON.stringify(problems)
    if (text !== told) await onProblems(problems)
    told = text
  }
  const takeOver = async (book: PriceBookDocument, warnings: readonly Problem[]) => {
    await onBook(book, warnings)
    told = ''
  }
  const watcher = watchFolder(path, () => wake())
  const onAbort = () => wake()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    while (!signal.aborted) {
      const found = await stateOf(path)
      if (found !== seen && (seen === '' || (await isQuiet(path, found)))) {
        seen = (await deliver(path, takeOver, tellOnce)) ? found : ''
      }
      if (signal.aborted) break
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, LOOK_MS)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  } finally {
    signal.removeEventListener('abort', onAbort)
    watcher?.close()
  }
}

/** Hands over what the file says; whether that is settled. */
async function deliver(
  path: string,
  onBook: (book: PriceBookDocument, warnings: readonly Problem[]) => unknown,
  onProblems: (problems: readonly Problem[]) => unknown,
): Promise<boolean> {
  try {
    const { book, problems, warnings } = readPriceBook(path)
    if (book === null) await onProblems(problems)
    else await onBook(book, warnings)
    return true
  } catch (error) {
    await onProblems([wholeProblem(path, (error as Error).message)])
    // What could not be read is told once, until it changes; what could not be taken over is tried again.
    return (error as Error).message.startsWith('Cannot read the price book')
  }
}

/** Text that changes when the file does: replacement changes the inode, writing the time or the size. */
async function stateOf(path: string): Promise<string> {
  try {
    const { ino, size, mtimeMs } = await stat(path)
    return `${ino} ${size} ${mtimeMs}`
  } catch {
    return 'absent'
  }
}

/** Whether the file is still what it was a moment ago; a writer may be in the middle of it. */
async function isQuiet(path: string, found: string): Promise<boolean> {
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  return (await stateOf(path)) === found
}

/** Tells of changes in the file's folder, where the system can; null where it cannot. */
function watchFolder(path: string, onChange: () => void): { close(): void } | null {
  try {
    const name = basename(path)
    const watcher = watch(dirname(path), (_event, changed) => {
      // Config maps swap a link beside the file: a change of any name but a known other file's may be it.
      if (changed === null || changed === name || changed.startsWith('..')) onChange()
    })
    watcher.on('error', () => watcher.close())
    return watcher
  } catch {
    return null
  }
}

/** Keys of a JSON pointer; list places as numbers. */
function keysOf(path: string): (string | number)[] {
  if (path === '') return []
  const parts = path.slice(1).split('/')
  return parts.map((part) => (/^\d+$/.test(part) ? Number(part) : part.replaceAll('~1', '/').replaceAll('~0', '~')))
}

function syntaxProblem(error: YAMLError, lines: LineCounter): Problem {
  const { line } = lines.linePos(error.pos[0])
  const message = error.message.split('\n', 1)[0]!
  return { path: '', line, field: '', value: 'not YAML or JSON', expected: `valid text: ${message}` }
}

function wholeProblem(value: string, expected: string): Problem {
  return { path: '', line: null, field: '', value, expected }
}
