// The price book: which rule wins and why the others do not, where a range is cut, how the default changes over time,
// and what the check reports of wrong books: all of it at once, as text, and agreeing with the schema's own validator.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Compile } from 'typebox/compile'
import { defaultsOf, initialBook, succeed, withDefault } from '../../../src/domain/prices/book-defaults.ts'
import { NamePattern } from '../../../src/domain/prices/name-pattern.ts'
import { PriceBook } from '../../../src/domain/prices/price-book.ts'
import { checkPriceBook, problemText } from '../../../src/domain/prices/price-book-check.ts'
import {
  type PriceBookDocument,
  PriceBookSchema,
  type PriceRuleData,
} from '../../../src/domain/prices/price-book-schema.ts'
import { effectivePrice, type PricedSlot } from '../../../src/domain/prices/price-rule.ts'
import { checkValue } from '../../../src/domain/prices/schema-errors.ts'

const rented = (id: string, match: object, more: object = {}) => ({ id, match, kind: 'spot', usd_per_hour: 1, ...more })
const dataOf = (rules: object[], more: object = {}) => ({ currency: 'USD', rules, ...more }) as PriceBookDocument
const bookOf = (rules: object[], more: object = {}) => {
  const { book, problems } = checkPriceBook(dataOf(rules, more))
  assert.deepEqual(problems.map(problemText), [])
  return new PriceBook(book!, 1)
}
const slot = (fields: Partial<PricedSlot> = {}): PricedSlot => ({
  uuid: 'U',
  host: 'h',
  gpuIndex: 0,
  name: 'NVIDIA H100 80GB',
  ...fields,
})
const ms = (iso: string) => Date.parse(iso)

const every = [
  rented('name', { name: '*H100*' }),
  rented('host', { host: 'h' }),
  rented('slot', { host: 'h', gpu_index: 0 }),
  rented('uuid', { uuid: 'U' }),
  rented('home', { uuid: 'U', host: 'h', gpu_index: 0 }),
]

const winners: [name: string, rules: object[], slot: PricedSlot, winner: string | null][] = [
  ['uuid with its slot', every, slot(), 'home'],
  ['uuid in another slot', every, slot({ gpuIndex: 1 }), 'uuid'],
  ['slot', every, slot({ uuid: null }), 'slot'],
  ['host', every, slot({ uuid: 'V', gpuIndex: 3 }), 'host'],
  ['name', every, slot({ uuid: null, host: null }), 'name'],
  ['nothing known', every, slot({ uuid: null, host: null, name: null }), null],
  ['capitals count', every, slot({ uuid: null, host: null, name: 'nvidia h100' }), null],
  [
    'the longer literal',
    [rented('a', { name: '*H100*' }), rented('b', { name: 'NVIDIA*H100*' }), rented('c', { name: '*' })],
    slot(),
    'b',
  ],
  [
    'of equal literals the one with fewer stars',
    [rented('a', { name: 'L4*' }), rented('b', { name: 'L4' })],
    slot({ name: 'L4' }),
    'b',
  ],
  ['then by text', [rented('a', { name: 'L4*' }), rented('b', { name: '*L4' })], slot({ name: 'L4' }), 'b'],
]

for (const [name, rules, gpu, winner] of winners) {
  test(`the most specific rule wins: ${name}`, () => {
    assert.equal(bookOf(rules).ruleAt(gpu, 0)?.id ?? null, winner)
    assert.equal(bookOf(rules.toReversed()).ruleAt(gpu, 0)?.id ?? null, winner)
  })
}

test('name patterns', () => {
  const table: [pattern: string, name: string, matches: boolean][] = [
    ['*', '', true],
    ['A', 'A', true],
    ['A', 'AB', false],
    ['A*', 'A', true],
    ['*B', 'AB', true],
    ['A*A', 'A', false],
    ['A*B*C', 'AxBxC', true],
    ['A*B*C', 'ACB', false],
    ['*aab*', 'aaab', true],
    ['A**B', 'AxB', true],
    ['a.c', 'abc', false],
    ['*a*a*a*a*a*a*a*a*b', 'a'.repeat(5000), false],
  ]
  for (const [pattern, name, matches] of table)
    assert.equal(new NamePattern(pattern).matches(name), matches, `${pattern} on ${name.slice(0, 9)}`)
})

test('validity: from counts, to no longer', () => {
  const book = bookOf([rented('r', { host: 'h' }, { from: '2026-01-01', to: '2026-02-01T00:00:00+01:00' })])
  const table: [string, string | null][] = [
    ['2025-12-31T23:59:59.999Z', null],
    ['2026-01-01T00:00:00Z', 'r'],
    ['2026-01-31T22:59:59.999Z', 'r'],
    ['2026-01-31T23:00:00Z', null],
  ]
  for (const [at, id] of table) assert.equal(book.ruleAt(slot(), ms(at))?.id ?? null, id, at)
})

test('segments are cut where rules and the default change, and only there', () => {
  const book = bookOf(
    [
      rented('old', { host: 'h' }, { to: '2026-01-01' }),
      rented('new', { host: 'h' }, { from: '2026-01-03', usd_per_hour: 2 }),
      rented('slot', { host: 'h', gpu_index: 0 }, { from: '2026-01-04', to: '2026-01-05' }),
      rented('other', { host: 'x' }, { from: '2026-01-02', to: '2026-01-06' }),
    ],
    {
      defaults: [
        { from_ms: ms('2026-01-02'), usd_per_hour: 2 },
        { from_ms: null, usd_per_hour: 1 },
      ],
    },
  )
  const found = book.segments(slot(), ms('2025-12-31'), ms('2026-01-07'))
  assert.deepEqual(
    found.map((part) => [
      new Date(part.fromMs).toISOString().slice(0, 10),
      part.rule?.id ?? null,
      part.defaultNanoUsdPerHour,
    ]),
    [
      ['2025-12-31', 'old', 1_000_000_000n],
      ['2026-01-01', null, 1_000_000_000n],
      ['2026-01-02', null, 2_000_000_000n],
      ['2026-01-03', 'new', 2_000_000_000n],
      ['2026-01-04', 'slot', 2_000_000_000n],
      ['2026-01-05', 'new', 2_000_000_000n],
    ],
  )
  assert.ok(found.every((part, i) => part.toMs === (found[i + 1]?.fromMs ?? ms('2026-01-07'))))
})

test('explain returns which rule won and why each other one did not', () => {
  const book = bookOf([...every, rented('later', { uuid: 'V' }), rented('past', { name: '*' }, { to: '2020-01-01' })])
  const found = book.explain(slot({ gpuIndex: 1 }), ms('2026-01-01'))
  assert.equal(found.rule?.id, 'uuid')
  assert.equal(found.because, 'matches by uuid, the most specific rule in force')
  assert.deepEqual(
    found.others.map((other) => [other.rule.id, other.reason, 'field' in other ? other.field : null]),
    [
      ['name', 'less specific', null],
      ['host', 'less specific', null],
      ['slot', 'does not match', 'gpu_index'],
      ['home', 'does not match', 'gpu_index'],
      ['later', 'does not match', 'uuid'],
      ['past', 'not in force', null],
    ],
  )
})

test('prices: rented as they are, owned from purchase, salvage and life, default and sample without a rule', () => {
  const owned = {
    id: 'o',
    match: { host: 'o' },
    kind: 'owned',
    purchase_usd: 30_000,
    salvage_usd: 3720,
    life_years: 3,
    usd_per_kwh: 0.2,
    pue: 1.5,
  }
  const book = bookOf([rented('r', { host: 'h' }, { usd_per_hour: 2.123456789 }), owned])
  const price = (of: PricedSlot, sampleUsdPerHour: number | null) =>
    effectivePrice(book.ruleAt(of, 0), sampleUsdPerHour, book.defaultAt(0)).nanoUsdPerHour
  assert.equal(price(slot(), 9), 2_123_456_789n)
  assert.equal(price(slot({ host: 'o' }), 9), 1_000_000_000n) // 26,280 USD over 26,280 hours
  assert.equal(price(slot({ host: 'x' }), 9), 9_000_000_000n)
  assert.equal(price(slot({ host: 'x' }), null), 850_000_000n)
  // 700 W for a minute: 0.7 kW × 1.5 × 0.2 USD = 0.21 USD/h.
  assert.equal(book.ruleAt(slot({ host: 'o' }), 0)!.priceWithEnergy(42_000_000_000n, 60_000), 1_210_000_000n)
})

test('a new default counts from its instant on, the past keeps its price', () => {
  const first = initialBook(0.85)
  assert.equal(withDefault(first, 0.85, 1000), null)
  const second = withDefault(first, 0.9, 1000)!
  const third = withDefault(second, 0.85, 2000)!
  assert.equal(withDefault(third, 0.85, 3000), null)
  assert.deepEqual(defaultsOf(third), [
    { from_ms: null, usd_per_hour: 0.85 },
    { from_ms: 1000, usd_per_hour: 0.9 },
    { from_ms: 2000, usd_per_hour: 0.85 },
  ])
  assert.deepEqual(checkPriceBook(third).problems, [])
  const book = new PriceBook(third, 3)
  assert.deepEqual(
    [999, 1000, 1999, 2000].map((at) => book.defaultAt(at)),
    [850_000_000n, 900_000_000n, 900_000_000n, 850_000_000n],
  )
  const file = { currency: 'USD', default_usd_per_hour: 1, rules: [] } as PriceBookDocument
  assert.deepEqual(defaultsOf(succeed(second, file, 5000)).at(-1), { from_ms: 5000, usd_per_hour: 1 })
  assert.deepEqual(defaultsOf(succeed(second, dataOf([]), 5000)), defaultsOf(second))
})

test('which hosts and slots a book has commitments for', () => {
  const from = '2026-01-01'
  const book = bookOf([
    rented('a', { host: 'h', gpu_index: 1 }, { from }),
    rented('b', { uuid: 'U', host: 'h', gpu_index: 0 }, { from, to: '2026-01-02' }),
    rented('c', { host: 'g', gpu_index: 0 }),
    rented('d', { host: 'f' }, { from }),
    rented('e', { uuid: 'V' }, { from }),
  ])
  const range = [ms('2026-01-01'), ms('2026-01-02')] as const
  assert.deepEqual(book.committedHosts(...range), ['h'])
  assert.deepEqual(book.committedIndexes('h', ...range), [0, 1])
  assert.deepEqual(book.committedIndexes('h', ms('2026-01-02'), ms('2026-01-03')), [1])
  assert.deepEqual(book.committedIndexes(null, ...range), [])
})

const owned = (more: object) => ({
  id: 'o',
  match: { host: 'o' },
  kind: 'owned',
  purchase_usd: 10,
  life_hours: 10,
  ...more,
})
const wrong: [name: string, book: unknown, problems: string[]][] = [
  [
    'a host name that stands for two hosts, for itself, twice, and for an alias',
    dataOf([], {
      hosts: [
        { name: 'a', aliases: ['a', 'x', 'x'] },
        { name: 'b', aliases: ['x', 'c'] },
        { name: 'c', aliases: ['y'] },
        { name: 'a', aliases: ['z'] },
      ],
    }),
    [
      '/hosts/3/name: is "a", expected a name that no other host has (it is at /hosts/0/name already)',
      '/hosts/0/aliases/0: is "a", expected a name that stands for no other host, each once (it is at /hosts/0/name already)',
      '/hosts/0/aliases/2: is "x", expected a name that stands for no other host, each once (it is at /hosts/0/aliases/1 already)',
      '/hosts/1/aliases/0: is "x", expected a name that stands for no other host, each once (it is at /hosts/0/aliases/1 already)',
      '/hosts/1/aliases/1: is "c", expected a name that stands for no other host, each once (it is at /hosts/2/name already)',
    ],
  ],
  [
    'host names of wrong types',
    dataOf([], { hosts: [{ name: 7, aliases: [] }, { name: 'a' }, null] }),
    [
      '/hosts/0/name: is 7, expected text of 1 to 256 characters',
      '/hosts/0/aliases: is "a list of 0", expected 1 to 100 entries',
      '/hosts/1/aliases: is missing, expected a list',
      '/hosts/2: is null, expected an object',
    ],
  ],
  [
    'two rules for one host by two of its names',
    dataOf([rented('p', { host: 'h' }), rented('q', { host: 'H' })], { hosts: [{ name: 'h', aliases: ['H'] }] }),
    [
      '/rules/1/from: is missing, expected no overlap with rule "p" for the same GPUs, which is in force until for ever',
    ],
  ],
  ['not an object', [], ['price book: is [], expected an object']],
  ['nothing', {}, ['/currency: is missing, expected USD', '/rules: is missing, expected a list']],
  ['another currency', dataOf([], { currency: 'EUR' }), ['/currency: is "EUR", expected USD']],
  [
    'an unknown field',
    dataOf([], { prices: 1 }),
    [
      '/prices: is 1, expected no such field; there are: currency, default_usd_per_hour, defaults, weights, limits, hosts, rules',
    ],
  ],
  [
    '__proto__',
    JSON.parse('{"currency":"USD","rules":[],"__proto__":{}}'),
    [
      '/__proto__: is {}, expected no such field; there are: currency, default_usd_per_hour, defaults, weights, limits, hosts, rules',
    ],
  ],
  [
    'not a number',
    dataOf([], { default_usd_per_hour: Number.NaN }),
    ['/default_usd_per_hour: is NaN, expected a number from 0 to 1000000'],
  ],
  [
    '1e400',
    dataOf([rented('a', { host: 'h' }, { usd_per_hour: JSON.parse('1e400') })]),
    ['/rules/0/usd_per_hour: is Infinity, expected a number from 0 to 1000000'],
  ],
  [
    'negative',
    dataOf([rented('a', { host: 'h' }, { usd_per_hour: -1 })]),
    ['/rules/0/usd_per_hour: is -1, expected a number from 0 to 1000000'],
  ],
  [
    'a number in quotes',
    dataOf([rented('a', { host: 'h' }, { usd_per_hour: '2' })]),
    ['/rules/0/usd_per_hour: is "2", expected a number from 0 to 1000000'],
  ],
  [
    'an empty match',
    dataOf([rented('a', {})]),
    ['/rules/0/match: is {}, expected at least 1 of: uuid, host, gpu_index, name'],
  ],
  [
    'a match without sense',
    dataOf([rented('a', { gpu_index: 1 })]),
    [
      '/rules/0/match: is {"gpu_index":1}, expected one of: uuid; uuid, host and gpu_index; host and gpu_index; host; name',
    ],
  ],
  [
    'an id used twice',
    dataOf([rented('a', { host: 'h' }), rented('a', { host: 'g' })]),
    ['/rules/1/id: is "a", expected an id that no other rule has (rule 0 has it)'],
  ],
  [
    'a reversed validity',
    dataOf([rented('a', { host: 'h' }, { from: '2026-02-01', to: '2026-02-01' })]),
    ['/rules/0/to: is "2026-02-01", expected an instant after from, which is 2026-02-01'],
  ],
  [
    'no instant',
    dataOf([rented('a', { host: 'h' }, { from: '2026-02-30' })]),
    ['/rules/0/from: is "2026-02-30", expected ISO 8601, as 2026-01-31 or 2026-01-31T00:00:00Z'],
  ],
  [
    'a kind that is none',
    dataOf([rented('a', { host: 'h' }, { kind: 'lease' })]),
    ['/rules/0/kind: is "lease", expected one of: on-demand, spot, reserved, owned'],
  ],
  ['life 0', dataOf([owned({ life_hours: 0 })]), ['/rules/0/life_hours: is 0, expected a number from 1 to 1000000']],
  [
    'no life, two lives',
    dataOf([owned({ life_hours: undefined }), owned({ id: 'p', match: { host: 'p' }, life_years: 1 })]),
    [
      '/rules/0/life_hours: is missing, expected life_hours or life_years',
      '/rules/1/life_years: is 1, expected one of life_hours and life_years, not both',
    ],
  ],
  ['PUE below 1', dataOf([owned({ pue: 0.9 })]), ['/rules/0/pue: is 0.9, expected a number from 1 to 10']],
  [
    'salvage above purchase',
    dataOf([owned({ salvage_usd: 11 })]),
    ['/rules/0/salvage_usd: is 11, expected at most purchase_usd, which is 10'],
  ],
  [
    'overlap',
    dataOf([
      rented('a', { host: 'h' }, { from: '2026-01-02' }),
      rented('b', { host: 'h' }, { from: '2026-01-01', to: '2026-01-03' }),
    ]),
    [
      '/rules/0/from: is "2026-01-02", expected no overlap with rule "b" for the same GPUs, which is in force until 2026-01-03',
    ],
  ],
  [
    'overlap of the same pattern',
    dataOf([rented('a', { name: 'A*' }), rented('b', { name: 'A**' })]),
    [
      '/rules/1/from: is missing, expected no overlap with rule "a" for the same GPUs, which is in force until for ever',
    ],
  ],
  [
    'two defaults',
    dataOf([], { default_usd_per_hour: 1, defaults: [{ from_ms: 5, usd_per_hour: 1 }] }),
    [
      '/default_usd_per_hour: is 1, expected one of this and defaults, not both',
      '/defaults: is [{"from_ms":5,"usd_per_hour":1}], expected an entry with from_ms null, for all time before the others',
    ],
  ],
  ['too many rules', dataOf(Array(10_001).fill(null)), ['/rules: is "a list of 10001", expected 0 to 10000 entries']],
]

for (const [name, book, problems] of wrong) {
  test(`a wrong book is refused with all that is wrong: ${name}`, () => {
    const found = checkPriceBook(book)
    assert.deepEqual(found.problems.map(problemText), problems)
    assert.equal(found.book, null)
  })
}

test('ten mistakes are ten messages, each with its line', () => {
  const book = dataOf(
    [
      rented('a', {}),
      rented('a', { host: 'h' }, { usd_per_hour: -1 }),
      rented('c', { host: 'c' }, { from: 'soon' }),
      owned({ pue: 0, life_hours: -1, salvage_usd: 11 }),
    ],
    { currency: 'usd', weights: { input: -1 }, limits: { max_sample_gap_s: 91 } },
  )
  const found = checkPriceBook(book).problems
  assert.equal(found.length, 10)
  assert.ok(found.every((one) => one.line === null && one.path.endsWith(`/${one.field}`)))
  assert.equal(problemText({ ...found[0]!, line: 109 }), 'line 109: /currency: is "usd", expected USD')
})

test('gaps between rules for the same GPUs are warnings', () => {
  const book = dataOf([
    rented('b', { host: 'h' }, { from: '2026-01-03' }),
    rented('a', { host: 'h' }, { to: '2026-01-02' }),
  ])
  const found = checkPriceBook(book)
  assert.deepEqual(found.warnings.map(problemText), [
    '/rules/0/from: is "2026-01-03", expected no gap after rule "a" for the same GPUs, which ends at 2026-01-02',
  ])
  assert.equal(found.book, book)
})

test('ten thousand rules are checked and asked quickly', () => {
  const rules = Array.from({ length: 10_000 }, (_, i) =>
    rented(
      `r${i}`,
      { host: `h${i % 100}` },
      {
        from: new Date(Math.floor(i / 100) * 3_600_000).toISOString(),
        to: new Date((Math.floor(i / 100) + 1) * 3_600_000).toISOString(),
      },
    ),
  )
  const book = bookOf(rules)
  assert.equal(book.ruleAt(slot({ host: 'h7' }), 50 * 3_600_000)?.id, 'r5007')
  assert.equal(book.segments(slot({ host: 'h7' }), 0, 100 * 3_600_000).length, 100)
})

test('the check of fields agrees with the validator of the schema', () => {
  const validator = Compile(PriceBookSchema)
  const good = dataOf([rented('a', { host: 'h' }), owned({ salvage_usd: 1 })], {
    weights: { input: 1 },
    limits: {},
    defaults: [{ from_ms: null, usd_per_hour: 1 }],
  })
  const odd = fc.constantFrom<unknown>(
    null,
    0,
    -1,
    1.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    '',
    'USD',
    'spot',
    'owned',
    [],
    {},
    true,
    91,
    'x'.repeat(300),
  )
  const paths = [
    'currency',
    'weights',
    'limits',
    'defaults',
    'rules',
    'extra',
    'weights/input',
    'limits/max_sample_gap_s',
    'defaults/0/from_ms',
    'rules/0/kind',
    'rules/0/usd_per_hour',
    'rules/0/match',
    'rules/0/match/gpu_index',
    'rules/1/kind',
    'rules/1/pue',
    'rules/1/id',
    'rules/1/extra',
  ]
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.constantFrom(...paths), odd), { maxLength: 3 }), (changes) => {
      const book = structuredClone(good) as unknown as Record<string, unknown>
      for (const [path, value] of changes) setAt(book, path.split('/'), value)
      assert.equal(checkValue(PriceBookSchema, book, '').length === 0, validator.Check(book))
    }),
    { numRuns: 1000 },
  )
})

test('whatever the value, the check returns and never throws', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (value, rule) => {
      checkPriceBook(value)
      checkPriceBook({
        currency: 'USD',
        rules: [rule, { ...(rule as object), kind: 'owned', match: value }] as PriceRuleData[],
      })
    }),
  )
})

function setAt(root: Record<string, unknown>, path: string[], value: unknown): void {
  let node = root
  for (const part of path.slice(0, -1)) {
    const next = node[part]
    if (typeof next !== 'object' || next === null) return
    node = next as Record<string, unknown>
  }
  node[path.at(-1)!] = value
}

test('a joined host name is priced, committed and explained as its host', () => {
  const more = { hosts: [{ name: 'h', aliases: ['h.example.com', 'H'] }] }
  const book = bookOf([rented('r', { host: 'H', gpu_index: 0 }, { from: '2026-01-01' })], more)
  const at = ms('2026-02-01')
  for (const host of ['h', 'H', 'h.example.com']) {
    assert.equal(book.ruleAt(slot({ host }), at)?.id, 'r', host)
    assert.equal(book.explain(slot({ host }), at).rule?.id, 'r', host)
    assert.deepEqual(book.explain(slot({ host, gpuIndex: 1 }), at).others[0]?.reason, 'does not match')
  }
  assert.deepEqual(book.committedHosts(at, at + 1), ['h'])
  assert.equal(book.ruleAt(slot({ host: 'i' }), at), null)
  assert.deepEqual([...book.hosts.namesOf('h')], ['h', 'h.example.com', 'H'])
  assert.deepEqual([book.hosts.namesOf('H'), book.hosts.namesOf('i'), book.hosts.namesOf(null)], [[], ['i'], [null]])
  assert.deepEqual(
    [book.hosts.cellsOf('H'), book.hosts.cellsOf('h'), book.hosts.cellsOf(null)],
    [['H', 'h'], ['h'], [null]],
  )
})
