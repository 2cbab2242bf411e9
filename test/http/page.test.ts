// The page in a real browser (Debian's Chromium): what it shows, that names from outside stay text, that it says
// "stale", that it fits a phone, and that its own policy lets everything of it through. Waits on what is shown, never
// on time.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Browser, chromium, type Page } from 'playwright-core'
import { HOUR_MS } from '../../src/domain/ledger/buckets.ts'
import { row, usedRow } from '../report/rows.ts'
import { type Fixture, healthyHealth, liveModel, liveSlot, openServer } from './fixture.ts'

const CHROMIUM = '/usr/bin/chromium'
const isMissing = !existsSync(CHROMIUM) && process.env['CI'] !== 'true'
const skip = isMissing ? `${CHROMIUM} is missing: apt-get install -y chromium` : false
if (isMissing) process.stderr.write(`SKIPPED: tests of the page, ${skip}\n`)

const NASTY = '<img src=x onerror="document.title=1">'
let browser: Browser

before(async () => {
  if (isMissing) return
  const args = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking']
  browser = await chromium.launch({ executablePath: CHROMIUM, args })
})
after(async () => browser?.close())

async function open(fixture: Fixture, path = '/'): Promise<{ page: Page; complaints: string[]; asked: Set<string> }> {
  await fixture.app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = fixture.app.server.address() as AddressInfo
  const page = await browser.newPage({ viewport: { width: 360, height: 740 } })
  const complaints: string[] = []
  const asked = new Set<string>()
  page.on('pageerror', (error) => complaints.push(String(error)))
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()))
  page.on('request', (request) => asked.add(new URL(request.url()).origin))
  await page.goto(`http://127.0.0.1:${port}${path}`)
  return { page, complaints, asked }
}

/** Waits until an element's text is this. Asked from here: the page's policy forbids what would ask inside. */
async function shows(page: Page, selector: string, expected: string): Promise<void> {
  const deadlineMs = Date.now() + 15_000
  let found = await page.locator(selector).innerText()
  while (found.trim() !== expected && Date.now() < deadlineMs) {
    await sleep(50)
    found = await page.locator(selector).innerText()
  }
  assert.equal(found.trim(), expected, selector)
}

const rowsOf = (page: Page, table: string) => page.locator(`${table} tbody tr`).allInnerTexts()

test('the page shows live figures, in order, follows them, and fits a phone', { skip }, async (t) => {
  const fixture = await openServer(t)
  const { state } = fixture
  state.live.models = [liveModel('qwen', 30, 4), liveModel(NASTY, 10, 2), liveModel('idle', 0, null)]
  const idle = { utilization: 0, tokens_per_second: 0, cost_per_token: null, price_per_hour_usd: 2.1 }
  state.live.slots = [
    liveSlot('node-b', 0, { utilization: 0.25, tokens_per_second: 40, cost_per_token: 5.5556e-6 }),
    liveSlot('node-a', 1, idle),
    liveSlot('node-c', 0, { ...idle, monitored: false, price_basis: 'rule_without_power' }),
  ]
  const outcomes = { ...healthyHealth().outcomes, rejected: 1234 }
  state.health = { ...healthyHealth(), lag: 1_000_000, outcomes }
  const { page, complaints, asked } = await open(fixture)

  await shows(page, '#state', 'live')
  // All the money, the idle GPU's too, ÷ all tokens: 2.9 ÷ 144,000 an hour, which the models' mean is not.
  await shows(page, '#cost', '$20.139')
  await shows(page, '#speed', '40')
  await shows(page, '#price', '$2.90')
  await shows(page, '#idle', '$2.70')
  await shows(page, '#busy-cost', '$1.389')
  await shows(page, '#uncovered', '+ $2.10 not monitored')
  await shows(page, '#utilization', '13 %')
  await shows(page, '#lag', '1,000,000')
  await shows(page, '#dead-letters', '1,234')
  const first = await page.locator('#models tbody th').allInnerTexts()
  assert.deepEqual(first, [NASTY, 'idle', 'qwen'])
  assert.equal(await page.locator('#models img').count(), 0)
  assert.deepEqual(
    (await rowsOf(page, '#slots')).map((row) => row.split(/\s*\t\s*/)),
    [
      ['node-a · 1', '0 %', '$2.10', '–'],
      ['node-b · 0', '25 %', '$0.80', '$5.556'],
      ['node-c · 0', 'not monitored', '$2.10, power unknown', '–'],
    ],
  )
  const width = await page.evaluate('document.documentElement.scrollWidth')
  assert.ok((width as number) <= 360, `the page is ${width} px wide`)

  for (const [speed, usdPerHour] of [
    [33.48, 0.4321],
    [77.77, 12.3456],
    [1234.56, 3.2],
    [250_000, 0.85],
  ] as const) {
    state.live.slots = [liveSlot('node-b', 0, { tokens_per_second: speed, price_per_hour_usd: usdPerHour })]
    await shows(page, '#price', `$${usdPerHour.toFixed(Math.max(2, String(usdPerHour).split('.')[1]!.length))}`)
    const texts = await page.locator('#cost, #price, #speed').allInnerTexts()
    const [cost, price, tokens] = texts.map((text) => Number(text.replaceAll(/[$,]/g, '')))
    const quotient = (price! / (tokens! * 3600)) * 1e6
    assert.ok(Math.abs(cost! / quotient - 1) < 0.006, `${texts}: the first is not the quotient of the others`)
  }
  state.live.slots = [liveSlot('node-b', 0, { tokens_per_second: 3.3, too_few_tokens: true })]
  await shows(page, '#cost', 'too few tokens')
  await shows(page, '#busy-cost', 'too few tokens')
  await shows(page, '#speed', '3.3')
  assert.match((await rowsOf(page, '#slots'))[0]!, /too few tokens$/)
  state.live.models = [{ ...liveModel('qwen', 50, 0.123456), too_few_tokens: true }]
  await page.locator('#models tbody tr').nth(1).waitFor({ state: 'detached' })
  assert.match((await rowsOf(page, '#models'))[0]!, /^qwen\s+too few tokens\s/)
  state.live.models = []
  state.live.slots = [liveSlot('node-b', 0, { tokens_per_second: 0 })]
  await shows(page, '#models tbody', 'No tokens in the last 30 s')
  await shows(page, '#cost', '–')
  assert.deepEqual(complaints, [])
  assert.deepEqual([...asked], [new URL(page.url()).origin])
  await page.close()
})

test('the page shows what the last hour cost by model, idle included', { skip }, async (t) => {
  const fixture = await openServer(t)
  const startMs = Math.floor(Date.now() / 60_000) * 60_000 - 30 * 60_000
  const span = { startMs, host: 'h1', rev: 0, bookVersions: [1], totals: null, capped: 0, computedMs: startMs }
  const many = usedRow({ model: 'qwen', prompt_tokens: 1800n })
  const rows = [usedRow({ model: NASTY }), many, row({ covered_ms: 60_000n, unallocated_nano_usd: 2_000_000_000n })]
  // The hour's sum as well: which of the two is read depends on the clock.
  const hour = Math.floor(startMs / HOUR_MS) * HOUR_MS
  const hours = [{ ...span, level: 'hour' as const, startMs: hour, rows }]
  await fixture.store.ledger.replaceBuckets([{ ...span, level: 'minute', rows }, ...hours])
  const { page, complaints } = await open(fixture)
  await page.locator('#hour tbody th').nth(3).waitFor()
  const shown = (await rowsOf(page, '#hour')).map((each) => each.split(/\s*\t\s*/))
  assert.deepEqual(shown, [
    ['(none)', '–', '$0.00', '$2.00'],
    [NASTY, 'too few tokens', '$0.03', '$0.03'],
    ['qwen', '$30.000', '$0.03', '$0.03'],
    ['All', '$757.143', '$0.06', '$2.06'],
  ])
  assert.match(await page.locator('#hour-hint').innerText(), /^to \d\d:\d\d:00 UTC, idle included, not final$/)
  assert.equal(await page.locator('#hour img').count(), 0)
  const width = await page.evaluate('document.documentElement.scrollWidth')
  assert.ok((width as number) <= 360, `the page is ${width} px wide`)
  assert.deepEqual(complaints, [])
  await page.close()
})

test('the page says stale, with what is wrong, when the server says so and when it is gone', { skip }, async (t) => {
  const fixture = await openServer(t)
  const { state, app } = fixture
  state.live.slots = [liveSlot('node-b', 0, { tokens_per_second: 100, price_per_hour_usd: 1.44 })]
  const { page } = await open(fixture)
  await shows(page, '#state', 'live')
  assert.equal(await page.locator('#problems').isVisible(), false)

  const problem = { code: 'failing', message: `Cannot reach ${NASTY}`, since: '2026-06-01T11:59:00.000Z' }
  state.health = { ...healthyHealth(), status: 'error', problems: [problem] }
  state.live.stale = true
  await shows(page, '#state', 'stale: figures of 12:00:00 UTC')
  await shows(page, '#problems', `Cannot reach ${NASTY} (since 11:59:00 UTC)`)
  assert.equal(await page.locator('#state').getAttribute('aria-live'), 'polite')

  state.health = healthyHealth()
  state.live.stale = false
  await shows(page, '#state', 'live')
  await app.close()
  await shows(page, '#state', 'stale: figures of 12:00:00 UTC')
  await shows(page, '#problems', 'The server does not answer: the figures below are old')
  await shows(page, '#cost', '$4.000')
  await page.close()
})

test('the API page works under its policy without anything from elsewhere', { skip }, async (t) => {
  const { page, complaints, asked } = await open(await openServer(t), '/docs')
  await page.getByText('/api/v1/dead-letters', { exact: true }).first().waitFor({ timeout: 30_000 })
  assert.deepEqual(complaints, [])
  assert.deepEqual(
    [...asked].filter((origin) => origin !== 'null'),
    [new URL(page.url()).origin],
  )
  await page.close()
})
