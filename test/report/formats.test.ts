// Reports as files: RFC 4180, nothing that a spreadsheet runs in the one for people, and FOCUS 1.2 against the column list of the
// specification, which is written down here and not taken from src/.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DAY_MS, HOUR_MS } from '../../src/domain/ledger/buckets.ts'
import { totalNanoUsd } from '../../src/domain/ledger/rows.ts'
import type { CellRow } from '../../src/domain/ledger/types.ts'
import { type CostFigures, figuresOf } from '../../src/report/cost-figures.ts'
import { EMPTY_KEY } from '../../src/report/cost-grouping.ts'
import { type CostQuery, costQuery, GROUPINGS } from '../../src/report/cost-query.ts'
import { costCsv, csvLine, plainNumber, spreadsheetLine } from '../../src/report/csv.ts'
import { FOCUS_COLUMNS, focusFile, focusQuery } from '../../src/report/focus.ts'
import { costTable } from '../../src/report/table.ts'
import { parseCsv } from './parse-csv.ts'
import { groupBuckets, row, START_MS, usedRow } from './rows.ts'

function question(change: object = {}): CostQuery {
  const base = { fromMs: START_MS, toMs: START_MS + 60 * DAY_MS, step: '1d', by: GROUPINGS, idle: 'own' } as const
  return costQuery({ ...base, ...change }) as CostQuery
}

async function* each<T>(items: Iterable<T>): AsyncGenerator<T> {
  yield* items
}

async function text(pieces: AsyncIterable<string>): Promise<string> {
  let all = ''
  for await (const piece of pieces) all += piece
  return all
}

const spanOf = (rows: CellRow[], startMs = START_MS) => [{ startMs, host: 'h1', rows }]

test('CSV cells are quoted where needed, and only for people is text defused that a spreadsheet would run', () => {
  const cases: [string | number | null, string][] = [
    ['plain', 'plain'],
    ['a,b', '"a,b"'],
    ['say "hi"', '"say ""hi"""'],
    ['two\nlines', '"two\nlines"'],
    ['=1+1', "'=1+1"],
    ['+1', "'+1"],
    ['-1', "'-1"],
    ['@cmd', "'@cmd"],
    ['\tx', "'\tx"],
    [' padded ', '" padded "'],
    ['', ''],
    [null, ''],
    [-1.5, '-1.5'],
    [1e-9, '0.000000001'],
    [2.5e21, '2500000000000000000000'],
  ]
  for (const [cell, expected] of cases) {
    assert.equal(spreadsheetLine([cell]), `${expected}\r\n`)
    assert.deepEqual(parseCsv(csvLine([cell])), [[typeof cell === 'number' ? plainNumber(cell) : (cell ?? '')]])
  }
  assert.equal(plainNumber(1.234e-7), '0.0000001234')
})

test('a CSV of cost reads back as the figures', async () => {
  const rows = groupBuckets(question(), spanOf([usedRow({ model: '=a,"b"' }), row({ unallocated_nano_usd: 1n })])).rows
  const [header, ...lines] = parseCsv(await text(costCsv(each(rows))))
  assert.equal(lines.length, 2)
  const expected = rows.map(figuresOf)
  for (const [i, line] of lines.entries()) {
    for (const [j, name] of header!.entries()) {
      const value = expected[i]![name as keyof CostFigures]
      if (name === 'model' && value !== null) assert.equal(line[j], `'${value}`)
      else if (typeof value === 'number') assert.equal(Number(line[j]), value, name)
      else assert.equal(line[j], String(value ?? ''), name)
    }
  }
})

test('a table shows the groupings that were asked for and the totals, and sends no control characters', () => {
  const query = question({ by: ['model'], step: 'all' })
  const { rows } = groupBuckets(
    query,
    spanOf([usedRow({ model: 'a\x1b[2Jb' }), row({ unallocated_nano_usd: 20_000_000n })]),
  )
  const many = usedRow({ prompt_tokens: 1800n })
  const all = figuresOf({ ...rows[0]!, amounts: groupBuckets(query, spanOf([many])).totals })
  const table = costTable(query, rows.map(figuresOf), all)
  const lines = table.trimEnd().split('\n')
  assert.equal(lines.length, 4)
  assert.match(lines[0]!, /^model\s+requests\s+input\s+output\s+busy \$.*\$\/1M\s+\$\/1M busy\s+measured$/)
  assert.match(lines[0]!, /idle, model loaded \$\s+idle, nothing loaded \$\s+total \$\s+not monitored \$/)
  assert.match(lines[1]!, /^\(none\)\s.*\s-\s+-\s+-$/)
  assert.match(lines[2]!, /^a\\u001b\[2Jb\s/)
  assert.match(lines[2]!, /\s0\.0600\s.*\stoo few tokens\s+too few tokens\s+100 %$/, 'not 75 $/1M; the money stays')
  assert.match(lines[3]!, /^total\s.*\s30\.0000\s+15\.0000\s/)
  assert.ok(!table.includes('\x1b'))
})

/** FOCUS 1.2, feature level Mandatory: name, whether it may be null, and its allowed values or format. */
const DATE_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/
const DECIMAL = /^-?\d+(\.\d+)?$/
const ANY = /^.+$/s
const MANDATORY: readonly [string, boolean, RegExp][] = [
  ['BilledCost', false, DECIMAL],
  ['BillingAccountId', false, ANY],
  ['BillingAccountName', true, ANY],
  ['BillingCurrency', false, /^[A-Z]{3}$/],
  ['BillingPeriodEnd', false, DATE_TIME],
  ['BillingPeriodStart', false, DATE_TIME],
  ['ChargeCategory', false, /^(Usage|Purchase|Tax|Credit|Adjustment)$/],
  ['ChargeClass', true, /^Correction$/],
  ['ChargeDescription', true, ANY],
  ['ChargePeriodEnd', false, DATE_TIME],
  ['ChargePeriodStart', false, DATE_TIME],
  ['ContractedCost', false, DECIMAL],
  ['EffectiveCost', false, DECIMAL],
  ['InvoiceIssuerName', false, ANY],
  ['ListCost', false, DECIMAL],
  // Not null for usage that is no correction.
  ['PricingQuantity', false, DECIMAL],
  ['PricingUnit', false, /^(\d+ )?[A-Z][A-Za-z]*s?(-[A-Z][A-Za-z]*s?)?$/],
  ['ProviderName', false, ANY],
  ['PublisherName', false, ANY],
  [
    'ServiceCategory',
    false,
    /^(AI and Machine Learning|Analytics|Business Applications|Compute|Databases|Developer Tools|Multicloud|Identity|Integration|Internet of Things|Management and Governance|Media|Migration|Mobile|Networking|Security|Storage|Web|Other)$/,
  ],
  ['ServiceName', false, ANY],
]

/** Conditional and recommended columns of FOCUS 1.2 that we use. */
const OTHERS: readonly [string, RegExp][] = [
  ['ChargeFrequency', /^(One-Time|Recurring|Usage-Based)$/],
  ['CommitmentDiscountCategory', /^(Spend|Usage)$/],
  ['CommitmentDiscountId', ANY],
  ['CommitmentDiscountQuantity', DECIMAL],
  ['CommitmentDiscountStatus', /^(Used|Unused)$/],
  ['CommitmentDiscountType', ANY],
  ['CommitmentDiscountUnit', /^Hours$/],
  ['ConsumedQuantity', DECIMAL],
  ['ConsumedUnit', ANY],
  ['PricingCategory', /^(Standard|Dynamic|Committed|Other)$/],
  ['ResourceId', ANY],
  ['ResourceName', ANY],
  ['ResourceType', ANY],
  ['ServiceSubcategory', /^Generative AI$/],
  ['SubAccountId', ANY],
  ['SubAccountName', ANY],
  ['Tags', /^\{.*\}$/s],
]

const FLEET = [
  usedRow({ price_kind: 'owned', gpu_uuid: 'GPU-1' }),
  usedRow({ price_kind: 'spot', gpu_index: 1, model: '=x', tenant: null, covered_ms: 20_000n, assumed_ms: 7n }),
  row({
    price_kind: 'reserved',
    gpu_index: 2,
    covered_ms: 30_000n,
    unallocated_nano_usd: 9n,
    uncovered_ms: 30_000n,
    uncovered_nano_usd: 11n,
  }),
  row({ price_kind: 'default', gpu_index: 3, model: 'free', requests: 1n, covered_ms: 60_000n }),
]

async function focusRows(query: CostQuery, spans = spanOf(FLEET), isFinal = true, commitment: string | null = null) {
  const { rows, totals } = groupBuckets(focusQuery(query), spans)
  const [header, ...lines] = parseCsv(await text(focusFile(each(rows), { isFinal, commitmentOf: () => commitment })))
  const records = lines.map((line) => Object.fromEntries(header!.map((name, i) => [name, line[i]!])))
  return { header: header!, records, totals, rows }
}

test('a FOCUS file has each mandatory column with allowed values, own columns begin with x_, and all are known', async () => {
  const { header, records } = await focusRows(question())
  assert.deepEqual(header, FOCUS_COLUMNS)
  assert.equal(new Set(header).size, header.length)
  assert.equal(MANDATORY.length, 21)
  for (const [name] of MANDATORY) assert.ok(header.includes(name), `${name} is missing`)
  const known = new Set([...MANDATORY, ...OTHERS].map(([name]) => name))
  for (const name of header) assert.ok(known.has(name) || name.startsWith('x_'), `${name} is no column of FOCUS 1.2`)
  assert.ok(records.length > 0)
  for (const record of records) {
    for (const [name, allowsNull, format] of MANDATORY) {
      if (record[name] !== '' || !allowsNull) assert.match(record[name]!, format, name)
    }
    for (const [name, format] of OTHERS) if (record[name] !== '') assert.match(record[name]!, format, name)
    assert.ok(record['BillingPeriodStart']! <= record['ChargePeriodStart']!)
    assert.ok(record['ChargePeriodEnd']! <= record['BillingPeriodEnd']!)
  }
})

test('idle and uncovered money are FOCUS rows of their own, and EffectiveCost adds up to all that was paid', async () => {
  const { records, totals } = await focusRows(question())
  const of = (change: Record<string, string>) =>
    records.filter((record) => Object.entries(change).every(([name, value]) => record[name] === value))
  assert.deepEqual(
    records.map((record) => [record['x_PriceKind'], record['x_ChargeKind'], record['EffectiveCost']]).sort(),
    [
      ['default', 'busy', '0'],
      ['owned', 'busy', '0.03'],
      ['owned', 'loaded_idle', '0.03'],
      ['reserved', 'unallocated', '0.000000009'],
      ['reserved', 'uncovered', '0.000000011'],
      ['spot', 'busy', '0.03'],
      ['spot', 'loaded_idle', '0.03'],
    ],
  )
  const sum = (name: string) =>
    records.reduce((all, record) => all + BigInt(Math.round(Number(record[name]) * 1e9)), 0n)
  assert.equal(sum('EffectiveCost'), totalNanoUsd(totals) + totals.uncovered_nano_usd)
  assert.equal(sum('x_IdleCost'), totals.loaded_idle_nano_usd + totals.unallocated_nano_usd + totals.uncovered_nano_usd)
  const hours = records.reduce((all, record) => all + Number(record['PricingQuantity']), 0)
  const paidMs = Number(totals.covered_ms + totals.assumed_ms + totals.uncovered_ms)
  assert.ok(Math.abs(hours - paidMs / HOUR_MS) < 1e-12)
  for (const name of ['x_InputTokens', 'x_OutputTokens', 'x_Requests']) {
    assert.equal(of({ x_ChargeKind: 'loaded_idle' })[0]![name], '0')
  }
  const [owned] = of({ x_PriceKind: 'owned', x_ChargeKind: 'busy' })
  assert.deepEqual([owned!['BilledCost'], owned!['PricingCategory'], owned!['ResourceId']], ['0', 'Other', 'GPU-1'])
  assert.deepEqual(
    [owned!['ConsumedQuantity'], owned!['ConsumedUnit'], owned!['SubAccountId']],
    ['800', 'Tokens', 'chat'],
  )
  const [spot] = of({ x_PriceKind: 'spot', x_ChargeKind: 'busy' })
  assert.deepEqual([spot!['BilledCost'], spot!['PricingCategory'], spot!['x_Model']], ['0.03', 'Dynamic', '=x'])
  assert.deepEqual(JSON.parse(spot!['Tags']!), { 'pertoken/model': '=x', 'pertoken/host': 'h1' })
})

test('FOCUS is for programs: ids and names are as they were reported, in every column', async () => {
  const names = { model: '@cf/meta/llama', tenant: '-team', gpu_uuid: '=GPU-1' }
  const { records } = await focusRows(question(), [{ startMs: START_MS, host: '+h1', rows: [usedRow(names)] }])
  for (const record of records) {
    assert.deepEqual(
      ['x_Model', 'SubAccountId', 'SubAccountName', 'ResourceId', 'ResourceName', 'x_Host'].map((name) => record[name]),
      ['@cf/meta/llama', '-team', '-team', '=GPU-1', '+h1/0', '+h1'],
    )
    const tags = { 'pertoken/model': '@cf/meta/llama', 'pertoken/tenant': '-team', 'pertoken/host': '+h1' }
    assert.deepEqual(JSON.parse(record['Tags']!), tags)
  }
})

test('FOCUS 1.2: no name repeats an id, nothing is Committed without its commitment, each tag has a prefix', async () => {
  const { records } = await focusRows(question())
  const withoutUuid = records.filter((record) => record['x_GpuIndex'] === '2')
  assert.deepEqual(
    withoutUuid.map((record) => [record['ResourceId'], record['ResourceName'], record['PricingCategory']]),
    [
      ['h1/2', '', 'Other'],
      ['h1/2', '', 'Other'],
    ],
  )
  for (const record of records) {
    assert.ok(record['ResourceId'] !== record['ResourceName'] || record['ResourceId'] === '')
    assert.ok(record['PricingCategory'] !== 'Committed' || (record['CommitmentDiscountId'] ?? '') !== '')
    for (const tag of Object.keys(JSON.parse(record['Tags']!))) assert.match(tag, /^pertoken\//)
  }
})

test('FOCUS: a reserved row of one commitment is Committed and has all that such a row must have, no other row any', async () => {
  const { records } = await focusRows(question(), spanOf(FLEET), true, 'ours-2026')
  const columns = ['PricingCategory', 'CommitmentDiscountId', 'CommitmentDiscountCategory', 'CommitmentDiscountType']
  const more = ['CommitmentDiscountStatus', 'CommitmentDiscountQuantity', 'CommitmentDiscountUnit']
  const found = new Map(
    records.map((one) => [
      `${one['x_PriceKind']} ${one['x_ChargeKind']}`,
      [...columns, ...more].map((name) => one[name]),
    ]),
  )
  const committed = ['Committed', 'ours-2026', 'Usage', 'Reservation']
  assert.deepEqual(found.get('reserved unallocated'), [...committed, 'Used', '0.008333333333333333', 'Hours'])
  assert.deepEqual(found.get('reserved uncovered'), [...committed, 'Unused', '0.008333333333333333', 'Hours'])
  for (const [kind, [category, ...rest]] of found) {
    if (kind.startsWith('reserved')) continue
    assert.notEqual(category, 'Committed', kind)
    assert.deepEqual(rest, ['', '', '', '', '', ''], kind)
  }
})

test('a FOCUS file states in each row whether it is final', async () => {
  for (const isFinal of [true, false]) {
    const { records } = await focusRows(question(), spanOf(FLEET), isFinal)
    assert.deepEqual([...new Set(records.map((record) => record['x_Final']))], [String(isFinal)])
  }
})

test('reasons are ASCII, as whatever reads an export may be', () => {
  const keys = [usedRow({ prompt_tokens: 0n, completion_tokens: 0n }), row({ unallocated_nano_usd: 1n }), row({})]
  for (const amounts of [...keys, row({ uncovered_nano_usd: 1n })]) {
    const { reason } = figuresOf({ startMs: 0, endMs: 0, key: EMPTY_KEY, amounts })
    assert.match(reason!, /^[ -~]+$/)
  }
})

test('FOCUS charges of a whole range are cut at months, and have their price kind without being grouped by it', async () => {
  const spans = [
    ...spanOf([usedRow({ price_kind: 'owned' })]),
    ...spanOf([usedRow({ price_kind: 'owned' })], START_MS + 35 * DAY_MS),
  ]
  const { records } = await focusRows(question({ step: 'all', by: ['model'] }), spans)
  const busy = records.filter((record) => record['x_ChargeKind'] === 'busy')
  assert.deepEqual(
    busy.map((record) => [
      record['ChargePeriodStart'],
      record['ChargePeriodEnd'],
      record['BillingPeriodStart'],
      record['BilledCost'],
    ]),
    [
      ['2026-06-01T00:00:00Z', '2026-07-01T00:00:00Z', '2026-06-01T00:00:00Z', '0'],
      ['2026-07-01T00:00:00Z', '2026-07-31T00:00:00Z', '2026-07-01T00:00:00Z', '0'],
    ],
  )
  assert.ok(busy.every((record) => record['ResourceId'] === '' && record['ResourceType'] === ''))
})
