// `pertoken tokens`: adds, lists and removes API tokens in API_TOKENS_FILE. A token is shown once, when it is created;
// the file holds its hash. A running server reloads a changed file within a second or two, so the file is only ever
// replaced as a whole. The temporary file that replaces it is also the lock: two commands at once never lose a token.

import {
  closeSync,
  fchownSync,
  fsyncSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import {
  type ApiToken,
  hashOf,
  isBlank,
  isName,
  lineOf,
  NAME_RULE,
  newToken,
  parseTokens,
  readTokens,
  SCOPES,
  type Scope,
} from '../../http/access/api-tokens.ts'
import { textTable } from '../../report/table.ts'
import { type Command, type CommandContext, textFlag, UsageError } from '../command.ts'
import { parseExpiry } from '../parse-instant.ts'

export const tokens: Command = {
  usage: 'add --name NAME --scope SCOPE[,SCOPE] [--expires 90d|12h|TIME] | list | remove NAME',
  flags: {
    name: { value: 'NAME', help: 'For add: who or what it is for; not a secret' },
    scope: { value: 'SCOPES', help: 'For add: read, ingest (posting events), admin (everything), with commas between' },
    expires: { value: 'WHEN', help: 'For add: after so long (90d, 12h), or at an instant; left out: never' },
    json: { help: 'Prints the result as JSON' },
  },
  options: ['API_TOKENS_FILE'],
  details:
    'add prints the token, this one time, on standard output. A running server takes the change over by itself.\n' +
    'Clients send it as Authorization: Bearer TOKEN; commands with --url take it from API_TOKEN or API_TOKEN_FILE.',
  async run(context) {
    const path = context.config.API_TOKENS_FILE
    if (path === null) throw new UsageError('API_TOKENS_FILE is not set: expected the path of the token file')
    const [action = 'list', name, ...more] = context.words
    const isRight = more.length === 0 && (action === 'remove') === (name !== undefined)
    if (isRight && action === 'add') return add(context, path)
    if (isRight && action === 'list') return list(context, path)
    if (isRight && action === 'remove') return remove(context, path, name!)
    throw new UsageError('Expected add --name NAME --scope SCOPES, list or remove NAME\nSee: pertoken tokens --help')
  },
}

function add({ flags, print, say }: CommandContext, path: string): number {
  const nowMs = Date.now()
  const { name, scopes, expiresMs } = wantedToken(flags, nowMs)
  const secret = newToken()
  const token: ApiToken = { name, hash: hashOf(secret), scopes, createdMs: nowMs, expiresMs }
  change(path, (text) => {
    if (tokensOf(text, path).some((other) => other.name === name)) {
      throw new Error(`There is an API token "${name}" in "${path}": remove it first, or take another name`)
    }
    const before = text === '' || text.endsWith('\n') ? text : `${text}\n`
    return `${before}${lineOf(token)}\n`
  })
  if (flags['json'] === true) print(`${JSON.stringify({ ...view(token, nowMs), token: secret })}\n`)
  else {
    say(`API token "${name}" (${scopes.join(', ')}) is in "${path}". It is shown this one time:\n`)
    print(`${secret}\n`)
  }
  return 0
}

function list({ flags, print }: CommandContext, path: string): number {
  const nowMs = Date.now()
  const views = readTokens(path).map((token) => view(token, nowMs))
  if (flags['json'] === true) print(`${JSON.stringify(views, null, 2)}\n`)
  else if (views.length === 0) print(`There is no API token in "${path}": nobody may read or write\n`)
  else {
    const rows = views.map(({ name, scopes, created, expires, state }) => [
      ...[name, scopes.join(','), created, expires ?? 'never', state],
    ])
    print(textTable(['name', 'scopes', 'created', 'expires', 'state'], rows, []))
  }
  return 0
}

function remove({ flags, print, say }: CommandContext, path: string, name: string): number {
  let removed: ApiToken | undefined
  change(path, (text) => {
    removed = tokensOf(text, path).find((token) => token.name === name)
    if (removed === undefined) throw new Error(`There is no API token "${name}" in "${path}": see pertoken tokens list`)
    const isRemoved = (line: string) => !isBlank(line) && (JSON.parse(line) as { name: string }).name === name
    return text
      .split('\n')
      .filter((line) => !isRemoved(line))
      .join('\n')
  })
  if (flags['json'] === true) print(`${JSON.stringify(view(removed!, Date.now()))}\n`)
  else say(`API token "${name}" is removed: a running server refuses it within a second or two\n`)
  return 0
}

/** The token that the flags describe; throws a UsageError that lists everything that is wrong. */
function wantedToken(flags: CommandContext['flags'], nowMs: number): Pick<ApiToken, 'name' | 'scopes' | 'expiresMs'> {
  const problems: string[] = []
  const name = textFlag(flags, 'name')
  if (name === undefined) problems.push('Flag --name is missing: expected who or what the token is for')
  else if (!isName(name)) problems.push(`Flag --name is wrong: expected ${NAME_RULE}`)
  const given = textFlag(flags, 'scope')
  const scopes = (given ?? '').split(',') as Scope[]
  if (!scopes.every((scope, i) => SCOPES.includes(scope) && scopes.indexOf(scope) === i)) {
    const what = given === undefined ? 'missing' : `"${given}"`
    problems.push(`Flag --scope is ${what}: expected any of ${SCOPES.join(', ')}, each once, with commas between`)
  }
  const expires = textFlag(flags, 'expires')
  const expiresMs = expires === undefined ? null : parseExpiry(expires, nowMs)
  if (expiresMs !== null && !(expiresMs > nowMs)) {
    problems.push(`Flag --expires is "${expires}": expected 90d, 12h, or an instant to come like 2030-01-31`)
  }
  if (problems.length > 0) throw new UsageError(`${problems.join('\n')}\nSee: pertoken tokens --help`)
  return { name: name!, scopes, expiresMs }
}

/** The tokens of a file's text; throws when anything in it is wrong, so that such a file is never rewritten. */
function tokensOf(text: string, path: string): ApiToken[] {
  const { tokens: found, problems } = parseTokens(text)
  if (problems.length === 0) return found
  throw new Error(`Cannot change "${path}", correct it first:${problems.map((problem) => `\n  ${problem}`).join('')}`)
}

/**
 * Atomically replaces the file, readable by its owner only, by what `next` returns for its text ('' without a file).
 */
function change(givenPath: string, next: (text: string) => string): void {
  const path = realPathOf(givenPath)
  const nextPath = `${path}.next`
  const file = openNext(nextPath)
  try {
    const old = statSync(path, { throwIfNoEntry: false })
    const text = next(old === undefined ? '' : readFileSync(path, 'utf8'))
    // The owner stays the same: the server may run as another user than the one who adds a token.
    if (old !== undefined && process.getuid?.() === 0) fchownSync(file, old.uid, old.gid)
    writeFileSync(file, text)
    fsyncSync(file)
    renameSync(nextPath, path)
  } catch (error) {
    rmSync(nextPath, { force: true })
    throw error
  } finally {
    closeSync(file)
  }
  const folder = openSync(dirname(path), 'r')
  fsyncSync(folder)
  closeSync(folder)
}

function openNext(path: string): number {
  try {
    return openSync(path, 'wx', 0o600)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code !== 'EEXIST') throw new Error(`Cannot write "${path}": ${message}`, { cause: error })
    throw new Error(`"${path}" is there: another pertoken tokens is at work; if none is, remove that file`)
  }
}

/** The path with links resolved, so that a link to the file stays a link. */
function realPathOf(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}

function view({ name, scopes, createdMs, expiresMs }: ApiToken, nowMs: number) {
  const instant = (ms: number) => new Date(ms).toISOString()
  const expires = expiresMs === null ? null : instant(expiresMs)
  const state = expiresMs !== null && expiresMs <= nowMs ? 'expired' : 'good'
  return { name, scopes, created: instant(createdMs), expires, state }
}
