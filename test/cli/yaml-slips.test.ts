// What YAML takes for something else than its writer meant, in price books: each slip with its line and how to write it,
// beside everything else that is wrong. And 10,000 mutated books: no crash, an outcome each.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parsePriceBook } from '../../src/cli/wiring/price-book-file.ts'
import { checkPriceBook, problemText } from '../../src/domain/prices/price-book-check.ts'

const linesOf = (text: string) => parsePriceBook(text).problems.map(problemText)
/** A book with one rule, its match and its price as written; the match is in line 4, the price in line 6. */
const bookOf = (match: string, price = '2.5') =>
  `currency: USD\nrules:\n  - id: h100\n    match: ${match}\n    kind: on-demand\n    usd_per_hour: ${price}\n`

const SLIPS: [title: string, text: string, expected: RegExp[]][] = [
  [
    'a bare *',
    bookOf('{ name: *H100* }'),
    [/^line 4: \/rules\/0\/match\/name: is \*H100\*, expected quotes.*"\*H100\*"/],
  ],
  ['a bare * in a block', bookOf('\n      name: *H100*'), [/^line 5: .*is \*H100\*, expected quotes/]],
  ['a bare * with more words', bookOf('\n      name: *H100 80GB*'), [/^line 5: .*begins with \* goes in quotes/]],
  ['a bare * alone', bookOf('{ name: * }'), [/^line 4: .*begins with \* goes in quotes/]],
  ['a bare &', bookOf('{ name: &H100 }'), [/^line 4: \/rules\/0\/match\/name: is &H100, expected quotes.*"&H100"/]],
  ['a bare !', bookOf('{ name: !H100 }'), [/^line 4: .*begins with ! goes in quotes/]],
  ['a bare @', bookOf('{ name: @team }'), [/^line 4: .*begins with @ goes in quotes/]],
  ['a bare %', bookOf('{ name: %H100 }'), [/^line 4: .*begins with % goes in quotes/]],
  ['0x10', bookOf('{ host: h }', '0x10'), [/^line 6: .*usd_per_hour: is 0x10, expected a decimal number.*as 16/]],
  ['0o17', bookOf('{ host: h }', '0o17'), [/^line 6: .*usd_per_hour: is 0o17, expected a decimal number.*as 15/]],
  ['a number as text', bookOf('{ host: h }', '"2.50"'), [/^line 6: .*is "2\.50", expected a number.*without quotes/]],
  ['a comma', bookOf('{ host: h }', '2,50'), [/^line 6: .*is "2,50", expected a number.*decimal point/]],
  ['a unit', bookOf('{ host: h }', '$2.50'), [/^line 6: .*is "\$2\.50", expected a number.*digits/]],
  ['text as a number', bookOf('{ host: 10 }'), [/^line 4: \/rules\/0\/match\/host: is 10, expected text.*in quotes/]],
  [
    'text as yes or no',
    bookOf('{ host: true }'),
    [/^line 4: \/rules\/0\/match\/host: is true, expected text.*in quotes/],
  ],
  [
    'several at once, with other mistakes',
    'currency: EUR\nrules:\n  - { id: a, match: { name: *A }, kind: spot, usd_per_hour: 0x1, until: 1 }\n',
    [
      /^line 3: .*name: is \*A/,
      /^line 3: .*usd_per_hour: is 0x1/,
      /^line 1: \/currency: is "EUR"/,
      /until: .*no such field/,
    ],
  ],
]
for (const [title, text, expected] of SLIPS) {
  test(`slip: ${title}`, () => {
    assert.equal(parsePriceBook(text).book, null)
    const lines = linesOf(text)
    assert.equal(lines.length, expected.length, lines.join('\n'))
    for (const [i, pattern] of expected.entries()) assert.match(lines[i]!, pattern)
  })
}

test('a key that a map has twice is refused with its line, in any map and notation', () => {
  const twice = [/^line (\d+): .*expected valid text: Map keys must be unique/]
  for (const [text, line] of [
    [`${bookOf('{ host: h }')}currency: USD\n`, '7'],
    [bookOf('{ host: h, "host": g }'), '4'],
    [bookOf('{ host: h }', '2.5\n    kind: spot'), '7'],
    ['{"currency": "USD",\n"rules": [],\n"rules": []}', '3'],
  ] as const) {
    const lines = linesOf(text)
    assert.equal(twice[0]!.exec(lines[0]!)?.[1], line, lines.join('\n'))
    assert.equal(lines.length, 1)
  }
})

test('references that lead somewhere stay what they are', () => {
  const { book, problems } = parsePriceBook(
    'currency: USD\nrules:\n  - { id: a, match: &h { host: h }, kind: spot, usd_per_hour: 1, to: 2026-01-01 }\n' +
      '  - { id: b, match: *h, kind: spot, usd_per_hour: 2, from: 2026-01-01 }\n',
  )
  assert.deepEqual(problems, [])
  assert.deepEqual(book!.rules[1]!.match, { host: 'h' })
})

test('a wrong kind hides no other mistake of its rule, and adds none', () => {
  const rule = (fields: string) => linesOf(`currency: USD\nrules:\n  - { id: a, match: { host: h }, ${fields} }\n`)
  const paths = (fields: string) => rule(fields).map((line) => /^line 3: \/rules\/0\/(\w+): /.exec(line)?.[1])
  assert.deepEqual(paths('kind: On-Demand, usd_per_hour: "2.50", until: 2026-01-01'), ['kind', 'usd_per_hour', 'until'])
  assert.deepEqual(paths('kind: lease, usd_per_hour: 1'), ['kind'])
  assert.deepEqual(paths('kind: lease'), ['kind'])
  assert.deepEqual(paths('usd_per_hour: -1'), ['kind', 'usd_per_hour'])
  assert.deepEqual(paths('kind: Owned, purchase_usd: 10, salvage_usd: 20'), ['kind', 'salvage_usd', 'life_hours'])
  assert.deepEqual(paths('kind: bought, purchase_usd: x, pue: 0, life_years: 1'), ['kind', 'purchase_usd', 'pue'])
  assert.deepEqual(paths('kind: lease, usd_per_hour: 1, from: soon'), ['kind', 'from'])
})

test('what holds itself, is nested very deeply or refers very often is refused, in time', () => {
  for (const text of [
    'currency: USD\nrules: &r [*r]\n',
    `currency: USD\nrules: ${'['.repeat(50_000)}`,
    `a: &a [x]\nb: [${'*a,'.repeat(50_000)}]`,
    `a: [${'*a,'.repeat(50_000)}]`,
    // Each sign is an error of its own, all of them in one line: 8 to 40 s when each looked at the whole line.
    ']'.repeat(100_000),
    `${bookOf('{ name: x').split('x')[0]}${', '.repeat(50_000)}`,
    `a: [${'@,'.repeat(50_000)}]`,
  ]) {
    const beganMs = performance.now()
    const { book, problems } = parsePriceBook(text)
    assert.equal(book, null)
    assert.ok(problems.length > 0 && problems.length <= 101, `${problems.length} problems`)
    if (problems.length > 100) assert.match(problemText(problems.at(-1)!), /is wrong in \d+ more places, expected/)
    assert.ok(performance.now() - beganMs < 5000, `${performance.now() - beganMs} ms: ${text.slice(0, 40)}`)
  }
})

const RUNS = 10_000
const seed = Number(process.env['FAST_CHECK_SEED'] ?? Date.now() % 2 ** 31)
const BOOK = `currency: USD # of all
default_usd_per_hour: 0.85
weights: { input: 1, output: 4 }
rules:
  - { id: own, match: { host: own-1 }, kind: owned, purchase_usd: 26280, life_years: 3, usd_per_kwh: 0.2 }
  - id: h100
    match: { name: "*H100*" }
    kind: on-demand
    usd_per_hour: 2.5
    from: 2026-01-01
`
const INSERTS = [
  '',
  '*',
  '&',
  '!',
  '@',
  '%',
  '#',
  ' #',
  '"',
  "'",
  '0x',
  '-',
  '- ',
  ': ',
  ':',
  '\n',
  '\t',
  '  ',
  '{',
  '}',
  '[',
  ']',
  ',',
  '~',
  '<<',
  '|',
  '1e999',
  '\0',
  '\uFEFF',
  '__proto__',
  '&a ',
  '*a ',
]

test('10,000 mutated price books: no crash, a book or problems, each with what is expected', (t) => {
  t.diagnostic(`FAST_CHECK_SEED=${seed}`)
  assert.deepEqual(linesOf(BOOK), [])
  const mutation = fc.record({
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    remove: fc.nat(4),
    insert: fc.constantFrom(...INSERTS),
  })
  fc.assert(
    fc.property(fc.array(mutation, { minLength: 1, maxLength: 4 }), (mutations) => {
      const text = mutations.reduce((now, { at, remove, insert }) => {
        const index = Math.floor(at * now.length)
        return now.slice(0, index) + insert + now.slice(index + remove)
      }, BOOK)
      const { book, problems } = parsePriceBook(text)
      assert.equal(book === null, problems.length > 0, JSON.stringify(text))
      for (const { expected, value } of problems) assert.ok(expected !== '' && value !== '', JSON.stringify(text))
      if (book !== null) assert.deepEqual(checkPriceBook(structuredClone(book)).problems, [])
    }),
    { numRuns: RUNS, seed },
  )
})
