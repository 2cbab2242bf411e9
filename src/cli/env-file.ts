// Reads `.env` as users of dotenv write it: an optional `export`, NAME=value or NAME: value, values bare or in one of
// three quotes, comments. A `#` begins a comment at the start of a line, after whitespace, and behind a closing quote;
// elsewhere it belongs to the value, so that a bare password is not cut. What could be read in two ways is a fault
// where it is about a setting of ours, else a remark. Neither ever shows a value: it may be part of a password.

import { readFileSync, statSync } from 'node:fs'

/** Whose a name is; `.env` is often shared with other programs. */
export type NameKind = 'secret' | 'setting' | 'foreign'

export interface EnvFile {
  values: Readonly<Record<string, string | undefined>>
  /** Why a setting cannot be read, one line each; it has no value then. */
  faults: string[]
  /** What is worth knowing, one line each. */
  remarks: string[]
}

const ASSIGNMENT = /^\s*(?:export\s+)?([\w.-]+)(?:\s*=|:(?=\s))(.*)$/s
/** `export NAME` gives no value. */
const EXPORT_ALONE = /^\s*export(?:\s+[\w.-]+)+\s*$/
const QUOTES = ['"', "'", '`']

/** The text of `.env` in the working directory, '' where there is none; a folder of that name is no such file. */
export function readEnvFile(path = '.env'): string {
  const found = statSync(path, { throwIfNoEntry: false })
  if (found === undefined || found.isDirectory()) return ''
  try {
    const bytes = readFileSync(path)
    // Windows' own editors and shells write UTF-16, too.
    const [first, second] = bytes
    const encoding =
      first === 0xff && second === 0xfe ? 'utf-16le' : first === 0xfe && second === 0xff ? 'utf-16be' : ''
    return new TextDecoder(encoding || 'utf-8').decode(bytes)
  } catch (error) {
    throw new Error(`Cannot read ${path}: ${(error as Error).message}; make it readable, or start in another folder`)
  }
}

/** Reads a text of any kind; never throws. Of a name that is set twice the last value counts. */
export function parseEnvFile(text: string, kindOf: (name: string) => NameKind): EnvFile {
  const values: Record<string, string> = Object.create(null)
  const file = { values, faults: [] as string[], remarks: [] as string[] }
  const lines = text.replace(/^\uFEFF/, '').split(/\r\n|[\r\n]/)
  const lineOfName = new Map<string, number>()
  const note = (index: number, isFault: boolean, what: string) =>
    (isFault ? file.faults : file.remarks).push(`.env, line ${index + 1}: ${what}`)

  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!
    if (/^\s*(?:#|$)/.test(line) || EXPORT_ALONE.test(line)) continue
    const [, name, raw = ''] = ASSIGNMENT.exec(line) ?? []
    if (name === undefined) {
      const meant = namesAtStart(line).find((word) => kindOf(word) !== 'foreign')
      note(
        i,
        meant !== undefined,
        `${meant === undefined ? 'is not read' : `${meant} is not set`}: expected NAME=value`,
      )
      continue
    }
    const kind = kindOf(name)
    const isOurs = kind !== 'foreign'
    const lastLine = isOurs ? i : lastLineOf(raw, lines, i, kindOf)
    const value = readValue(lastLine === i ? raw : [raw, ...lines.slice(i + 1, lastLine + 1)].join('\n'))
    if ('fault' in value) {
      // A name that is not ours may be what is left of a password.
      note(i, isOurs, `${isOurs ? name : 'a value'} ${value.fault}`)
      continue
    }
    i = lastLine
    if (kind === 'secret' && value.hasComment) {
      note(i, false, `what follows " #" after ${name} is a comment: put the value in quotes where it belongs to it`)
    }
    const before = lineOfName.get(name)
    if (isOurs && before !== undefined && values[name] !== value.text) {
      note(i, false, `${name} is set again, other than in line ${before + 1}: this one counts; delete one`)
    }
    lineOfName.set(name, i)
    values[name] = value.text
  }
  return file
}

/** The first words of a line that is no assignment, `set` and the like before a name included. */
function namesAtStart(line: string): string[] {
  return (line.match(/[\w.-]+/g) ?? []).slice(0, 2)
}

/** Where a foreign value in quotes ends; the line itself where it would swallow a setting of ours. */
function lastLineOf(raw: string, lines: readonly string[], first: number, kindOf: (name: string) => NameKind): number {
  const quote = raw.trimStart().charAt(0)
  if (!QUOTES.includes(quote) || raw.trimStart().includes(quote, 1)) return first
  for (let i = first + 1; i < lines.length; i++) {
    const [, name] = ASSIGNMENT.exec(lines[i]!) ?? []
    if (name !== undefined && kindOf(name) !== 'foreign') return first
    if (lines[i]!.includes(quote)) return i
  }
  return first
}

type Value = { text: string; hasComment: boolean } | { fault: string }

/** The value behind the equals sign, or why it is none. */
function readValue(raw: string): Value {
  if (raw.includes('\uFFFD')) return { fault: 'holds bytes that are not UTF-8: save .env as UTF-8' }
  if (raw.includes('\0')) return { fault: 'holds a NUL byte: save .env as UTF-8' }
  const rest = raw.trim()
  const quote = rest.charAt(0)
  if (!QUOTES.includes(quote)) {
    const comment = raw.search(/\s#/)
    return comment === -1
      ? { text: rest, hasComment: false }
      : { text: raw.slice(0, comment).trim(), hasComment: raw.slice(0, comment).trim() !== '' }
  }
  const end = rest.indexOf(quote, 1)
  const other = 'or put other quotes (" \' `) around all of it'
  if (end === -1) return { fault: `opens with ${quote}, which is not closed on its line: close it, ${other}` }
  const inner = rest.slice(1, end)
  const after = rest.slice(end + 1)
  const isEscaped = inner.endsWith('\\') && after.includes(quote)
  if (isEscaped || !/^\s*(?:#.*)?$/s.test(after)) {
    return { fault: `has text after its closing ${quote}: put that into the quotes as well, ${other}` }
  }
  // dotenv makes a line end of it, which no setting may hold; in a path of Windows it is a folder's name.
  if (quote === '"' && /\\[nr]/.test(inner)) {
    return { fault: 'holds \\n or \\r in double quotes, a line end: in single quotes a backslash is a backslash' }
  }
  return { text: inner, hasComment: false }
}
