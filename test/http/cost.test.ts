// Cost and prices over HTTP, on a real embedded store whose ledger the test has written: the fields of an answer, pages
// and files, what is refused and with which words, who may set prices, why a price is what it is, and the gauges.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { GpuDocument } from '../../src/domain/events/event.ts'
import { ownEventId } from '../../src/domain/events/event-id.ts'
import { type BucketLevel, HOUR_MS } from '../../src/domain/ledger/buckets.ts'
import type { CellRow } from '../../src/domain/ledger/types.ts'
import { boundedAmounts } from '../../src/http/metrics/ledger-gauges.ts'
import { FIGURE_NAMES } from '../../src/report/cost-figures.ts'
import { FOCUS_COLUMNS } from '../../src/report/focus.ts'
import type { LedgerBucket } from '../../src/store/ledger-store.ts'
import { goodSample } from '../bad-records.ts'
import { parseCsv } from '../report/parse-csv.ts'
import { row, sumRows, usedRow } from '../report/rows.ts'
import { type Fixture, NOW_MS, openServer } from './fixture.ts'

/** The hour before the one before the tests' now. */
const HOUR = NOW_MS - 2 * HOUR_MS
const iso = (ms: number) => new Date(ms).toISOString()

function span(level: BucketLevel, startMs: number, host: string | null, rows: CellRow[]): LedgerBucket {
  return {
    level,
    startMs,
    host,
    rev: 0,
    bookVersions: [1],
    rows: sumRows(rows),
    totals: null,
    capped: 0,
    computedMs: NOW_MS,
  }
}

const ROWS: Record<string, CellRow[]> = {
  h1: [usedRow(), usedRow({ tenant: 'batch', gpu_index: 1, price_kind: 'owned' })],
  h2: [usedRow({ model: 'qwen' }), row({ covered_ms: 60_000n, unallocated_nano_usd: 60_000_000n, basis: 'measured' })],
}

/** A ledger of two minutes, with their hours. */
async function keepLedger({ store }: Pick<Fixture, 'store'>): Promise<void> {
  const minutes = [HOUR + 60_000, HOUR + HOUR_MS].flatMap((startMs) =>
    Object.entries(ROWS).map(([host, rows]) => span('minute', startMs, host, rows)),
  )
  const hours = [HOUR, HOUR + HOUR_MS].flatMap((startMs) =>
    Object.entries(ROWS).map(([host, rows]) => span('hour', startMs, host, rows)),
  )
  const replaced = await store.ledger.replaceBuckets([...minutes, ...hours])
  assert.ok(replaced.every((each) => each))
}

async function openWithLedger(t: Parameters<typeof openServer>[0], readUpToMs: number | null = NOW_MS) {
  const fixture = await openServer(t, () => ({ progress: { readUpToMs: () => readUpToMs } }))
  await keepLedger(fixture)
  const cost = async (query: Record<string, string>) => {
    const range = { from: iso(HOUR), to: iso(HOUR + 2 * HOUR_MS) }
    return fixture.app.inject({ url: '/api/v1/cost', query: { ...range, ...query } })
  }
  return { ...fixture, cost }
}

test('an answer has all fields, rows by what was asked, and totals that close', async (t) => {
  const { cost } = await openWithLedger(t)
  const answer = await cost({ by: 'model,price_kind' })
  assert.equal(answer.statusCode, 200)
  const { rows, totals, ...head } = answer.json()
  assert.deepEqual(head, {
    from: iso(HOUR),
    to: iso(HOUR + 2 * HOUR_MS),
    step: 'all',
    by: ['model', 'price_kind'],
    idle: 'own',
    revision: null,
    final: false,
    watermark: iso(NOW_MS),
    cursor: null,
  })
  for (const each of [...rows, totals]) assert.deepEqual(Object.keys(each), [...FIGURE_NAMES])
  const seen = rows.map((each: Record<string, unknown>) => [each['model'], each['price_kind'], each['total_usd']])
  assert.deepEqual(seen, [
    [null, 'sample', 0.12],
    ['llama', 'owned', 0.12],
    ['llama', 'sample', 0.12],
    ['qwen', 'sample', 0.12],
  ])
  assert.deepEqual([totals.total_usd, totals.busy_usd, totals.unallocated_usd], [0.48, 0.18, 0.12])
  assert.deepEqual([totals.start, totals.end, totals.usd_per_million_tokens], [iso(HOUR), iso(HOUR + 2 * HOUR_MS), 100])
  assert.deepEqual([rows[0].usd_per_million_tokens, rows[0].tenant], [null, null])
})

test('hours and minutes give the same totals, and a range is widened to whole minutes', async (t) => {
  const { cost } = await openWithLedger(t)
  const totals = async (query: Record<string, string>) => (await cost(query)).json().totals
  const whole = await totals({ by: 'tenant' })
  for (const step of ['1m', '1h', '1d']) {
    assert.deepEqual(await totals({ step }), whole, step)
  }
  assert.deepEqual(await totals({ idle: 'spread', step: '1h' }), whole)
  const narrow = (await cost({ from: iso(HOUR + 60_500), to: iso(HOUR + 119_000), by: 'gpu', step: '1m' })).json()
  assert.deepEqual([narrow.from, narrow.to], [iso(HOUR + 60_000), iso(HOUR + 120_000)])
  const slots = narrow.rows.map((each: Record<string, unknown>) => [each['host'], each['gpu_index'], each['gpu_uuid']])
  assert.deepEqual(slots, [
    ['h1', 0, null],
    ['h1', 1, null],
    ['h2', 0, null],
  ])
  const filtered = await totals({ host: 'h2', model: 'qwen' })
  assert.equal(filtered.total_usd, 0.12)
})

test('final: read beyond the end and the lateness, and no marks pending', async (t) => {
  const end = HOUR + 2 * HOUR_MS
  const cases: [number | null, boolean, boolean][] = [
    [null, false, false],
    [end + 10_000, false, false],
    [end + 10_001, false, true],
    [end + 10_001, true, false],
  ]
  for (const [readUpToMs, isMarked, expected] of cases) {
    const { cost, store } = await openWithLedger(t, readUpToMs)
    if (isMarked) await store.ledger.insertMarks('minute', [{ startMs: HOUR, hosts: ['h1'] }], NOW_MS)
    const { final, watermark } = (await cost({})).json()
    assert.deepEqual([final, watermark], [expected, readUpToMs === null ? null : iso(readUpToMs)])
    const { headers, body } = await cost({ format: 'focus' })
    assert.deepEqual(
      [headers['x-pertoken-final'], headers['x-pertoken-watermark'] ?? null],
      [String(expected), watermark],
    )
    const column = FOCUS_COLUMNS.indexOf('x_Final')
    const [, ...lines] = parseCsv(body)
    assert.deepEqual([...new Set(lines.map((line) => line[column]))], [String(expected)])
    assert.equal((await cost({ format: 'csv' })).headers['x-pertoken-final'], String(expected))
  }
})

test('pages follow each other with the same totals, and together are the whole', async (t) => {
  const { cost } = await openWithLedger(t)
  const query = { by: 'model,tenant,host,gpu,price_kind', step: '1m' }
  const whole = (await cost(query)).json()
  assert.equal(whole.rows.length, 8)
  const rows: unknown[] = []
  let cursor: string | null = null
  do {
    const page: { rows: unknown[]; totals: unknown; cursor: string | null } = (
      await cost({ ...query, limit: '3', ...(cursor === null ? {} : { cursor }) })
    ).json()
    assert.deepEqual(page.totals, whole.totals)
    rows.push(...page.rows)
    cursor = page.cursor
  } while (cursor !== null)
  assert.deepEqual(rows, whole.rows)
})

test('CSV and FOCUS come whole, as files', async (t) => {
  const { cost } = await openWithLedger(t)
  const csv = await cost({ format: 'csv', by: 'model,tenant', limit: '1' })
  assert.match(String(csv.headers['content-type']), /^text\/csv/)
  assert.match(String(csv.headers['content-disposition']), /^attachment; filename="cost-2026-06-01\.csv"$/)
  const [header, ...lines] = parseCsv(csv.body)
  assert.deepEqual(header, [...FIGURE_NAMES])
  assert.equal(lines.length, 4)
  const focus = parseCsv((await cost({ format: 'focus' })).body)
  assert.deepEqual(focus[0], [...FOCUS_COLUMNS])
  const paid = focus.slice(1).reduce((sum, line) => sum + Number(line[FOCUS_COLUMNS.indexOf('EffectiveCost')]), 0)
  assert.ok(Math.abs(paid - 0.48) < 1e-9)
  for (const file of [csv, await cost({ format: 'focus' })]) {
    const { 'x-pertoken-final': final, 'x-pertoken-watermark': watermark } = file.headers
    assert.deepEqual([final, watermark], ['false', iso(NOW_MS)])
  }
  const nothing = await cost({ format: 'csv', host: 'nowhere' })
  assert.deepEqual(parseCsv(nothing.body), [[...FIGURE_NAMES]])
})

test('questions that make no sense are 400, each parameter named with what is allowed', async (t) => {
  const { app } = await openWithLedger(t)
  const cases: [string, string[]][] = [
    ['from=2026-06-02&to=2026-06-01', ['to']],
    ['from=2025-06-01&to=2026-06-01&step=1m', ['step']],
    ['step=1s', ['step']],
    ['by=modle', ['by']],
    ['by=model,model', ['by']],
    ['by[$ne]=model', ['by[$ne]']],
    ['model[$gt]=', ['model[$gt]']],
    ['from=yesterday&to=1e9', ['from', 'to']],
    ['format=xml&idle=gone&revision=-1&limit=0', ['idle', 'format', 'revision', 'limit']],
    ['step=1m&idle=spread', ['idle']],
    ['revision=7', ['revision']],
    ['cursor=abc', ['cursor']],
    ['cursor=WzAsbnVsbCxudWxsLG51bGwsbnVsbCxudWxsLG51bGxd', ['cursor']],
    ['group=model', ['group']],
  ]
  for (const [query, expected] of cases) {
    const answer = await app.inject(`/api/v1/cost?${query}`)
    assert.equal(answer.statusCode, 400, query)
    const { type, errors } = answer.json() as { type: string; errors: { path: string; message: string }[] }
    assert.equal(type, 'urn:pertoken:problem:bad-parameter', query)
    assert.deepEqual(
      errors.map(({ path }) => path),
      expected,
      query,
    )
    for (const { message } of errors) assert.match(message, /expected|allowed|begin again/, query)
  }
})

test('operators in a filter are only a name that nobody has, and an empty range has a reason', async (t) => {
  const { cost } = await openWithLedger(t)
  const { rows, totals } = (await cost({ model: '{"$ne":null}' })).json()
  assert.deepEqual([rows, totals.total_usd, totals.usd_per_million_tokens], [[], 0, null])
  assert.match(totals.reason, /Nothing in this range/)
})

test('minutes of a purged day are missing by name, hours and days are there', async (t) => {
  const { cost, store } = await openWithLedger(t)
  const startMs = Date.UTC(2026, 5, 1)
  for (const state of ['closing', 'frozen', 'purged'] as const) {
    await store.ledger.advanceDay({ startMs, state, sinceMs: NOW_MS })
  }
  const byMinute = (await cost({ step: '1m' })).json()
  assert.deepEqual(
    byMinute.missing.map((part: Record<string, string>) => [part['from'], part['to']]),
    [[iso(HOUR), iso(HOUR + 2 * HOUR_MS)]],
  )
  assert.equal((await cost({ step: '1h' })).json().missing, undefined)
  const old = await cost({ revision: '0' })
  assert.deepEqual([old.statusCode, old.json().errors[0].path], [400, 'revision'])
  assert.match(old.json().errors[0].message, /frozen days: 2026-06-01/)
})

const BOOK = {
  currency: 'USD',
  default_usd_per_hour: 2,
  rules: [
    {
      id: 'ours',
      match: { host: 'h1', gpu_index: 0 },
      kind: 'owned',
      purchase_usd: 8760,
      life_years: 1,
      usd_per_kwh: 0.2,
    },
    { id: 'host', match: { host: 'h1' }, kind: 'on-demand', usd_per_hour: 3 },
    { id: 'old', match: { uuid: 'GPU-1' }, kind: 'spot', usd_per_hour: 1, to: '2026-01-01' },
    { id: 'h100', match: { name: '*H100*' }, kind: 'reserved', usd_per_hour: 4 },
  ],
}

const put = (app: Fixture['app'], payload: unknown, change: object = {}) =>
  app.inject({
    method: 'PUT',
    url: '/api/v1/prices',
    headers: { host: 'localhost', 'content-type': 'application/json' },
    payload: typeof payload === 'string' ? payload : JSON.stringify(payload),
    ...change,
  })

test('a price book is set as a new version, once, and listed with its revisions', async (t) => {
  const { app, store } = await openServer(t)
  assert.deepEqual((await app.inject('/api/v1/prices')).json(), {
    in_force: null,
    fit: null,
    versions: [],
    revisions: [],
  })
  const first = await put(app, BOOK)
  assert.equal(first.statusCode, 201)
  const version = { version: 1, from: null, at: iso(NOW_MS), origin: 'api', rules: 4 }
  const nothingSeen = {
    ...{ seen_since: null, gpus_seen: 0, unmatched_rules: [], unmatched_rules_count: 0 },
    ...{ default_gpus: [], default_gpus_count: 0 },
  }
  assert.deepEqual(first.json(), { ...version, is_new: true, warnings: [], fit: nothingSeen })
  const again = await put(app, BOOK, { method: 'POST' })
  assert.deepEqual([again.statusCode, again.json().is_new], [200, false])
  const revision = { revision: 1, fromMs: HOUR, toMs: NOW_MS, bookVersion: 1, atMs: NOW_MS, summary: { done: true } }
  await store.ledger.insertRevision(revision)
  const listing = (await app.inject('/api/v1/prices')).json()
  assert.deepEqual(listing.versions, [version])
  assert.deepEqual([listing.in_force.version, listing.in_force.book.rules.length], [1, 4])
  const shown = { revision: 1, from: iso(HOUR), to: iso(NOW_MS), book_version: 1, at: iso(NOW_MS) }
  assert.deepEqual(listing.revisions, [{ ...shown, summary: { done: true } }])
})

test('a wrong price book is refused as a whole, with every mistake; so are other forms and other machines', async (t) => {
  const { app, store } = await openServer(t)
  const wrong = {
    currency: 'EUR',
    rules: [
      { id: 'a', match: {}, kind: 'rented' },
      { ...BOOK.rules[1], usd_per_hour: -1 },
    ],
  }
  const answer = await put(app, wrong)
  assert.equal(answer.statusCode, 400)
  const { type, errors } = answer.json() as { type: string; errors: { path: string; message: string }[] }
  assert.equal(type, 'urn:pertoken:problem:bad-price-book')
  const paths = errors.map(({ path }) => path)
  for (const path of ['/currency', '/rules/0/kind', '/rules/1/usd_per_hour']) assert.ok(paths.includes(path), path)
  for (const { message } of errors) assert.match(message, /^Is .*: expected /)
  const cases: [unknown, object, number][] = [
    ['{', {}, 400],
    ['', {}, 400],
    [BOOK, { headers: { host: 'localhost', 'content-type': 'text/plain' } }, 415],
    [BOOK, { headers: { host: 'evil.example', 'content-type': 'application/json' } }, 403],
    [BOOK, { remoteAddress: '10.0.0.9' }, 403],
  ]
  for (const [payload, change, status] of cases) {
    assert.equal((await put(app, payload, change)).statusCode, status, JSON.stringify(change))
  }
  assert.deepEqual(await store.ledger.readBooks(), [])
})

function sample(id: string, tsMs: number, change: Record<string, unknown>): GpuDocument {
  const event = goodSample(tsMs, change)
  return { ...event, _id: ownEventId('h1', id), ts: new Date(tsMs) } as unknown as GpuDocument
}

test('explain says which rule won, why each other did not, and the parts of the price', async (t) => {
  const { app, store } = await openServer(t)
  const explain = async (query: Record<string, string>) => app.inject({ url: '/api/v1/explain', query })
  assert.equal((await explain({ host: 'h1', gpu_index: '0' })).statusCode, 404)
  assert.equal((await explain({ host: 'h1' })).statusCode, 400)
  await put(app, BOOK)
  const at = NOW_MS - 1000
  await store.writeDocuments(
    [
      sample('a', at - 60_000, { uuid: 'GPU-0', name: 'NVIDIA H100', power_w: 700, host: 'h1', gpu_index: 0 }),
      sample('b', at - 10, { uuid: 'GPU-1', name: 'NVIDIA A100', power_w: 600, host: 'h1', gpu_index: 0 }),
      sample('c', at + 10, { uuid: 'GPU-3', name: 'later', power_w: 500, host: 'h1', gpu_index: 0 }),
      sample('d', at, { uuid: 'GPU-4', name: 'NVIDIA H100', host: 'h9', gpu_index: 1, price_per_hour_usd: 9 }),
      sample('e', at, { name: 'NVIDIA L4', host: 'h8', gpu_index: 0, price_per_hour_usd: 0.7 }),
    ],
    [],
  )
  const owned = (await explain({ host: 'h1', gpu_index: '0', at: iso(at) })).json()
  // 8,760 USD ÷ 8,760 h + 0.5 kW × 0.2 USD/kWh.
  assert.deepEqual([owned.rule.id, owned.price_kind, owned.price_per_hour_usd], ['ours', 'owned', 1.1])
  assert.deepEqual([owned.gpu_uuid, owned.gpu_name, owned.book_version], ['GPU-3', 'later', 1])
  assert.deepEqual([owned.time, owned.sample.ts], ['covered', iso(at + 10)])
  assert.deepEqual([owned.parts.fixed_usd_per_hour, owned.parts.energy_usd_per_hour], [1, 0.1])
  assert.deepEqual(
    owned.others.map((other: Record<string, unknown>) => [other['id'], other['reason']]),
    [
      ['host', 'less specific'],
      ['old', 'does not match: uuid'],
      ['h100', 'does not match: name'],
    ],
  )
  const before = (await explain({ host: 'h1', gpu_index: '0', at: iso(at - 30_000) })).json()
  assert.deepEqual([before.gpu_uuid, before.parts.power_w], ['GPU-1', 600])
  assert.equal(before.others.find(({ id }: { id: string }) => id === 'old').reason, 'not in force')
  const newest = (await explain({ host: 'h1', gpu_index: '0' })).json()
  assert.deepEqual([newest.time, newest.gpu_uuid, newest.price_per_hour_usd], ['open', 'GPU-3', 1.1])
  assert.match(newest.note, /^latest known: the sample that closes this time has not come yet; known by the sample of /)
  const byName = (await explain({ host: 'h9', gpu_index: '1' })).json()
  assert.deepEqual([byName.rule.id, byName.price_per_hour_usd, byName.price_kind], ['h100', 4, 'reserved'])
  const bySample = (await explain({ host: 'h8', gpu_index: '0' })).json()
  assert.deepEqual([bySample.rule, bySample.price_per_hour_usd, bySample.price_kind], [null, 0.7, 'sample'])
  // The samples of its last day are later.
  const unknown = (await explain({ host: 'h8', gpu_index: '0', at: iso(at - HOUR_MS) })).json()
  assert.deepEqual([unknown.sample, unknown.price_per_hour_usd, unknown.price_kind], [null, 2, 'default'])
})

test('/metrics has the last full hour by model, and the same under the names of OpenCost', async (t) => {
  const { app } = await openWithLedger(t)
  const lines = (await app.inject('/metrics')).body.split('\n')
  const of = (name: string) => lines.filter((line) => line.startsWith(name) && !line.startsWith('#')).sort()
  assert.deepEqual(
    of('pertoken_hourly_cost_usd'),
    [
      'pertoken_hourly_cost_usd{model="llama"} 0.12',
      'pertoken_hourly_cost_usd{model="qwen"} 0.06',
      'pertoken_hourly_cost_usd{model=""} 0.06',
    ].sort(),
  )
  assert.deepEqual(of('pertoken_cost_per_million_tokens_usd'), [
    'pertoken_cost_per_million_tokens_usd{model="llama",basis="busy"} 37.5',
    'pertoken_cost_per_million_tokens_usd{model="llama",basis="fully_loaded"} 75',
    'pertoken_cost_per_million_tokens_usd{model="qwen",basis="busy"} 37.5',
    'pertoken_cost_per_million_tokens_usd{model="qwen",basis="fully_loaded"} 75',
  ])
  assert.deepEqual(of('pertoken_idle_usd'), [
    'pertoken_idle_usd{model="",kind="loaded"} 0',
    'pertoken_idle_usd{model="",kind="unallocated"} 0.06',
    'pertoken_idle_usd{model="llama",kind="loaded"} 0.06',
    'pertoken_idle_usd{model="qwen",kind="loaded"} 0.03',
  ])
  assert.deepEqual(of('pertoken_ledger_hour_start_seconds'), [`pertoken_ledger_hour_start_seconds ${HOUR / 1000}`])
  const labels = 'model_name="qwen",model_version="unknown",namespace="",cost_basis'
  const tail = 'workload_type="inference"'
  assert.deepEqual(of('llm_total_hourly_cost{model_name="qwen"'), [
    `llm_total_hourly_cost{${labels}="allocation",${tail}} 0.06`,
    `llm_total_hourly_cost{${labels}="usage",${tail}} 0.03`,
  ])
  const perMillion = of('llm_cost_per_million_tokens{model_name="qwen"')
  assert.equal(perMillion.length, 6)
  for (const [basis, value] of [
    ['allocation', 75],
    ['usage', 37.5],
  ] as const) {
    for (const line of perMillion.filter((each) => each.includes(`cost_basis="${basis}"`))) {
      assert.equal(Number(line.split(' ').at(-1)), value, line)
    }
  }
  for (const phase of ['', 'prompt', 'generation']) {
    assert.equal(perMillion.filter((line) => line.includes(`phase="${phase}"`)).length, 2)
  }
})

test('labels of the ledger are bounded: nobody, a hundred models, and the sum of the others', () => {
  const models = Array.from({ length: 150 }, (_, i) => ({
    model: `m${i}`,
    amounts: usedRow({ busy_nano_usd: BigInt(1000 - i) }),
  }))
  const nobody = { model: null, amounts: row({ unallocated_nano_usd: 1n }) }
  const bounded = boundedAmounts([...models, nobody, { model: 'other', amounts: usedRow({ busy_nano_usd: 1n }) }])
  assert.equal(bounded.length, 102)
  assert.deepEqual([bounded[0]!.model, bounded.at(-1)!.model], [null, 'other'])
  assert.equal(bounded.at(-1)!.amounts.requests, 51n * 2n)
})
