// API tokens: what a token file may say and how it is told what is wrong with it, and that finding a token takes the
// same time whatever was presented.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  allows,
  findToken,
  hashOf,
  lineOf,
  newToken,
  parseTokens,
  type Scope,
} from '../../../src/http/access/api-tokens.ts'
import { makeToken } from './tokens-fixture.ts'

const GOOD = { name: 'a', sha256: '0'.repeat(64), scopes: ['read'], created: '2026-11-22T10:00:00Z' }
const line = (change: Record<string, unknown> = {}) => JSON.stringify({ ...GOOD, ...change })

test('a token is 256 random bits behind its prefix', () => {
  const made = Array.from({ length: 100 }, newToken)
  for (const token of made) assert.match(token, /^pt_[A-Za-z0-9_-]{43}$/)
  assert.equal(new Set(made).size, 100)
})

test('a file is lines of JSON, comments and blank lines; what is written is read again', () => {
  const tokens = [makeToken('box-7', ['ingest']), makeToken('me', ['read', 'admin'], { expiresMs: 1e12, createdMs: 5 })]
  const text = `# of the fleet\n\n${lineOf(tokens[0]!)}\r\n  # note\n${lineOf(tokens[1]!)}`
  const { tokens: read, problems } = parseTokens(text)
  assert.deepEqual(problems, [])
  assert.deepEqual(
    read,
    tokens.map(({ secret, ...token }) => token),
  )
  assert.deepEqual(parseTokens('').tokens, [])
})

test('every way for a line to be wrong is told with its number and what was expected, and never quotes it', () => {
  const secret = newToken()
  const cases: [string, RegExp][] = [
    [secret, /^line 1: is not JSON: expected \{"name"/],
    [`{"name":"${secret}"`, /^line 1: is not JSON/],
    ['[]', /^line 1: is not a JSON object/],
    ['7', /^line 1: is not a JSON object/],
    ['null', /^line 1: is not a JSON object/],
    [line({ name: secret }), /^line 1: name is wrong: expected 1 to 64 letters/],
    [line({ name: '' }), /name is wrong/],
    [line({ name: 'a b' }), /name is wrong/],
    [line({ name: 'x'.repeat(65) }), /name is wrong/],
    [line({ name: 7 }), /name is wrong/],
    [line({ sha256: secret }), /sha256 is wrong: expected the 64 hex digits/],
    [line({ sha256: '0'.repeat(63) }), /sha256 is wrong/],
    [line({ sha256: undefined }), /sha256 is wrong/],
    [line({ scopes: [] }), /scopes is wrong: expected an array of any of read, ingest, admin/],
    [line({ scopes: 'read' }), /scopes is wrong/],
    [line({ scopes: ['write'] }), /scopes is wrong/],
    [line({ created: 'yesterday' }), /created is wrong/],
    [line({ created: undefined }), /created is wrong/],
    [line({ expires: null }), /expires is wrong: expected an instant/],
    [line({ expires: '2026-13-01T00:00:00Z' }), /expires is wrong/],
    [line({ expire: '2030-01-01T00:00:00Z' }), /unknown field "expire": expected name, sha256/],
    [line({ [secret]: 1 }), /unknown field: expected/],
    [`${line()}\n${line({ sha256: '1'.repeat(64) })}`, /^line 2: name "a" is there twice/],
    [`${line()}\n${line({ name: 'b' })}`, /^line 2: sha256 is there twice/],
    [`# note\n\n${line({ scopes: 1 })}`, /^line 3: /],
    [`${' '.repeat(1024 * 1024)} `, /more than 1048576 bytes/],
  ]
  for (const [text, expected] of cases) {
    const { problems } = parseTokens(text)
    assert.equal(problems.length, 1, text.slice(0, 200))
    assert.match(problems[0]!, expected)
    assert.ok(!problems[0]!.includes(secret.slice(0, 12)), problems[0]!)
  }
  const many = Array.from({ length: 1001 }, (_, i) => lineOf(makeToken(`t${i}`, ['read'])))
  assert.match(parseTokens(many.join('\n')).problems.join(), /1001 tokens: expected at most 1000/)
})

test('a token is found by its hash alone, wherever it stands', () => {
  const tokens = Array.from({ length: 5 }, (_, i) => makeToken(`t${i}`, ['read']))
  for (const token of tokens) assert.equal(findToken(tokens, token.secret), token)
  const near = tokens[2]!.secret
  for (const wrong of [
    '',
    'x',
    newToken(),
    near.slice(0, -1),
    `${near}x`,
    near.toUpperCase(),
    hashOf(near).toString('hex'),
  ])
    assert.equal(findToken(tokens, wrong), null)
  assert.equal(findToken([], near), null)
})

test('admin is good for everything, every other scope for itself alone', () => {
  const scopes: Scope[] = ['read', 'ingest', 'admin']
  for (const has of scopes) {
    for (const needed of scopes) {
      assert.equal(allows(makeToken('t', [has]), needed), has === 'admin' || has === needed, `${has} for ${needed}`)
    }
  }
})

test('a right token, the first or the last, and a wrong one take the same time', () => {
  const tokens = Array.from({ length: 200 }, (_, i) => makeToken(`t${i}`, ['read']))
  const presented = {
    first: tokens[0]!.secret,
    last: tokens.at(-1)!.secret,
    wrong: newToken(),
    // Wrong in its last character only.
    near: `${tokens[0]!.secret.slice(0, -1)}${tokens[0]!.secret.endsWith('A') ? 'B' : 'A'}`,
  }
  type Kind = keyof typeof presented
  const kinds = Object.keys(presented) as Kind[]
  const measure = (): Record<Kind, number> => {
    const timesNs = Object.fromEntries(kinds.map((kind) => [kind, [] as number[]])) as Record<Kind, number[]>
    for (let i = 0; i < 2000; i++) {
      for (const kind of kinds) {
        const startedNs = process.hrtime.bigint()
        findToken(tokens, presented[kind])
        timesNs[kind].push(Number(process.hrtime.bigint() - startedNs))
      }
    }
    return Object.fromEntries(kinds.map((kind) => [kind, median(timesNs[kind])])) as Record<Kind, number>
  }
  // The comparison is constant in time by construction; a busy machine may still disturb one measurement.
  let last = ''
  for (let attempt = 0; attempt < 5; attempt++) {
    const medians = measure()
    last = JSON.stringify(medians)
    const all = Object.values(medians)
    if (Math.max(...all) < Math.min(...all) * 1.2) return
  }
  assert.fail(`Medians differ by more than 20 %: ${last}`)
})

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!
}
