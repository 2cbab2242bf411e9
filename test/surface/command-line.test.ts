// The command line as it is published: the help of every command, all settings with their defaults, exit codes, the
// reason codes of rejected records. Everything comes from bin/pertoken.js, run as users run it: with an empty
// environment and no `.env`.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { assertGolden, goldenText } from './golden.ts'

const BIN = new URL('../../bin/pertoken.js', import.meta.url).pathname
const ROOT = new URL('../../', import.meta.url).pathname
const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
const directory = mkdtempSync(join(tmpdir(), 'pertoken-surface-'))
after(() => rmSync(directory, { recursive: true, force: true }))

interface Ended {
  status: number
  stdout: string
  stderr: string
}

/** Runs a command to its end. The compile cache only makes the many short processes start faster. */
function run(...words: string[]): Promise<Ended> {
  const env = { PATH: process.env['PATH'] ?? '', HOME: directory, NODE_COMPILE_CACHE: join(directory, 'cache') }
  return new Promise((resolve) => {
    execFile(process.execPath, [BIN, ...words], { env, cwd: directory, timeout: 60_000 }, (error, stdout, stderr) =>
      resolve({ status: error === null ? 0 : Number(error.code ?? -1), stdout, stderr }),
    )
  })
}

/** Runs commands two at a time; results are in order. */
async function runAll(all: readonly (readonly string[])[]): Promise<Ended[]> {
  const results: Ended[] = []
  let next = 0
  const worker = async () => {
    for (let i = next++; i < all.length; i = next++) results[i] = await run(...all[i]!)
  }
  await Promise.all([worker(), worker()])
  return results
}

test('--help of the program and of every command', async () => {
  const overview = await run('--help')
  assert.equal(overview.status, 0, overview.stderr)
  const names = [...overview.stdout.matchAll(/^ {2}([a-z-]+) /gm)].map(([, name]) => name!)
  assert.ok(names.length > 10, overview.stdout)
  const helps = await runAll(names.map((name) => [name, '--help']))
  for (const { status, stderr } of helps) assert.equal(status, 0, stderr)
  const parts = [`$ pertoken --help\n${overview.stdout.replaceAll(version, 'VERSION')}`]
  for (const [i, name] of names.entries()) parts.push(`$ pertoken ${name} --help\n${helps[i]!.stdout}`)
  assertGolden('help.txt', parts.join('\n'))
})

test('config --print: every setting with its unit, default, source and help', async () => {
  const [text, json] = await runAll([
    ['config', '--print'],
    ['config', '--print', '--json'],
  ])
  assert.deepEqual([text!.status, json!.status], [0, 0], text!.stderr + json!.stderr)
  // The only value that depends on the machine, once padded to a column and once within the text.
  const padded = text!.stdout.replace(/^HOSTNAME=\S+ +#/m, 'HOSTNAME=MACHINE #')
  assertGolden('config.txt', padded.replaceAll(`default ${hostname()}.`, 'default MACHINE.'))
  assertGolden('config-json.txt', json!.stdout.replaceAll(JSON.stringify(hostname()), '"MACHINE"'))
})

test('exit codes', async () => {
  const closed = ['--url', 'http://127.0.0.1:1']
  const commands = [
    [],
    ['--help'],
    ['help'],
    ['-h'],
    ['--version'],
    ['-v'],
    ['no-such-command'],
    ['config'],
    ['config', '--print'],
    ['config', '--print', '--port', '-1'],
    ['config', '--no-such-flag'],
    ['up', '--port'],
    ['up', '--demo', '--kafka-bootstrap', 'localhost:1'],
    ['processor', '--from', 'never'],
    ['agent', 'a-word'],
    ['replay'],
    ['replay', 'no-such-file'],
    ['topics', 'no-such-word'],
    ['topics', 'describe'],
    ['report', '--by', 'nothing'],
    ['report', ...closed],
    ['report', '--from', '2026-01-01', '--to', '2026-01-02'],
    ['prices', 'no-such-word'],
    ['prices', 'list'],
    ['prices', 'set', 'no-such-file'],
    ['prices', 'explain', '--gpu', '0'],
    ['reprice'],
    ['reprice', '--from', '2026-01-01', '--to', '2026-01-02'],
    ['verify', '--from', '2026-01-01', '--to', '2026-01-02'],
    ['verify', '--from', 'never'],
    ['tokens'],
    ['tokens', 'list', '--api-tokens-file', 'no-such-file'],
    ['tokens', 'add', '--api-tokens-file', 'made'],
    ['tokens', 'add', '--api-tokens-file', 'made', '--name', 'one', '--scope', 'read'],
    ['tokens', 'remove', 'two', '--api-tokens-file', 'made-later'],
    ['dead-letters', 'list'],
    ['dead-letters', 'show', 'no-such-id'],
    ['dead-letters', 'redrive', 'no-such-id'],
    ['dead-letters', 'redrive'],
    ['dead-letters', 'list', '--reason', 'no-such-code'],
  ]
  const results = await runAll(commands)
  const lines = commands.map((words, i) => `${results[i]!.status}  ${['pertoken', ...words].join(' ')}\n`)
  assertGolden('exit-codes.txt', lines.join(''))
})

test('reason codes of rejected records', async () => {
  const { status, stderr } = await run('dead-letters', 'list', '--reason', 'no-such-code')
  assert.equal(status, 2)
  const [, codes] = /expected one of ([a-z0-9_, ]+)/.exec(stderr) ?? []
  assertGolden('reason-codes.txt', codes!.split(', ').join('\n'))
})

/** Last parts of `urn:pertoken:problem:…`, which have a title each. */
const HTTP_PROBLEMS = [
  'bad-request',
  'bad-parameter',
  'bad-event',
  'bad-price-book',
  'unauthorized',
  'missing-scope',
  'too-many-requests',
  'forbidden',
  'not-found',
  'method-not-allowed',
  'too-large',
  'unsupported-media-type',
  'log-unavailable',
  'store-unavailable',
  'overloaded',
  'timeout',
  'internal',
]

// No command and no route lists these, and most need a broken broker to appear, so the sources are searched for them as
// literals: every code of the golden file must be there, and every literal after `code:` must be in the golden file.
test('codes of /health problems, parts of the agent’s, and types of HTTP problems with their titles', () => {
  const source = globSync('src/**/*.ts', { cwd: ROOT })
    .map((path) => readFileSync(join(ROOT, path), 'utf8').replaceAll(/^\s*\/\/.*$/gm, ''))
    .join('\n')
  const found = (pattern: RegExp) =>
    [...source.matchAll(pattern)].flatMap(([text]) => text.match(/(?<=')[a-z_-]+(?=')/g)!)
  const tables = {
    '/health of a processor': found(/\bcode: (?:\| )?'[a-z_]+'(?:\s*\| '[a-z_]+')*/g),
    '/health of an agent': found(/\breport\(\s*'[a-z-]+'/g),
  }
  const golden = goldenText('problem-codes.txt')
  const lines = Object.entries(tables).flatMap(([table, codes]) => {
    const known = [...golden.matchAll(/^(.+): (\S+)$/gm)]
      .filter(([, name]) => name === table)
      .map(([, , code]) => code!)
    const kept = known.filter((code) => source.includes(`'${code}'`))
    return [...new Set([...codes, ...kept])].sort().map((code) => `${table}: ${code}\n`)
  })
  for (const code of HTTP_PROBLEMS) {
    const [, title] = new RegExp(`[\\s{]'?${code}'?: '([A-Z][^']*)'`).exec(source) ?? []
    lines.push(`urn:pertoken:problem:${code} is "${title ?? '(not found)'}"\n`)
  }
  assertGolden('problem-codes.txt', lines.join(''))
})

test('the JSON Schemas', () => {
  const names = globSync('*.json', { cwd: join(ROOT, 'docs/schemas') }).sort()
  const parts = names.map((name) => `$ cat schemas/${name}\n${readFileSync(join(ROOT, 'docs/schemas', name), 'utf8')}`)
  assertGolden('schemas.txt', parts.join('\n'))
})
