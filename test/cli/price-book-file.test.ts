// Price books that people write: every mistake with its line, in YAML and in JSON; and the watching of the file, which
// must survive whatever editors and config maps do to it.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { parsePriceBook, watchPriceBook } from '../../src/cli/wiring/price-book-file.ts'
import { problemText } from '../../src/domain/prices/price-book-check.ts'
import type { PriceBookDocument } from '../../src/domain/prices/price-book-schema.ts'
import type { Problem } from '../../src/domain/prices/schema-errors.ts'

const TEN_MISTAKES = `# ten mistakes
currency: EUR
default_usd_per_hour: -1
colour: blue
weights: { input: lots }
rules:
  - id: a
    match: { host: h1 }
    kind: rented
    usd_per_hour: 1
  - id: b
    match: { host: h1, name: x }
    kind: spot
    usd_per_hour: 1
  - id: b
    match: { host: h2 }
    kind: spot
    usd_per_hour: free
  - id: c
    match: { host: h3 }
    kind: on-demand
    usd_per_hour: 1
    from: yesterday
  - id: d
    match: { host: h4 }
    kind: owned
    purchase_usd: 10
    salvage_usd: 20
    life_years: 1
`

test('a price book with ten mistakes gives ten messages, each with line, field, value and what is allowed', () => {
  const { book, problems } = parsePriceBook(TEN_MISTAKES)
  assert.equal(book, null)
  assert.deepEqual(
    problems.map(({ line, path, value }) => [line, path, value]).sort((a, b) => Number(a[0]) - Number(b[0])),
    [
      [2, '/currency', '"EUR"'],
      [3, '/default_usd_per_hour', '-1'],
      [4, '/colour', '"blue"'],
      [5, '/weights/input', '"lots"'],
      [9, '/rules/0/kind', '"rented"'],
      [12, '/rules/1/match', '{"host":"h1","name":"x"}'],
      [15, '/rules/2/id', '"b"'],
      [18, '/rules/2/usd_per_hour', '"free"'],
      [23, '/rules/3/from', '"yesterday"'],
      [28, '/rules/4/salvage_usd', '20'],
    ],
  )
  for (const problem of problems) assert.match(problemText(problem), /^line \d+: \/\S+: is .+, expected .+/)
})

test('what is missing has the line of the object around it; JSON has lines too', () => {
  const missing = parsePriceBook('currency: USD\nrules:\n  - id: a\n    kind: spot\n    usd_per_hour: 1\n')
  assert.deepEqual(
    missing.problems.map(({ line, path, value }) => [line, path, value]),
    [[3, '/rules/0/match', 'missing']],
  )
  const json = parsePriceBook(
    '{\n "currency": "USD",\n "rules": [\n  {"id": "", "match": {"host": "h"},\n   "kind": "spot", "usd_per_hour": 1}\n ]\n}',
  )
  assert.deepEqual(
    json.problems.map(({ line, path }) => [line, path]),
    [[4, '/rules/0/id']],
  )
  const right = parsePriceBook('{"currency": "USD", "rules": []}')
  assert.deepEqual([right.book, right.problems], [{ currency: 'USD', rules: [] }, []])
})

test('text that is no YAML, repeats a field, or is of another kind is refused with its line; none runs or explodes', () => {
  const bomb = `a: &a [x,x,x,x,x,x,x,x,x,x]\n${['b', 'c', 'd', 'e', 'f'].map((name, i) => `${name}: &${name} [${Array(10).fill(`*${'abcde'[i]}`).join(',')}]`).join('\n')}\n`
  const cases: [string, number | null][] = [
    ['rules: [', 1],
    ['currency: USD\ncurrency: USD\nrules: []', 2],
    ['a: b: c', 1],
    ['', null],
    ['42', null],
    ['- 1', null],
    ['currency: !!js/function "x"\nrules: []', null],
    [bomb, null],
  ]
  for (const [text, line] of cases) {
    const { book, problems } = parsePriceBook(text)
    assert.equal(book, null, text)
    assert.ok(problems.length > 0, text)
    if (line !== null) assert.equal(problems[0]!.line, line, text)
  }
})

/** What a watcher said, in order. */
class Heard {
  readonly said: string[] = []
  readonly #told = new EventTarget()

  book = (book: PriceBookDocument) => this.#add(`book ${book.default_usd_per_hour}`)
  problems = (problems: readonly Problem[]) => this.#add(`${problems.length} problems: ${problems[0]!.expected}`)

  /** Waits until something is said that matches; the test runner's time limit ends a wait in vain. */
  async until(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.said.at(-1) ?? '')) await once(this.#told, 'said')
  }

  #add(text: string): void {
    this.said.push(text)
    this.#told.dispatchEvent(new Event('said'))
  }
}

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'pertoken-book-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

const bookText = (usd: number) => `currency: USD\ndefault_usd_per_hour: ${usd}\nrules: []\n`

test('a watched file is read at start and on each change: written, replaced, gone, back, wrong', {
  timeout: 60_000,
}, async (t) => {
  const path = join(folderOf(t), 'prices.yaml')
  const heard = new Heard()
  const stop = new AbortController()
  writeFileSync(path, bookText(1))
  const watching = watchPriceBook(path, heard.book, heard.problems, stop.signal)
  await heard.until(/book 1/)
  writeFileSync(path, bookText(2))
  await heard.until(/book 2/)
  writeFileSync(`${path}.new`, bookText(3))
  renameSync(`${path}.new`, path)
  await heard.until(/book 3/)
  unlinkSync(path)
  await heard.until(/problems: Cannot read the price book/)
  writeFileSync(path, 'currency: EUR\nrules: []\n')
  await heard.until(/1 problems: USD/)
  writeFileSync(path, bookText(4))
  await heard.until(/book 4/)
  stop.abort()
  await watching
  assert.deepEqual(heard.said.filter((one) => one.startsWith('book')).slice(0, 4), [
    'book 1',
    'book 2',
    'book 3',
    'book 4',
  ])
})

test('a file that is not there yet is waited for, and a link that is swapped is followed', {
  timeout: 60_000,
}, async (t) => {
  const folder = folderOf(t)
  for (const [name, usd] of [
    ['..v1', 1],
    ['..v2', 2],
  ] as const) {
    mkdirSync(join(folder, name))
    writeFileSync(join(folder, name, 'prices.yaml'), bookText(usd))
  }
  const path = join(folder, 'prices.yaml')
  const heard = new Heard()
  const stop = new AbortController()
  const watching = watchPriceBook(path, heard.book, heard.problems, stop.signal)
  await heard.until(/problems: Cannot read/)
  // As Kubernetes mounts config maps: the file is a link through ..data, which is swapped.
  symlinkSync('..v1', join(folder, '..data'))
  symlinkSync('..data/prices.yaml', path)
  await heard.until(/book 1/)
  symlinkSync('..v2', join(folder, '..data_tmp'))
  renameSync(join(folder, '..data_tmp'), join(folder, '..data'))
  await heard.until(/book 2/)
  stop.abort()
  await watching
})

test('a book that could not be taken over is handed over again', { timeout: 60_000 }, async (t) => {
  const path = join(folderOf(t), 'prices.json')
  writeFileSync(path, JSON.stringify({ currency: 'USD', default_usd_per_hour: 1, rules: [] }))
  const heard = new Heard()
  const stop = new AbortController()
  let tries = 0
  const onBook = async (book: PriceBookDocument) => {
    if (++tries === 1) throw new Error('the store is away')
    heard.book(book)
  }
  const watching = watchPriceBook(path, onBook, heard.problems, stop.signal)
  await heard.until(/book 1/)
  stop.abort()
  await watching
  assert.deepEqual(heard.said, ['1 problems: the store is away', 'book 1'])
})
