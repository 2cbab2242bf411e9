// Reports as pure functions: which spans a question reads, how rows are grouped into steps, that totals are equal
// whichever levels are read and however idle is spread, and that nothing is ever divided by nothing.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DAY_MS, HOUR_MS } from '../../src/domain/ledger/buckets.ts'
import { AMOUNT_FIELDS, noAmounts, rowTotalsOf, totalNanoUsd } from '../../src/domain/ledger/rows.ts'
import { FIGURE_NAMES, figuresOf } from '../../src/report/cost-figures.ts'
import {
  CostGrouping,
  type CostRow,
  cursorAfter,
  isAfter,
  parseCursor,
  TooManyRows,
} from '../../src/report/cost-grouping.ts'
import {
  type CostQuery,
  type CostQueryInput,
  costQuery,
  GROUPINGS,
  parseGroupings,
  planOf,
  totalsFor,
} from '../../src/report/cost-query.ts'
import { groupBuckets, randomCells, readPlan, row, START_MS, seeded, usedRow } from './rows.ts'

const at = (day: number, hour = 0, minute = 0) => START_MS + day * DAY_MS + hour * HOUR_MS + minute * 60_000

function question(change: Partial<CostQueryInput> = {}): CostQuery {
  const checked = costQuery({ fromMs: at(0), toMs: at(1), step: 'all', by: ['model'], idle: 'own', ...change })
  assert.ok(!Array.isArray(checked), JSON.stringify(checked))
  return checked as CostQuery
}

test('a plan reads days for whole days, hours for whole hours, minutes for the edges, in order of time', () => {
  const cases: [[number, number, CostQuery['step'], CostQuery['idle']?], string[]][] = [
    [[at(0), at(2), 'all'], ['day 0d00:00-2d00:00']],
    [[at(0), at(2), '1d'], ['day 0d00:00-2d00:00']],
    [[at(0), at(2), '1h'], ['hour 0d00:00-2d00:00']],
    [[at(0), at(2), '1m'], ['minute 0d00:00-2d00:00']],
    [[at(0), at(2), 'all', 'spread'], ['hour 0d00:00-2d00:00']],
    [
      [at(0, 22, 30), at(2, 1, 15), 'all'],
      [
        'minute 0d22:30-0d23:00',
        'hour 0d23:00-1d00:00',
        'day 1d00:00-2d00:00',
        'hour 2d00:00-2d01:00',
        'minute 2d01:00-2d01:15',
      ],
    ],
    [[at(0, 10, 17), at(0, 10, 40), 'all'], ['minute 0d10:17-0d10:40']],
    [[at(0, 10, 17), at(0, 11, 5), '1d'], ['minute 0d10:17-0d11:05']],
    [[at(0, 3), at(0, 5), 'all'], ['hour 0d03:00-0d05:00']],
  ]
  const shown = (ms: number) => `${Math.floor((ms - START_MS) / DAY_MS)}d${new Date(ms).toISOString().slice(11, 16)}`
  for (const [[fromMs, toMs, step, idle = 'own'], expected] of cases) {
    const found = planOf({ fromMs, toMs, step, idle }).map(
      (read) => `${read.level} ${shown(read.fromMs)}-${shown(read.toMs)}`,
    )
    assert.deepEqual(found, expected)
  }
})

test('totals and rows are equal whichever levels are read', () => {
  const cells = randomCells(at(0), at(4), seeded(7))
  const ranges: [number, number][] = [
    [at(0), at(4)],
    [at(0, 22, 30), at(3, 1, 15)],
    [at(1, 0, 1), at(1, 23, 59)],
    [at(1), at(2)],
  ]
  for (const [fromMs, toMs] of ranges) {
    for (const step of ['1h', '1d', 'all', 'month'] as const) {
      for (const by of [[], ['model', 'tenant'], ['host', 'gpu', 'price_kind']] as const) {
        const query = question({ fromMs, toMs, step, by })
        const minutes = groupBuckets(query, readPlan(cells, planOf({ ...query, step: '1m' })))
        const planned = groupBuckets(query, readPlan(cells, planOf(query)))
        assert.deepEqual(planned, minutes, `${step} by ${by}`)
        assert.ok(minutes.rows.length > 0)
      }
    }
  }
})

test("where a span's sums will do, they give what its rows give", () => {
  const cells = randomCells(at(0), at(1), seeded(5))
  const asked = new Set<string | null>()
  for (const by of GROUPINGS.flatMap((one) => [...GROUPINGS.map((other) => [one, other]), []])) {
    for (const filter of [{}, { model: 'llama' }, { tenant: 'a' }, { model: 'qwen', tenant: 'b' }]) {
      for (const idle of ['own', 'spread'] as const) {
        const query = question({ by: [...new Set(by)], idle, step: 'all', ...filter })
        const sums = totalsFor(query)
        asked.add(sums)
        if (sums === null) continue
        const hours = readPlan(cells, planOf(query))
        // Rows of many minutes of few GPUs, models and tenants: enough of them that there are sums.
        const many = hours.map((span) => ({ ...span, rows: [...span.rows, ...span.rows, ...span.rows, ...span.rows] }))
        const summed = many.map((span) => ({ ...span, rows: rowTotalsOf(span.rows)![sums] }))
        assert.deepEqual(groupBuckets(query, summed), groupBuckets(query, many), JSON.stringify(query))
      }
    }
  }
  assert.deepEqual(asked, new Set(['model', 'tenant', null]))
})

test('rows of all steps and groups sum to the totals, and idle that is spread leaves them as they are', () => {
  const cells = randomCells(at(0), at(2), seeded(11))
  const expected = noAmounts()
  for (const { rows } of cells)
    for (const each of rows) for (const field of AMOUNT_FIELDS) expected[field] += each[field]
  for (const step of ['1h', '1d', 'all'] as const) {
    for (const idle of ['own', 'spread'] as const) {
      const query = question({ toMs: at(2), step, idle, by: ['model', 'tenant', 'gpu'] })
      const { rows, totals } = groupBuckets(query, readPlan(cells, planOf(query)))
      for (const field of AMOUNT_FIELDS) {
        const sum = rows.reduce((all, { amounts }) => all + amounts[field], 0n)
        assert.equal(sum, expected[field], `${field}, ${step}, ${idle}`)
        assert.equal(totals[field], expected[field], `${field}, ${step}, ${idle}`)
      }
    }
  }
})

test('idle is spread within each slot-hour, also where the hour comes in minutes', () => {
  const held = row({ covered_ms: 60_000n, loaded_idle_nano_usd: 60_000_000n, basis: 'measured', method: 'memory' })
  const spans = [
    { startMs: at(0, 10, 50), host: 'h', rows: [usedRow()] },
    { startMs: at(0, 10, 55), host: 'h', rows: [held] },
    { startMs: at(0, 11, 5), host: 'h', rows: [held] },
  ]
  const query = question({ fromMs: at(0, 10, 30), toMs: at(0, 11, 30), step: '1h', idle: 'spread' })
  const found = groupBuckets(query, spans).rows.map((each) => [each.key.model, each.amounts.loaded_idle_nano_usd])
  assert.deepEqual(found, [
    [null, 0n],
    ['llama', 90_000_000n],
    [null, 60_000_000n],
  ])
})

test('steps are aligned to UTC and clipped to the range, rows are in a fixed order with null first', () => {
  const spans = [
    { startMs: at(0, 10, 17), host: 'h1', rows: [usedRow({ model: 'b' }), usedRow({ model: 'a' })] },
    { startMs: at(0, 10, 17), host: 'h2', rows: [row({ unallocated_nano_usd: 5n }), usedRow({ model: 'a' })] },
    { startMs: at(0, 11), host: 'h1', rows: [usedRow({ model: 'b' })] },
  ]
  const query = question({ fromMs: at(0, 10, 17), toMs: at(0, 11, 20), step: '1h' })
  const found = groupBuckets(query, spans).rows.map(figuresOf)
  assert.deepEqual(
    found.map(({ start, end, model, total_usd }) => [start.slice(11, 16), end.slice(11, 16), model, total_usd]),
    [
      ['10:17', '11:00', null, 5e-9],
      ['10:17', '11:00', 'a', 0.12],
      ['10:17', '11:00', 'b', 0.06],
      ['11:00', '11:20', 'b', 0.06],
    ],
  )
})

test('grouping by gpu gives host, index and uuid; names that look like each other stay apart', () => {
  const spans = [
    { startMs: at(0), host: '1:a', rows: [usedRow({ gpu_uuid: 'GPU-1' }), usedRow({ gpu_index: 1 })] },
    { startMs: at(0), host: '1', rows: [usedRow({ gpu_uuid: ':aGPU-1' })] },
  ]
  const slots = groupBuckets(question({ by: ['gpu'] }), spans).rows.map(({ key }) => [
    key.host,
    key.gpu_index,
    key.gpu_uuid,
  ])
  assert.deepEqual(slots, [
    ['1', 0, ':aGPU-1'],
    ['1:a', 0, 'GPU-1'],
    ['1:a', 1, null],
  ])
  const { key } = groupBuckets(question({ by: [] }), spans).rows[0]!
  assert.deepEqual(key, { model: null, tenant: null, host: null, gpu_index: null, gpu_uuid: null, price_kind: null })
})

test('idle is spread alike over an hour and over its first 59 minutes with the same money', () => {
  // Llama loaded and busy without tokens, twice with tokens, then memory held by no model: a unit is left over.
  const loaded = row({ model: 'llama', tenant: 'chat', covered_ms: 60_000n, busy_nano_usd: 30_000_000n })
  const held = row({ covered_ms: 60_000n, loaded_idle_nano_usd: 60_000_001n, method: 'memory' })
  const cells = [loaded, usedRow(), usedRow({ tenant: 'batch', output_nano_usd: 22_500_001n }), held].map(
    (each, i) => ({
      startMs: at(0, 10, i),
      host: 'h',
      rows: [each],
    }),
  )
  for (const by of [[], ['model'], ['tenant'], ['model', 'tenant', 'host', 'gpu', 'price_kind']] as const) {
    const asked = (toMs: number) => question({ fromMs: at(0, 10), toMs, by, idle: 'spread' })
    const [hour, cut] = [asked(at(0, 11)), asked(at(0, 10, 59))].map((query) => {
      const { rows, totals } = groupBuckets(query, readPlan(cells, planOf(query)))
      return { rows: rows.map(({ key, amounts }) => ({ key, amounts })), totals }
    })
    assert.deepEqual(cut, hour)
  }
})

test('a row without any figure is left out, whatever energy fell on it; time that costs nothing is not', () => {
  const nothing = row({ model: 'llama', energy_mj: 3n, basis: 'measured', method: 'weighted-tokens' })
  const free = row({ model: 'free', covered_ms: 1n, basis: 'measured' })
  const spans = [{ startMs: at(0), host: 'h', rows: [free, nothing, usedRow({ model: 'qwen' })] }]
  const { rows } = groupBuckets(question(), spans)
  assert.deepEqual(
    rows.map(({ key }) => key.model),
    ['free', 'qwen'],
  )
})

test('filters take only their rows, after idle has been spread', () => {
  const held = row({ loaded_idle_nano_usd: 10n })
  const rows = [usedRow({ tenant: 'a' }), usedRow({ tenant: 'b' }), held]
  const spans = [{ startMs: at(0), host: 'h', rows }]
  const of = (change: Partial<CostQueryInput>) => groupBuckets(question(change), spans).totals
  assert.equal(of({ tenant: 'a' }).loaded_idle_nano_usd, 30_000_000n)
  assert.equal(of({ tenant: 'a', idle: 'spread' }).loaded_idle_nano_usd, 30_000_005n)
  assert.equal(of({ model: 'llama' }).requests, 4n)
  assert.equal(of({ model: '{"$ne":null}' }).requests, 0n)
})

const figures = (amounts: Partial<CostRow['amounts']>) => {
  const key = { model: null, tenant: null, host: null, gpu_index: null, gpu_uuid: null, price_kind: null }
  return figuresOf({ startMs: at(0), endMs: at(1), key, amounts: { ...noAmounts(), ...amounts } })
}

test('figures are those of the parts: USD from integers, seconds from milliseconds, quotients fully loaded and busy', () => {
  const found = figures(usedRow())
  assert.deepEqual(Object.keys(found), [...FIGURE_NAMES])
  assert.deepEqual([found.total_usd, found.busy_usd, found.covered_seconds], [0.06, 0.03, 60])
  // 0.06 and 0.03 USD ÷ 800 tokens; input 0.045 ÷ 600, output 0.015 ÷ 200.
  assert.deepEqual([found.usd_per_million_tokens, found.usd_per_million_tokens_busy], [75, 37.5])
  assert.deepEqual([found.usd_per_million_input_tokens, found.usd_per_million_output_tokens], [75, 75])
  assert.deepEqual([found.measured_token_share, found.reason], [1, null])
  const year = figures({ busy_nano_usd: 2n ** 60n + 1n, prompt_tokens: 2n ** 60n })
  assert.ok(Math.abs(year.usd_per_million_tokens! - 0.001) < 1e-12)
})

test('input and output are parts of the same total as the figure beside them, idle without tokens included', () => {
  // 0.06 USD by tokens, 3 : 1, and 0.2 USD of minutes without: 0.195 ÷ 600 and 0.065 ÷ 200.
  const nightly = figures(usedRow({ loaded_idle_nano_usd: 180_000_000n, unallocated_nano_usd: 50_000_000n }))
  assert.equal(nightly.usd_per_million_tokens, 325)
  assert.deepEqual([nightly.usd_per_million_input_tokens, nightly.usd_per_million_output_tokens], [325, 325])
  const random = seeded(7)
  const amount = (most: number) => BigInt(Math.floor(random() * most))
  for (let i = 0; i < 500; i++) {
    const [input, cached, output] = [amount(1e9), amount(1e8), amount(1e9)]
    const amounts = {
      ...{ prompt_tokens: amount(1e6) + 1n, completion_tokens: amount(1e6) + 1n },
      ...{ input_nano_usd: input, cached_nano_usd: cached, output_nano_usd: output },
      ...{ busy_nano_usd: amount(1e9), loaded_idle_nano_usd: amount(1e12), unallocated_nano_usd: amount(1e12) },
    }
    const found = figures(amounts)
    const sum =
      found.usd_per_million_input_tokens! * found.prompt_tokens +
      found.usd_per_million_output_tokens! * found.completion_tokens
    assert.ok(Math.abs(sum / 1e6 - found.total_usd) <= 1e-9 * Math.max(1, found.total_usd), JSON.stringify(found))
    const [prompt, completion] = [Number(amounts.prompt_tokens), Number(amounts.completion_tokens)]
    const ratio = Number(input + cached) / prompt / (Number(output) / completion)
    const quoted = found.usd_per_million_input_tokens! / found.usd_per_million_output_tokens!
    assert.ok(Math.abs(quoted / ratio - 1) < 1e-6, 'their ratio is that of the parts')
  }
  const onlyIdle = figures({ unallocated_nano_usd: 5n, prompt_tokens: 10n })
  assert.equal(onlyIdle.usd_per_million_input_tokens, null, 'tokens without weight beside money')
})

test('a figure over fewer than 1,000 tokens keeps its exact number and is marked', () => {
  const of = (tokens: bigint) => figures(usedRow({ prompt_tokens: tokens, completion_tokens: 0n }))
  assert.deepEqual([of(12n).usd_per_million_tokens, of(12n).reason], [5000, null])
  assert.deepEqual(
    [0n, 1n, 999n, 1000n].map((tokens) => of(tokens).too_few_tokens),
    [false, true, true, false],
  )
})

test('a quotient of nothing is null with a reason, never 0, ∞ or NaN', () => {
  const cases: [Partial<CostRow['amounts']>, RegExp][] = [
    [{}, /Nothing in this range/],
    [{ covered_ms: 60_000n, basis: 'measured' }, /time that costs nothing/],
    [{ requests: 1n }, /Requests without tokens/],
    [{ busy_nano_usd: 5n }, /No tokens/],
    [{ busy_nano_usd: 5n, requests: 1n }, /Requests without tokens/],
    [{ uncovered_nano_usd: 5n }, /paid for and not monitored/],
  ]
  for (const [amounts, reason] of cases) {
    const found = figures(amounts)
    const quotients = [found.usd_per_million_tokens, found.usd_per_million_tokens_busy, found.measured_token_share]
    assert.deepEqual(quotients, [null, null, null])
    assert.deepEqual([found.usd_per_million_input_tokens, found.usd_per_million_output_tokens], [null, null])
    assert.match(found.reason!, reason)
    for (const value of Object.values(found)) if (typeof value === 'number') assert.ok(Number.isFinite(value))
  }
  const byRequests = figures({ busy_nano_usd: 5n, prompt_tokens: 10n })
  assert.equal(byRequests.usd_per_million_input_tokens, null, 'money that was not split by tokens')
  const free = figures({ prompt_tokens: 10n })
  assert.deepEqual([free.usd_per_million_tokens, free.usd_per_million_input_tokens, free.reason], [0, 0, null])
  const noOutput = figures(usedRow({ completion_tokens: 0n }))
  assert.equal(noOutput.usd_per_million_output_tokens, null)
})

test('a step with more rows than fit is refused with what to narrow; complete steps are handed out and forgotten', () => {
  const query = question({ step: '1h', by: ['tenant'] })
  const grouping = new CostGrouping(query, 2)
  const span = (hour: number, tenants: string[]) => ({
    startMs: at(0, hour),
    host: 'h',
    rows: tenants.map((tenant) => usedRow({ tenant })),
  })
  assert.equal(grouping.add(span(0, ['a', 'b'])).length, 0)
  assert.equal(grouping.add(span(1, ['c', 'd'])).length, 2)
  assert.throws(
    () => grouping.add(span(1, ['e'])),
    (error: Error) => error instanceof TooManyRows && /tenant/.test(error.message),
  )
  assert.equal(totalNanoUsd(grouping.totals), 120_000_000n)
})

test('questions that make no sense are refused, each with what is allowed; ranges are widened to minutes', () => {
  const base = { fromMs: at(0), toMs: at(1), step: 'all', by: ['model'], idle: 'own' } as const
  const cases: [Partial<CostQueryInput>, string, RegExp][] = [
    [{ fromMs: at(1), toMs: at(0) }, 'to', /later instant/],
    [{ fromMs: at(1), toMs: at(1) }, 'to', /later instant/],
    [{ step: '1m', toMs: at(365) }, 'step', /one of 1h, 1d, all/],
    [{ step: '1h', toMs: at(365 * 6) }, 'step', /one of 1d, all/],
    [{ step: '1m', idle: 'spread' }, 'idle', /own, or a step of 1h/],
  ]
  for (const [change, field, message] of cases) {
    const problems = costQuery({ ...base, ...change })
    assert.ok(Array.isArray(problems))
    assert.deepEqual(
      problems.map((one) => one.field),
      [field],
    )
    assert.match(problems[0]!.message, message)
  }
  const widened = question({ fromMs: at(0) + 1, toMs: at(0, 1) + 1 })
  assert.deepEqual([widened.fromMs, widened.toMs], [at(0), at(0, 1, 1)])
  assert.deepEqual(question({ by: ['gpu', 'model'] }).by, ['model', 'gpu'])
})

test('groupings are read as words, each once', () => {
  const cases: [string, string[] | null][] = [
    ['model', ['model']],
    ['tenant, model', ['tenant', 'model']],
    ['model,model', null],
    ['modle', null],
    ['', null],
    ['model,', null],
    ['__proto__', null],
  ]
  for (const [text, expected] of cases) assert.deepEqual(parseGroupings(text), expected, text)
})

test('a cursor names the place after a row; what is no cursor is null', () => {
  const cells = randomCells(at(0), at(1), seeded(3))
  const query = question({ step: '1h', by: ['model', 'tenant', 'gpu'] })
  const { rows } = groupBuckets(query, readPlan(cells, planOf(query)))
  for (const [i, each] of rows.entries()) {
    const place = parseCursor(cursorAfter(each))!
    assert.equal(rows.filter((other) => isAfter(other, place)).length, rows.length - i - 1)
  }
  const wrong = [
    '',
    'x',
    'bnVsbA',
    Buffer.from('[1,2,3]').toString('base64url'),
    Buffer.from('{}').toString('base64url'),
  ]
  for (const cursor of wrong) assert.equal(parseCursor(cursor), null, cursor)
})
