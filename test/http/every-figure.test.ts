// Every place that shows a figure of money, for one fixed hour whose money is known by hand: the cost API, JSON, CSV,
// FOCUS, the table, the page, /metrics, the live view and `explain`, from a real embedded store through a real server.
// The hour is even, so that any window of it costs what the hour does. A new place has to be added here: the last test
// looks for files that know a price of a million tokens.

import assert from 'node:assert/strict'
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { parseWords } from '../../src/cli/command.ts'
import { report } from '../../src/cli/commands/report.ts'
import { HOUR_MS } from '../../src/domain/ledger/buckets.ts'
import { LivePrices } from '../../src/processor/ingest/live-prices.ts'
import { PriceBookVersions, setBook } from '../../src/processor/prices/price-book-versions.ts'
import { SqliteStore } from '../../src/store/sqlite/sqlite-store.ts'
import { LedgerPlace, sample, T0, token } from '../processor/ledger/ledger-place.ts'
import { parseCsv } from '../report/parse-csv.ts'
import { type Fixture, openServer } from './fixture.ts'

const END = T0 + HOUR_MS
/** When the hour is the last full one, for /metrics, and on the page with three minutes of lag. */
const NOW_MS = END + 180_000
const iso = (ms: number) => new Date(ms).toISOString()

const BOOK = {
  currency: 'USD',
  weights: { input: 1, cached: 1, output: 3 },
  rules: [
    // (33,120 − 6,840) ÷ 26,280 h + 0.5 kW × 1.4 × 0.20 USD/kWh = 1.14 USD/h.
    {
      ...{ id: 'own', match: { host: 'a', gpu_index: 0 }, kind: 'owned', purchase_usd: 33_120, salvage_usd: 6840 },
      ...{ life_years: 3, usd_per_kwh: 0.2, pue: 1.4 },
    },
    { id: 'rented', match: { host: 'a', gpu_index: 1 }, kind: 'on-demand', usd_per_hour: 2.4 },
    { id: 'silent', match: { host: 'a', gpu_index: 2 }, kind: 'reserved', usd_per_hour: 1.2, from: iso(T0) },
  ],
}

/** GPU 0 is half busy with 1,000 tokens each 10 s, GPU 1 has nothing loaded, GPU 2 was heard of last before the hour. */
const HAND = {
  busy: 0.57,
  loadedIdle: 0.57,
  unallocated: 2.4,
  idle: 2.97,
  total: 3.54,
  uncovered: 1.2,
  tokens: 360_000,
  perMillion: 3.54 / 0.36,
  perMillionBusy: 0.57 / 0.36,
  // 900 input at 1 and 100 output at 3 a step: three quarters of all the money, and one.
  perMillionInput: (3.54 * 0.75) / 0.324,
  perMillionOutput: (3.54 * 0.25) / 0.036,
}
type Figures = Partial<typeof HAND>

const folder = mkdtempSync(join(tmpdir(), 'pertoken-figures-'))
const store = new SqliteStore({ path: join(folder, 'store.sqlite'), synchronous: 'NORMAL' })
let live: LivePrices

before(async () => {
  const place = await LedgerPlace.on(store)
  await setBook(place.ledger, BOOK, { origin: 'test', nowMs: T0 - HOUR_MS })
  const steps = Array.from({ length: 361 }, (_, i) => T0 + i * 10_000)
  const gpu = { power_w: 500, mem_total_mb: 80_000, mem_used_mb: 0 }
  const samples = [
    ...[T0 - 10_000, ...steps].flatMap((atMs) => [
      sample(atMs, { ...gpu, utilization: 0.5 }),
      sample(atMs, { ...gpu, gpu_index: 1, utilization: 0 }),
    ]),
    sample(T0 - 120_000, { ...gpu, gpu_index: 2, utilization: 0 }),
  ]
  const counts = { model: 'llama', tenant: 'chat', prompt_tokens: 900, completion_tokens: 100 }
  const tokens = steps.slice(0, -1).map((atMs) => token(atMs + 5000, counts))
  await place.step(samples, tokens)
  await place.settle()
  live = new LivePrices(new PriceBookVersions(store.ledger), {
    ...{ windowSeconds: 30, allowedLatenessSeconds: 10, defaultHost: null, defaultUsdPerHour: 0.85 },
  })
  await live.rebuild(store)
  for (const each of samples) live.observe(each)
})
after(async () => {
  await store.close()
  rmSync(folder, { recursive: true, force: true })
})

/** A server on the store at the time after the hour; its live window ends with the hour. */
async function serve(t: Parameters<typeof openServer>[0]): Promise<Fixture & { url: string }> {
  const fixture = await openServer(t, (parts) => ({
    store,
    now: () => NOW_MS,
    processor: { ...parts.processor, live: () => ({ as_of: iso(END), stale: false, ...live.live(END) }) },
  }))
  await fixture.app.listen({ host: '127.0.0.1', port: 0 })
  return { ...fixture, url: `http://127.0.0.1:${(fixture.app.server.address() as AddressInfo).port}` }
}

/** Compares what a place shows with the hour, as exactly as the place shows it. */
function shows(place: string, figures: Figures, exact = 1e-9): void {
  assert.ok(Object.keys(figures).length > 0, place)
  for (const [name, found] of Object.entries(figures)) {
    const hand = HAND[name as keyof Figures]
    assert.ok(
      Math.abs(found - hand) <= exact * Math.max(1, Math.abs(hand)),
      `${place}: ${name} is ${found}, not ${hand}`,
    )
  }
}

const RANGE = { from: iso(T0), to: iso(END) }

interface Answer {
  totals: Record<string, number>
  rows: Record<string, number | string | null>[]
}

/** The figures of the names that JSON and CSV share. */
function published(row: Record<string, unknown>): Figures {
  const of = (name: string) => Number(row[name])
  return {
    busy: of('busy_usd'),
    loadedIdle: of('loaded_idle_usd'),
    unallocated: of('unallocated_usd'),
    total: of('total_usd'),
    uncovered: of('uncovered_usd'),
    tokens: of('prompt_tokens') + of('completion_tokens'),
    perMillion: of('usd_per_million_tokens'),
    perMillionBusy: of('usd_per_million_tokens_busy'),
    perMillionInput: of('usd_per_million_input_tokens'),
    perMillionOutput: of('usd_per_million_output_tokens'),
  }
}

/** `pertoken report`, on the store itself or through the server. */
async function reported(words: string[]): Promise<string> {
  const printed: string[] = []
  const parsed = parseWords('report', report, ['--from', RANGE.from, '--to', RANGE.to, ...words], {
    ...{ DATA_DIR: folder, LOG_LEVEL: 'silent' },
  })
  const signal = new AbortController().signal
  await report.run({ ...parsed, signal, print: (text) => void printed.push(text), say: () => undefined })
  return printed.join('')
}

test('the cost API and JSON, CSV, FOCUS and the table of the report', async (t) => {
  const { app, url } = await serve(t)
  for (const by of ['model', 'tenant', 'gpu', 'price_kind', 'model,tenant,host,gpu,price_kind']) {
    for (const idle of ['own', 'spread']) {
      const answer = (await app.inject({ url: '/api/v1/cost', query: { ...RANGE, by, idle } })).json() as Answer
      shows(`cost by ${by}, idle ${idle}`, published(answer.totals))
      const sum = (name: string) => answer.rows.reduce((all, row) => all + Number(row[name]), 0)
      shows(`rows by ${by}, idle ${idle}`, { total: sum('total_usd'), uncovered: sum('uncovered_usd') })
    }
  }
  for (const from of [[], ['--url', url]]) {
    const json = JSON.parse(await reported(['--json', ...from])) as Answer
    shows('report --json', published(json.totals))

    const [names, ...lines] = parseCsv(await reported(['--format', 'csv', '--by', 'host', ...from]))
    assert.equal(lines.length, 1, 'one host: its row is the fleet')
    shows('report --format csv', published(Object.fromEntries(names!.map((name, i) => [name, lines[0]![i]]))))

    const table = await reported(from)
    const cells = table
      .split('\n')
      .findLast((line) => line.startsWith('total'))!
      .replaceAll(',', '')
      .split(/ {2,}/)
    const [, , input, output, busy, loadedIdle, unallocated, total, uncovered, perMillion, perMillionBusy] =
      cells.map(Number)
    const money = { busy, loadedIdle, unallocated, total, uncovered, perMillion, perMillionBusy }
    shows('report', { tokens: input! + output!, ...money } as Figures, 5e-5)

    const [columns, ...charges] = parseCsv(await reported(['--format', 'focus', ...from]))
    const cell = (line: string[], name: string) => line[columns!.indexOf(name)]!
    const paid = (kind: string) =>
      charges
        .filter((line) => cell(line, 'x_ChargeKind') === kind)
        .reduce((sum, line) => sum + Number(cell(line, 'EffectiveCost')), 0)
    const [busyUsd, loaded, free] = [paid('busy'), paid('loaded_idle'), paid('unallocated')]
    shows('FOCUS', { busy: busyUsd, loadedIdle: loaded, unallocated: free, uncovered: paid('uncovered') })
    shows('FOCUS', { total: busyUsd + loaded + free })
    const used = charges.filter((line) => cell(line, 'ConsumedUnit') === 'Tokens')
    shows('FOCUS', { tokens: used.reduce((sum, line) => sum + Number(cell(line, 'ConsumedQuantity')), 0) })
    const commitments = charges.map((line) => [cell(line, 'x_PriceKind'), cell(line, 'CommitmentDiscountId')].join(' '))
    assert.deepEqual([...new Set(commitments)].sort(), ['on-demand ', 'owned ', 'reserved silent'])
    // The model's row: what it cost on its GPU.
    assert.deepEqual(
      used.map((line) => Number(cell(line, 'x_CostPerMillionTokens')).toFixed(9)),
      ['3.166666667'],
    )
  }
})

test('the live view, /metrics and explain', async (t) => {
  const { app } = await serve(t)
  const { totals, models, slots } = (await app.inject('/api/v1/live')).json()
  shows('live totals', {
    ...{ busy: totals.busy_usd_per_hour, idle: totals.idle_usd_per_hour, total: totals.usd_per_hour },
    ...{ uncovered: totals.uncovered_usd_per_hour, tokens: totals.tokens_per_second * 3600 },
    ...{ perMillion: totals.usd_per_million_tokens, perMillionBusy: totals.usd_per_million_tokens_busy },
  })
  const { rows } = (await app.inject({ url: '/api/v1/cost', query: { ...RANGE, by: 'model' } })).json() as Answer
  const llama = Number(rows.find(({ model }) => model === 'llama')!['usd_per_million_tokens'])
  assert.ok(Math.abs(models[0].usd_per_million_tokens - llama) < 1e-9, 'a model live and in the ledger')

  const lines = (await app.inject('/metrics')).body.split('\n')
  /** Sum of the samples whose name and labels match. */
  const metric = (pattern: RegExp) =>
    lines.filter((line) => pattern.test(line)).reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
  shows('/metrics, the hour', {
    total: metric(/^pertoken_hourly_cost_usd\{/),
    loadedIdle: metric(/^pertoken_idle_usd\{.*kind="loaded"/),
    unallocated: metric(/^pertoken_idle_usd\{.*kind="unallocated"/),
    uncovered: metric(/^pertoken_uncovered_usd /),
  })
  shows('/metrics, live', {
    busy: metric(/^pertoken_fleet_price_per_hour_usd\{kind="busy"/),
    idle: metric(/^pertoken_fleet_price_per_hour_usd\{kind="idle"/),
    uncovered: metric(/^pertoken_fleet_price_per_hour_usd\{kind="uncovered"/),
    perMillion: metric(/^pertoken_fleet_cost_per_million_tokens_usd\{basis="fully_loaded"/),
    perMillionBusy: metric(/^pertoken_fleet_cost_per_million_tokens_usd\{basis="busy"/),
    total: metric(/^pertoken_gpu_price_per_hour_usd\{/) - HAND.uncovered,
  })
  for (const basis of ['live', 'fully_loaded']) {
    const found = metric(new RegExp(`^pertoken_cost_per_million_tokens_usd\\{model="llama",basis="${basis}"`))
    assert.ok(Math.abs(found - llama) < 1e-9, `${basis}: ${found}`)
  }
  const phase = (name: string) => metric(new RegExp(`^llm_cost.*cost_basis="allocation".*phase="${name}"`))
  const [whole, prompt, generation] = [phase(''), phase('prompt'), phase('generation')]
  assert.ok(Math.abs(whole - llama) < 1e-9, `llm_cost_per_million_tokens: ${whole}`)
  assert.ok(Math.abs(prompt * 0.9 + generation * 0.1 - whole) < 1e-8, 'its phases are parts of it')

  let [total, uncovered] = [0, 0]
  for (const { gpu_index, price_per_hour_usd } of slots) {
    const query = { host: 'a', gpu_index: String(gpu_index), at: iso(T0 + HOUR_MS / 2) }
    const explained = (await app.inject({ url: '/api/v1/explain', query })).json()
    assert.equal(explained.price_per_hour_usd, price_per_hour_usd, `GPU ${gpu_index}`)
    if (explained.time === 'uncovered') uncovered += explained.price_per_hour_usd
    else total += explained.price_per_hour_usd
  }
  shows('explain, an hour of it', { total, uncovered })
})

const CHROMIUM = '/usr/bin/chromium'
const isMissing = !existsSync(CHROMIUM) && process.env['CI'] !== 'true'
const skip = isMissing ? `${CHROMIUM} is missing: apt-get install -y chromium` : false

test('the page: its tiles, and its last hour', { skip }, async (t) => {
  const { url } = await serve(t)
  const args = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking']
  const browser = await chromium.launch({ executablePath: CHROMIUM, args })
  t.after(() => browser.close())
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } })
  await page.clock.setFixedTime(NOW_MS)
  await page.goto(url)
  await page.locator('#hour tbody tr').nth(1).waitFor()
  const number = (text: string) => Number(text.replaceAll(/[^\d.]/g, ''))
  const tile = async (id: string) => number(await page.locator(`#${id}`).innerText())
  shows('tiles', { perMillion: await tile('cost'), perMillionBusy: await tile('busy-cost') }, 5e-4)
  shows('tiles', { total: await tile('price'), idle: await tile('idle'), uncovered: await tile('uncovered') })
  shows('tiles', { tokens: (await tile('speed')) * 3600 })
  const last = (await page.locator('#hour tbody tr').last().innerText()).split(/\s*\t\s*/)
  assert.equal(last[0], 'All')
  const [perMillion, perMillionBusy, tokens, busy, idle] = last.slice(1).map(number)
  shows('last hour', { perMillion, perMillionBusy } as Figures, 5e-4)
  shows('last hour', { tokens, busy, idle } as Figures)
})

/** Files that know a price of a million tokens, and what above holds each. */
const PLACES: Record<string, string> = {
  'src/domain/live/live-figures.ts': 'the live view',
  'src/domain/live/live-totals.ts': 'the live view',
  'src/http/metrics/ledger-gauges.ts': '/metrics, the hour',
  'src/http/metrics/metrics-route.ts': '/metrics, live',
  'src/http/page/page.js': 'the page',
  'src/http/routes/gpu-routes.ts': 'description of the live view',
  'src/report/cost-figures.ts': 'JSON and CSV',
  'src/report/focus.ts': 'FOCUS',
  'src/report/table.ts': 'the table',
}

test('no other file shows the price of a million tokens', () => {
  const knows = (path: string) => /usd_?per_?million/i.test(readFileSync(path, 'utf8'))
  const files = globSync('src/**/*.{ts,js}')
  assert.deepEqual(files.filter(knows).sort(), Object.keys(PLACES).sort())
})
