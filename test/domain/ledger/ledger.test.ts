// The ledger's named cases: what one host's minute must come to, each a row whose last column is the outcome. Times are
// seconds from the minute's start, money is in USD; a price of 3.6 USD/h makes a millisecond 10⁻⁶ USD. The random
// fleets are in ledger.property.test.ts, the examples of docs/cost-model.md in cost-model.test.ts.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIsoMs } from '../../../src/domain/events/timestamp.ts'
import { computeCell } from '../../../src/domain/ledger/cell.ts'
import { rowFromJson, rowToJson } from '../../../src/domain/ledger/row-json.ts'
import { AMOUNT_FIELDS, addAmounts, noAmounts, spreadNullIdle, totalNanoUsd } from '../../../src/domain/ledger/rows.ts'
import type { CellRow, TokenTotals } from '../../../src/domain/ledger/types.ts'
import { PriceBook } from '../../../src/domain/prices/price-book.ts'
import type { PriceBookDocument, PriceRuleData } from '../../../src/domain/prices/price-book-schema.ts'
import { cellOf, ledgerRows, type Sample, type Usage } from '../../oracle/ledger-harness.ts'
import { sumRows } from '../../report/rows.ts'

const T0 = Date.UTC(2026, 0, 15, 12, 0)
const MINUTE_MS = 60_000
const HOUR_MS = 3_600_000

let ids = 0
const at = (seconds: number) => new Date(T0 + seconds * 1000)
const sample = (seconds: number, fields: Partial<Sample> = {}): Sample => ({
  _id: `pt1e:${String(ids++).padStart(6, '0')}`,
  ts: at(seconds),
  host: 'h',
  gpu_index: 0,
  utilization: 0.5,
  price_per_hour_usd: 3.6,
  ...fields,
})
const usage = (seconds: number, fields: Partial<Usage> = {}): Usage => ({
  ts: at(seconds),
  host: 'h',
  model: 'm',
  prompt_tokens: 60,
  completion_tokens: 40,
  ...(fields.gpus === undefined ? { gpu_index: 0 } : {}),
  ...fields,
})
const bookOf = (rules: object[] = [], more: Partial<PriceBookDocument> = {}) =>
  new PriceBook({ currency: 'USD', default_usd_per_hour: 7.2, rules: rules as PriceRuleData[], ...more }, 1)
const cell = (samples: Sample[], usages: Usage[] = [], book = bookOf()) =>
  cellOf({ samples, usages }, { host: 'h', startMs: T0 }, book).rows
const usd = (nano: bigint) => Number(nano) / 1e9

/** `model/tenant kind: covered+assumed(+uncovered) ms busy/loaded idle/unallocated(/uncovered) USD basis method` */
function show(row: CellRow): string {
  const isUncovered = row.uncovered_ms > 0n
  const ms = [row.covered_ms, row.assumed_ms, ...(isUncovered ? [row.uncovered_ms] : [])].join('+')
  const money = [row.busy_nano_usd, row.loaded_idle_nano_usd, row.unallocated_nano_usd].map(usd)
  const all = [...money, ...(isUncovered ? [usd(row.uncovered_nano_usd)] : [])].join('/')
  return `${row.gpu_index} ${row.model}/${row.tenant} ${row.price_kind}: ${ms} ms ${all} ${row.basis} ${row.method}`
}

const minute = [sample(0), sample(60)]
const slotRule = { match: { host: 'h', gpu_index: 0 }, kind: 'reserved', usd_per_hour: 3.6 }
const iso = (seconds: number) => at(seconds).toISOString()

const cases: [name: string, samples: Sample[], usages: Usage[], book: PriceBook, rows: string[]][] = [
  [
    'samples G apart cover',
    [sample(-20), sample(70)],
    [],
    bookOf(),
    ['0 null/null sample: 60000+0 ms 0.03/0/0.03 measured none'],
  ],
  ['samples G + 1 ms apart cover nothing', [sample(-20), sample(70.001)], [], bookOf(), []],
  ['a lone sample covers nothing', [sample(30)], [], bookOf(), []],
  [
    'of equal times the first id counts',
    [sample(0), { ...sample(60, { utilization: 1 }), _id: 'b' }, { ...sample(60, { utilization: 0 }), _id: 'a' }],
    [],
    bookOf(),
    ['0 null/null sample: 60000+0 ms 0/0/0.06 measured none'],
  ],
  [
    'utilisation missing: presence, all busy',
    [sample(0), sample(60, { utilization: undefined as never })],
    [],
    bookOf(),
    ['0 null/null sample: 60000+0 ms 0.06/0/0 presence none'],
  ],
  [
    'a sample speaks for the time before it',
    [sample(0, { utilization: 1 }), sample(30, { utilization: 0 }), sample(60, { utilization: 1 })],
    [],
    bookOf(),
    ['0 null/null sample: 60000+0 ms 0.03/0/0.03 measured none'],
  ],
  [
    'a loaded model owns the idle time',
    [sample(0), sample(60, { model_loaded: 'm' })],
    [],
    bookOf(),
    ['0 m/null sample: 60000+0 ms 0.03/0.03/0 measured model-loaded'],
  ],
  [
    '5 % of the memory in use: idle is loaded, of null',
    [sample(0), sample(60, { mem_used_mb: 4000, mem_total_mb: 80_000 })],
    [],
    bookOf(),
    ['0 null/null sample: 60000+0 ms 0.03/0.03/0 measured memory'],
  ],
  [
    'less than 5 %: idle is unallocated',
    [sample(0), sample(60, { mem_used_mb: 3999, mem_total_mb: 80_000 })],
    [],
    bookOf(),
    ['0 null/null sample: 60000+0 ms 0.03/0/0.03 measured none'],
  ],
  [
    'tokens own busy and idle',
    minute,
    [usage(10)],
    bookOf(),
    ['0 m/null sample: 60000+0 ms 0.03/0.03/0 measured weighted-tokens'],
  ],
  [
    'tokens before the first sample: assumed at the nearest price',
    [sample(90)],
    [usage(10)],
    bookOf(),
    ['0 m/null sample: 0+60000 ms 0.06/0/0 assumed weighted-tokens'],
  ],
  [
    'tokens with a sample only beyond G: the default',
    [sample(150)],
    [usage(10)],
    bookOf(),
    ['0 m/null default: 0+60000 ms 0.12/0/0 assumed weighted-tokens'],
  ],
  [
    'half covered, half assumed',
    [sample(30), sample(60)],
    [usage(10)],
    bookOf(),
    ['0 m/null sample: 30000+30000 ms 0.045/0.015/0 mixed weighted-tokens'],
  ],
  [
    'two models on one GPU share by weighted tokens',
    minute,
    [
      usage(10, { model: 'a', prompt_tokens: 100, completion_tokens: 0 }),
      usage(20, { model: 'b', prompt_tokens: 0, completion_tokens: 50 }),
    ],
    bookOf([], { weights: { output: 4 } }),
    [
      '0 a/null sample: 20000+0 ms 0.01/0.01/0 measured weighted-tokens',
      '0 b/null sample: 40000+0 ms 0.02/0.02/0 measured weighted-tokens',
    ],
  ],
  [
    'all weights zero: by requests',
    minute,
    [usage(10, { tenant: 'a', requests: 3 }), usage(20, { tenant: 'b' })],
    bookOf([], { weights: { input: 0, cached: 0, output: 0 } }),
    [
      '0 m/a sample: 45000+0 ms 0.0225/0.0225/0 measured requests',
      '0 m/b sample: 15000+0 ms 0.0075/0.0075/0 measured requests',
    ],
  ],
  [
    'no requests either: by events',
    minute,
    [
      usage(10, { tenant: 'a', requests: 0 }),
      usage(11, { tenant: 'a', requests: 0 }),
      usage(20, { tenant: 'b', requests: 0 }),
    ],
    bookOf([], { weights: { input: 0, cached: 0, output: 0 } }),
    ['0 m/a sample: 40000+0 ms 0.02/0.02/0 measured events', '0 m/b sample: 20000+0 ms 0.01/0.01/0 measured events'],
  ],
  [
    'an event without tokens and requests is none',
    minute,
    [usage(10, { prompt_tokens: 0, completion_tokens: 0, requests: 0 })],
    bookOf(),
    ['0 null/null sample: 60000+0 ms 0.03/0/0.03 measured none'],
  ],
  [
    'the price of the samples changes in mid-minute',
    [sample(0), sample(30), sample(60, { price_per_hour_usd: 7.2 })],
    [],
    bookOf(),
    ['0 null/null sample: 60000+0 ms 0.045/0/0.045 measured none'],
  ],
  [
    'a rule starts in mid-minute',
    minute,
    [],
    bookOf([{ id: 'r', ...slotRule, kind: 'spot', usd_per_hour: 1.8, from: iso(45) }]),
    [
      '0 null/null sample: 45000+0 ms 0.0225/0/0.0225 measured none',
      '0 null/null spot: 15000+0 ms 0.00375/0/0.00375 measured none',
    ],
  ],
  [
    'a rule ends in mid-minute, with tokens: they go with the time',
    minute,
    [usage(10)],
    bookOf([{ id: 'r', match: { host: 'h' }, kind: 'spot', usd_per_hour: 1.8, to: iso(15) }]),
    [
      '0 m/null sample: 45000+0 ms 0.0225/0.0225/0 measured weighted-tokens',
      '0 m/null spot: 15000+0 ms 0.00375/0.00375/0 measured weighted-tokens',
    ],
  ],
  [
    'a slot with a validity and without samples is uncovered',
    [],
    [],
    bookOf([{ id: 'r', ...slotRule, from: iso(-600) }]),
    ['0 null/null reserved: 0+0+60000 ms 0/0/0/0.06 none none'],
  ],
  [
    '... half a minute of it',
    [sample(30), sample(60)],
    [],
    bookOf([{ id: 'r', ...slotRule, from: iso(-600) }]),
    ['0 null/null reserved: 30000+0+30000 ms 0.015/0/0.015/0.03 measured none'],
  ],
  [
    '... up to the end of the validity',
    [],
    [],
    bookOf([{ id: 'r', ...slotRule, from: iso(-600), to: iso(20) }]),
    ['0 null/null reserved: 0+0+20000 ms 0/0/0/0.02 none none'],
  ],
  ['... and not where it has no start', [], [], bookOf([{ id: 'r', ...slotRule, to: iso(600) }]), []],
  [
    '... nor by host alone',
    [],
    [],
    bookOf([{ id: 'r', match: { host: 'h' }, kind: 'spot', usd_per_hour: 1, from: iso(-600) }]),
    [],
  ],
  [
    '... by uuid where a sample within G shows the slot',
    [sample(90, { uuid: 'U' })],
    [],
    bookOf([{ id: 'r', match: { uuid: 'U' }, kind: 'reserved', usd_per_hour: 3.6, from: iso(-600) }]),
    ['0 null/null reserved: 0+0+60000 ms 0/0/0/0.06 none none'],
  ],
  [
    '... and with tokens it is assumed, not uncovered',
    [],
    [usage(5)],
    bookOf([{ id: 'r', ...slotRule, from: iso(-600) }]),
    ['0 m/null reserved: 0+60000 ms 0.06/0/0 assumed weighted-tokens'],
  ],
]

for (const [name, samples, usages, book, rows] of cases) {
  test(name, () => assert.deepEqual(cell(samples.map(defined), usages, book).map(show), rows))
}

test('one model on eight GPUs: integers, the remainder on the lowest index, every GPU its', () => {
  const gpus = [7, 6, 5, 4, 3, 2, 1, 0]
  const samples = gpus.flatMap((gpu_index) => [sample(0, { gpu_index }), sample(60, { gpu_index })])
  const rows = cell(samples, [
    usage(10, { gpus, prompt_tokens: 17, cached_prompt_tokens: 3, completion_tokens: 5 }),
    usage(20, { gpus }),
  ])
  const shares = rows.map((row) =>
    [row.prompt_tokens, row.cached_prompt_tokens, row.completion_tokens, row.requests].map(Number),
  )
  // Event by event: 14 uncached, 3 cached and 5 output; then 60 and 40.
  assert.deepEqual(shares, [[7 + 3 + 11, 3, 5 + 5, 2], ...Array(7).fill([1 + 7, 0, 0 + 5, 0])])
  assert.deepEqual(new Set(rows.map((row) => usd(totalNanoUsd(row)))), new Set([0.06]))
})

test('tokens that no GPU but the lowest gets still make the others the model’s', () => {
  const samples = [0, 1].flatMap((gpu_index) => [sample(0, { gpu_index }), sample(60, { gpu_index })])
  assert.deepEqual(cell(samples, [usage(10, { gpus: [0, 1], prompt_tokens: 1, completion_tokens: 0 })]).map(show), [
    '0 m/null sample: 60000+0 ms 0.03/0.03/0 measured weighted-tokens',
    '1 m/null sample: 60000+0 ms 0.03/0.03/0 measured requests',
  ])
})

test('agents at 1, 30 and 60 s come to the same money', () => {
  const money = [1, 30, 60].map((everyS) => {
    const samples = Array.from({ length: 600 / everyS + 1 }, (_, i) => sample(i * everyS, { model_loaded: 'm' }))
    const rows = ledgerRows({ samples, usages: [usage(125)] }, { fromMs: T0, toMs: T0 + 10 * MINUTE_MS }, bookOf())
    return sumRows(rows.map(({ start: _, host: __, ...row }) => row)).map(show)
  })
  assert.deepEqual(money[0], ['0 m/null sample: 600000+0 ms 0.3/0.3/0 measured mixed'])
  assert.deepEqual(money[1], money[0])
  assert.deepEqual(money[2], money[0])
})

test('a request of two minutes: its first minute is busy, of the loaded model or of none', () => {
  const fleet = (fields: Partial<Sample>) => [0, 60, 120].map((s) => sample(s, { utilization: 1, ...fields }))
  const rows = (fields: Partial<Sample>) =>
    ledgerRows({ samples: fleet(fields), usages: [usage(119)] }, { fromMs: T0, toMs: T0 + 2 * MINUTE_MS }, bookOf())
  assert.deepEqual(rows({ model_loaded: 'm' }).map(show), [
    '0 m/null sample: 60000+0 ms 0.06/0/0 measured model-loaded',
    '0 m/null sample: 60000+0 ms 0.06/0/0 measured weighted-tokens',
  ])
  assert.deepEqual(rows({}).map(show), [
    '0 null/null sample: 60000+0 ms 0.06/0/0 measured none',
    '0 m/null sample: 60000+0 ms 0.06/0/0 measured weighted-tokens',
  ])
})

test('an interval across the edge of a day, month and year is cut there', () => {
  const edge = Date.UTC(2027, 0, 1)
  const samples = [sample(0, { ts: new Date(edge - 30_000) }), sample(0, { ts: new Date(edge + 30_000) })]
  const rows = ledgerRows({ samples, usages: [] }, { fromMs: edge - MINUTE_MS, toMs: edge + MINUTE_MS }, bookOf())
  assert.deepEqual(
    rows.map((row) => [row.start, row.covered_ms]),
    [
      [edge - MINUTE_MS, 30_000n],
      [edge, 30_000n],
    ],
  )
})

test('a token at a leap second’s :60 counts in the minute that follows', () => {
  const ts = new Date(parseIsoMs('2016-12-31T23:59:60Z'))
  const edge = Date.UTC(2017, 0, 1)
  const rows = ledgerRows(
    { samples: [], usages: [usage(0, { ts })] },
    { fromMs: edge - MINUTE_MS, toMs: edge + MINUTE_MS },
    bookOf(),
  )
  assert.deepEqual(
    rows.map((row) => [row.start, row.prompt_tokens]),
    [[edge, 60n]],
  )
})

test('a year of 1,000 GPUs sums exactly beyond 2^53', () => {
  const perHour = 2.500000001
  const price = { price_per_hour_usd: perHour }
  let rows = cell([sample(0, price), sample(60, price)], [usage(10, { prompt_tokens: 1e9, completion_tokens: 1 })])
  const minuteTotal = totalNanoUsd(rows[0]!)
  for (const times of [60, 24, 365, 1000]) rows = sumRows(Array.from({ length: times }, () => rows).flat())
  const minutes = 525_600_000n
  assert.equal(totalNanoUsd(rows[0]!), minuteTotal * minutes)
  assert.ok(totalNanoUsd(rows[0]!) > 2n ** 53n)
  assert.equal(rows[0]!.prompt_tokens, 1_000_000_000n * minutes)
  assert.equal(rowToJson(rows[0]!).prompt_tokens, '525600000000000000')
  assert.deepEqual(rowFromJson(JSON.parse(JSON.stringify(rowToJson(rows[0]!)))), rows[0])
})

test('owned: energy by counter, where it steps back by power, where neither is known not at all', () => {
  const owned = {
    id: 'o',
    match: { host: 'h' },
    kind: 'owned',
    purchase_usd: 36_000,
    life_hours: 10_000,
    usd_per_kwh: 0.5,
    pue: 1.2,
  }
  const energy = (...fields: Partial<Sample>[]) =>
    cell(
      fields.map((one, i) => sample(i * 60, { price_per_hour_usd: 9, ...one })),
      [],
      bookOf([owned]),
    ).map((row) => [usd(totalNanoUsd(row)), row.energy_mj, row.price_kind])
  // 60 s at 600 W are 36 kJ = 0.01 kWh, × 1.2 × 0.5 = 0.006 USD beside 3.6 USD/h.
  assert.deepEqual(energy({ energy_j: 100 }, { energy_j: 36_100, power_w: 1 }), [[0.066, 36_000_000n, 'owned']])
  assert.deepEqual(energy({ energy_j: 200 }, { energy_j: 100, power_w: 600 }), [[0.066, 36_000_000n, 'owned']])
  assert.deepEqual(energy({ power_w: 1 }, { power_w: 600 }), [[0.066, 36_000_000n, 'owned']])
  assert.deepEqual(energy({ energy_j: 100 }, { energy_j: 100, power_w: 600 }), [[0.06, 0n, 'owned']])
  assert.deepEqual(energy({ power_w: 600 }, {}), [[0.06, null, 'owned']])
})

test('names above the limits become other, the ones with the most tokens stay', () => {
  const usages = ['a', 'b', 'c', 'd'].flatMap((tenant, i) =>
    usage(i, { tenant, model: `m${i}`, prompt_tokens: 10 * i, completion_tokens: 1 }),
  )
  const book = bookOf([], { limits: { max_models_per_cell: 2, max_tenants_per_cell: 3 } })
  const capped = cellOf({ samples: minute, usages }, { host: 'h', startMs: T0 }, book)
  assert.deepEqual(
    capped.rows.map((row) => [row.model, row.tenant, Number(row.prompt_tokens)]),
    [
      ['m2', 'c', 20],
      ['m3', 'd', 30],
      ['other', 'b', 10],
      ['other', 'other', 0],
    ],
  )
  assert.equal(capped.overflow, 3)
})

test('totals may come in parts, as BigInt, and with GPUs in any order', () => {
  const counts = (n: number | bigint) => ({
    requests: n,
    uncached_prompt_tokens: n,
    cached_prompt_tokens: 0,
    completion_tokens: n,
  })
  const group = (
    gpus: number[],
    sum: number | bigint,
    each: number | bigint,
    events: number | bigint,
  ): TokenTotals => ({ gpus, model: 'm', tenant: null, events, sum: counts(sum), each: counts(each) })
  const rows = (tokenTotals: TokenTotals[]) =>
    computeCell({ startMs: T0, host: 'h', samples: minute, tokenTotals, book: bookOf() }).rows
  assert.deepEqual(rows([group([0, 1], 3, 1, 1), group([1, 0], 5n, 2n, 1n)]), rows([group([0, 1], 8, 3, 2)]))
})

test('utilization is rounded to 1/10,000 as it is written, not as its double lies', () => {
  // 36,000 USD/h: 10⁻⁴ of a minute is 0.06 USD.
  const cases = [
    [0.00015, 0.12],
    [0.57895, 347.4],
    [0.00014999, 0.06],
  ] as const
  for (const [utilization, busyUsd] of cases) {
    const samples = [0, 60].map((s) => sample(s, { utilization, price_per_hour_usd: 36_000 }))
    const rows = ledgerRows({ samples, usages: [] }, { fromMs: T0, toMs: T0 + MINUTE_MS }, bookOf())
    assert.deepEqual(
      rows.map((row) => usd(row.busy_nano_usd)),
      [busyUsd],
    )
  }
})

test('--idle spread: the idle without a model goes to the hour’s models by busy money, totals stay', () => {
  const samples = [0, 60, 120, 180].map((s) =>
    sample(s, { mem_used_mb: 70_000, mem_total_mb: 80_000, utilization: s === 180 ? 0 : 0.5 }),
  )
  const usages = [
    usage(10, { model: 'a' }),
    usage(70, { model: 'b' }),
    usage(80, { model: 'b', tenant: 't', prompt_tokens: 300, completion_tokens: 0 }),
  ]
  const hour = sumRows(
    ledgerRows({ samples, usages }, { fromMs: T0, toMs: T0 + HOUR_MS }, bookOf()).map(
      ({ start: _, host: __, ...row }) => row,
    ),
  )
  assert.deepEqual(
    hour.map((row) => [row.model, row.tenant, usd(row.loaded_idle_nano_usd)]),
    [
      [null, null, 0.06],
      ['a', null, 0.03],
      ['b', null, 0.0075],
      ['b', 't', 0.0225],
    ],
  )
  const spread = spreadNullIdle(hour)
  assert.deepEqual(
    spread.map((row) => [row.model, row.tenant, usd(row.loaded_idle_nano_usd)]),
    [
      [null, null, 0],
      ['a', null, 0.06],
      ['b', null, 0.015],
      ['b', 't', 0.045],
    ],
  )
  const parts = (rows: typeof hour) => rows.map((row) => [row.input_nano_usd, row.output_nano_usd])
  assert.deepEqual(parts(spread), parts(hour))
})

test('a null host is a host of its own and no host rule is for it', () => {
  const samples = [sample(0, { host: null }), sample(60, { host: null })]
  const book = bookOf([{ id: 'r', match: { host: 'h' }, kind: 'spot', usd_per_hour: 1 }])
  const rows = cellOf({ samples, usages: [] }, { host: null, startMs: T0 }, book).rows
  assert.deepEqual(rows.map(show), ['0 null/null sample: 60000+0 ms 0.03/0/0.03 measured none'])
})

test('amounts of a few units are rounded once, and the parts still close', () => {
  const tiny = { price_per_hour_usd: 0.000000179 }
  const rows = cell(
    [sample(0, tiny), sample(60, tiny)],
    [usage(1, { model: 'a' }), usage(2, { model: 'b' }), usage(3, { model: 'c' })],
  )
  // 179 × 1/60 = 2.98 → 3; busy half 1.49 → 1; the unit of busy and the third of idle go to the first key.
  assert.deepEqual(
    rows.map((row) => [row.busy_nano_usd, row.loaded_idle_nano_usd]),
    [
      [1n, 1n],
      [0n, 1n],
      [0n, 0n],
    ],
  )
})

function defined(one: Sample): Sample {
  return Object.fromEntries(Object.entries(one).filter(([, value]) => value !== undefined)) as Sample
}

test('adding amounts adds every field that adds up', () => {
  const one = Object.fromEntries(AMOUNT_FIELDS.map((field, i) => [field, BigInt(i + 1)]))
  const sum = { ...noAmounts(), ...one }
  addAmounts(sum, { ...noAmounts(), ...one })
  for (const [i, field] of AMOUNT_FIELDS.entries()) assert.equal(sum[field], BigInt(2 * (i + 1)), field)
})
