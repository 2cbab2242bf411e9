// API tokens and the file that holds them (API_TOKENS_FILE): one token a line, as JSON,
//
//   {"name":"box-7","sha256":"64 hex digits","scopes":["ingest"],"created":"2026-11-22T10:00:00Z",
//    "expires":"2027-02-20T10:00:00Z"}
//
// `expires` is optional; blank lines and lines that begin with # are skipped. The file holds no secret: a token is 256
// random bits, so its SHA-256 needs neither salt nor a slow hash, there is nothing to guess. Errors in a file are
// reported by line number and never quote the line, since it may hold the token itself by mistake.

import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { parseIsoMs } from '../../domain/events/timestamp.ts'

/** What a token may allow: all reading, posting events, everything. */
export const SCOPES = ['read', 'ingest', 'admin'] as const
export type Scope = (typeof SCOPES)[number]

export interface ApiToken {
  /** Unique in the file; shown to operators and in logs. */
  name: string
  /** SHA-256 of the token, 32 bytes. */
  hash: Buffer
  scopes: readonly Scope[]
  createdMs: number
  /** First instant at which it is no longer valid; null: never. */
  expiresMs: number | null
}

/** What is allowed as a name, as text for operators. */
export const NAME_RULE = '1 to 64 letters, digits, dots, dashes and underscores, not beginning with pt_'
/** Largest file, bytes, and most tokens in it: each request's token is compared with all of them. */
const MAX_FILE_BYTES = 1024 * 1024
const MAX_TOKENS = 1000
/** Most problems that an error lists. */
const MAX_PROBLEMS = 20
const FIELDS = ['name', 'sha256', 'scopes', 'created', 'expires']

/** A new token: 256 random bits behind a prefix by which secret scanners and operators recognize it. */
export function newToken(): string {
  return `pt_${randomBytes(32).toString('base64url')}`
}

export function hashOf(token: string): Buffer {
  return hash('sha256', token, 'buffer')
}

/**
 * The token of the list that was presented, expired or not; null when it is none of them. Takes the same time for any
 * result: the hash is compared with every entry, each in constant time, and nothing ends the loop early.
 */
export function findToken(tokens: readonly ApiToken[], presented: string): ApiToken | null {
  const presentedHash = hashOf(presented)
  let found: ApiToken | null = null
  for (const token of tokens) if (timingSafeEqual(presentedHash, token.hash)) found = token
  return found
}

/** Whether a token allows what requires this scope; admin allows everything. */
export function allows({ scopes }: ApiToken, needed: Scope): boolean {
  return scopes.includes(needed) || scopes.includes('admin')
}

export function isName(text: string): boolean {
  return /^(?!pt_)[A-Za-z0-9._-]{1,64}$/.test(text)
}

/** Reads the file; throws an Error that lists all that is wrong, a line each. */
export function readTokens(path: string): ApiToken[] {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const hint = code === 'ENOENT' ? 'it does not exist: make it with pertoken tokens add' : `${code}: make it readable`
    throw new Error(`Cannot read the API tokens in "${path}": ${hint}`, { cause: error })
  }
  const { tokens, problems } = parseTokens(text)
  if (problems.length === 0) return tokens
  const more = problems.length > MAX_PROBLEMS ? `\n  and ${problems.length - MAX_PROBLEMS} more` : ''
  const listed = problems.slice(0, MAX_PROBLEMS).map((problem) => `\n  ${problem}`)
  throw new Error(`Cannot use the API tokens in "${path}":${listed.join('')}${more}`)
}

/** All tokens of a file's text and all errors in it, each with its line number; the text is never quoted. */
export function parseTokens(text: string): { tokens: ApiToken[]; problems: string[] } {
  const tokens: ApiToken[] = []
  const problems: string[] = []
  if (text.length > MAX_FILE_BYTES) {
    return { tokens, problems: [`it has more than ${MAX_FILE_BYTES} bytes: expected one token a line`] }
  }
  for (const [index, line] of text.split('\n').entries()) {
    if (isBlank(line)) continue
    const token = parseLine(line)
    if (typeof token === 'string') problems.push(`line ${index + 1}: ${token}`)
    else if (tokens.some(({ name }) => name === token.name)) {
      problems.push(`line ${index + 1}: name "${token.name}" is there twice: expected each once`)
    } else if (tokens.some((other) => other.hash.equals(token.hash))) {
      problems.push(`line ${index + 1}: sha256 is there twice: expected a token of its own for each name`)
    } else tokens.push(token)
  }
  if (tokens.length > MAX_TOKENS) problems.push(`it has ${tokens.length} tokens: expected at most ${MAX_TOKENS}`)
  return { tokens, problems }
}

/** Whether a line holds no token: it is empty or a comment. */
export function isBlank(line: string): boolean {
  return /^\s*(#|$)/.test(line)
}

/** A token as a line of the file, without line end. */
export function lineOf({ name, hash, scopes, createdMs, expiresMs }: ApiToken): string {
  const instant = (ms: number) => new Date(ms).toISOString()
  const expires = expiresMs === null ? {} : { expires: instant(expiresMs) }
  return JSON.stringify({ name, sha256: hash.toString('hex'), scopes, created: instant(createdMs), ...expires })
}

/** The token of one line, or the error in it. */
function parseLine(line: string): ApiToken | string {
  let entry: Record<string, unknown>
  try {
    entry = JSON.parse(line)
  } catch {
    // The parser's own message would quote the line.
    return 'is not JSON: expected {"name":…,"sha256":…,"scopes":[…],"created":…}'
  }
  if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) {
    return 'is not a JSON object: expected one token a line, {"name":…,"sha256":…,"scopes":[…],"created":…}'
  }
  // A misspelt `expires` would make a token that never expires.
  const unknown = Object.keys(entry).find((field) => !FIELDS.includes(field))
  if (unknown !== undefined) {
    const shown = /^[A-Za-z_]{1,32}$/.test(unknown) ? ` "${unknown}"` : ''
    return `has an unknown field${shown}: expected ${FIELDS.join(', ')}`
  }
  const { name, sha256, scopes, created, expires } = entry
  if (typeof name !== 'string' || !isName(name)) return `name is wrong: expected ${NAME_RULE}`
  if (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/i.test(sha256)) {
    return 'sha256 is wrong: expected the 64 hex digits of the token’s SHA-256, as pertoken tokens add writes them'
  }
  if (!areScopes(scopes)) return `scopes is wrong: expected an array of any of ${SCOPES.join(', ')}`
  const createdMs = instantOf(created)
  if (Number.isNaN(createdMs)) return 'created is wrong: expected an instant like 2026-11-22T10:00:00Z'
  const expiresMs = expires === undefined ? null : instantOf(expires)
  if (Number.isNaN(expiresMs)) return 'expires is wrong: expected an instant like 2027-02-20T10:00:00Z, or no expires'
  return { name, hash: Buffer.from(sha256, 'hex'), scopes, createdMs, expiresMs }
}

function areScopes(value: unknown): value is Scope[] {
  return Array.isArray(value) && value.length > 0 && value.every((scope) => SCOPES.includes(scope))
}

function instantOf(value: unknown): number {
  return typeof value === 'string' ? parseIsoMs(value) : Number.NaN
}
