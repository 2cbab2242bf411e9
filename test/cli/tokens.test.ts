// `pertoken tokens`: what it prints and what it leaves in the file: added, listed, removed, with comments kept, never a
// secret in it, readable by its owner only, and never half written.

import assert from 'node:assert/strict'
import { chmodSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { OPTIONS } from '../../src/cli/options.ts'
import { findToken, readTokens } from '../../src/http/access/api-tokens.ts'
import { pertoken, temporaryDirectory } from '../flows/harness.ts'

/** Runs `pertoken tokens` on a file of the test's own. */
function open(t: TestContext) {
  const directory = temporaryDirectory(t)
  const path = join(directory, 'tokens')
  const run = (...words: string[]) => pertoken(['tokens', ...words], { API_TOKENS_FILE: path }, directory)
  return { directory, path, run }
}

test('a token is added, shown once, listed without it, and removed', (t) => {
  const { path, run } = open(t)
  const added = run('add', '--name', 'box-7', '--scope', 'ingest,read', '--expires', '90d')
  assert.equal(added.status, 0, added.stderr)
  const secret = added.stdout.trim()
  assert.match(secret, /^pt_[A-Za-z0-9_-]{43}$/)
  assert.match(added.stderr, /"box-7" \(ingest, read\) is in .*shown this one time/)
  assert.ok(!readFileSync(path, 'utf8').includes(secret))
  const token = findToken(readTokens(path), secret)!
  assert.deepEqual([token.name, token.scopes], ['box-7', ['ingest', 'read']])
  assert.ok(Math.abs(token.expiresMs! - Date.now() - 90 * 86_400_000) < 60_000)

  const json = run('add', '--name', 'me', '--scope', 'admin', '--json')
  const me = JSON.parse(json.stdout)
  assert.deepEqual([me.name, me.scopes, me.expires, me.state], ['me', ['admin'], null, 'good'])
  assert.notEqual(findToken(readTokens(path), me.token), null)

  const list = run('list')
  assert.match(
    list.stdout,
    /^name +scopes +created +expires +state\nbox-7 +ingest,read +\S+ +\S+Z +good\nme +admin +\S+ +never +good\n$/,
  )
  const listed = JSON.parse(run('list', '--json').stdout)
  assert.deepEqual(
    listed.map(({ name }: { name: string }) => name),
    ['box-7', 'me'],
  )
  for (const shown of [list.stdout, JSON.stringify(listed)]) assert.doesNotMatch(shown, /pt_|[0-9a-f]{64}/)

  assert.equal(run('remove', 'box-7').status, 0)
  assert.equal(findToken(readTokens(path), secret), null)
  assert.equal(JSON.parse(run('remove', 'me', '--json').stdout).name, 'me')
  const empty = run('list')
  assert.deepEqual([empty.status, empty.stdout], [0, `There is no API token in "${path}": nobody may read or write\n`])
})

test('wrong words are all named, with exit code 2', (t) => {
  const { run } = open(t)
  const cases: [string[], RegExp[]][] = [
    [['add'], [/--name is missing/, /--scope is missing: expected any of read, ingest, admin/]],
    [
      ['add', '--name', 'a b', '--scope', 'write'],
      [/--name is wrong: expected 1 to 64/, /--scope is "write"/],
    ],
    [
      ['add', '--name', 'pt_x', '--scope', 'read,read'],
      [/--name is wrong/, /--scope is "read,read"/],
    ],
    [['add', '--name', 'a', '--scope', 'read', '--expires', '2020-01-01'], [/--expires is "2020-01-01": expected 90d/]],
    [['add', '--name', 'a', '--scope', 'read', '--expires', 'soon'], [/--expires is "soon"/]],
    [['add', 'a'], [/Expected add --name/]],
    [['remove'], [/remove NAME/]],
    [['rotate'], [/Expected add/]],
  ]
  for (const [words, expected] of cases) {
    const { status, stderr } = run(...words)
    assert.equal(status, 2, `${words.join(' ')}: ${stderr}`)
    for (const each of expected) assert.match(stderr, each)
  }
  const unset = pertoken(['tokens', 'list'], {})
  assert.deepEqual([unset.status, /API_TOKENS_FILE is not set/.test(unset.stderr)], [2, true])
})

test('what cannot be done is said, with exit code 1, and changes nothing', (t) => {
  const { path, run, directory } = open(t)
  assert.match(run('list').stderr, /does not exist: make it with pertoken tokens add/)
  run('add', '--name', 'a', '--scope', 'read')
  const before = readFileSync(path, 'utf8')
  const cases: [string[], RegExp][] = [
    [['add', '--name', 'a', '--scope', 'admin'], /There is an API token "a".*remove it first/],
    [['remove', 'b'], /There is no API token "b"/],
  ]
  for (const [words, expected] of cases) {
    const { status, stderr } = run(...words)
    assert.deepEqual([status, expected.test(stderr)], [1, true], stderr)
  }
  assert.equal(readFileSync(path, 'utf8'), before)
  writeFileSync(path, `${before}garbage\n`)
  for (const words of [['add', '--name', 'c', '--scope', 'read'], ['remove', 'a'], ['list']]) {
    const { status, stderr } = run(...words)
    assert.deepEqual([status, /line 2: is not JSON/.test(stderr)], [1, true], stderr)
  }
  assert.equal(readFileSync(path, 'utf8'), `${before}garbage\n`)
  assert.deepEqual(readdirSync(directory), ['tokens'])
})

test('the file is replaced as a whole, for its owner only; comments stay, and a link stays one', (t) => {
  const { path, run, directory } = open(t)
  writeFileSync(join(directory, 'real'), '# of the fleet')
  chmodSync(join(directory, 'real'), 0o644)
  symlinkSync('real', path)
  run('add', '--name', 'a', '--scope', 'read')
  run('add', '--name', 'b', '--scope', 'read')
  run('remove', 'a')
  assert.deepEqual(readdirSync(directory).sort(), ['real', 'tokens'])
  assert.equal(statSync(path).mode & 0o777, 0o600)
  const lines = readFileSync(path, 'utf8').split('\n')
  assert.equal(lines[0], '# of the fleet')
  assert.match(lines[1]!, /^\{"name":"b"/)
  assert.deepEqual(lines.slice(2), [''])
})

test('of two commands at once one waits for nobody: it is refused and says why', (t) => {
  const { path, run } = open(t)
  run('add', '--name', 'a', '--scope', 'read')
  writeFileSync(`${path}.next`, '')
  const { status, stderr } = run('add', '--name', 'b', '--scope', 'read')
  assert.equal(status, 1)
  assert.match(stderr, /another pertoken tokens is at work; if none is, remove that file/)
  assert.equal(readTokens(path).length, 1)
})

test('SECURITY.md names settings that exist, and the limits that are theirs', () => {
  const page = readFileSync(new URL('../../docs/SECURITY.md', import.meta.url), 'utf8')
  for (const [name] of page.matchAll(/\b[A-Z]+(_[A-Z]+)+\b/g)) {
    assert.ok(name in OPTIONS || (name.endsWith('_FILE') && name.slice(0, -5) in OPTIONS), name)
  }
  const figure = (value: number) => value.toLocaleString('en-US')
  assert.ok(page.includes(`${figure(OPTIONS.HTTP_RATE_REQUESTS.default)} requests a second`))
  assert.ok(page.includes(`${figure(OPTIONS.HTTP_RATE_EVENTS.default)} events a second`))
})
