// The page where the server asks for API tokens, in a real browser: it asks for one, says when it is wrong, keeps it
// for the tab, and shows its figures with it.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { chromium } from 'playwright-core'
import { liveModel, liveSlot, openServer } from '../fixture.ts'
import { accessOf, makeToken, writeTokens } from './tokens-fixture.ts'

const CHROMIUM = '/usr/bin/chromium'
const isMissing = !existsSync(CHROMIUM) && process.env['CI'] !== 'true'
const skip = isMissing ? `${CHROMIUM} is missing: apt-get install -y chromium` : false

test('the page asks for a token, refuses a wrong one, and shows its figures with a right one', { skip }, async (t) => {
  const [reader, sender] = [makeToken('reader', ['read']), makeToken('sender', ['ingest'])]
  const access = accessOf(t, [reader, sender])
  const { app, state } = await openServer(t, () => ({ access }))
  state.live.models = [liveModel('qwen', 40, 3.5)]
  state.live.slots = [liveSlot('h1', 0, { tokens_per_second: 40, price_per_hour_usd: 0.504 })]
  await app.listen({ host: '127.0.0.1', port: 0 })
  const args = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking']
  const browser = await chromium.launch({ executablePath: CHROMIUM, args })
  t.after(() => browser.close())
  const page = await browser.newPage({ viewport: { width: 360, height: 740 } })
  const errors: string[] = []
  page.on('pageerror', (error) => errors.push(String(error)))
  const shows = (selector: string, hasText: string) => page.locator(selector, { hasText }).waitFor()
  const give = async (token: string) => {
    await page.locator('#token').fill(token)
    await page.locator('#login button').click()
  }
  await page.goto(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}/`)

  await shows('#state', 'needs a token')
  assert.equal(await page.locator('#token').getAttribute('type'), 'password')
  assert.ok(((await page.evaluate('document.documentElement.scrollWidth')) as number) <= 360)
  await give('pt_wrong')
  await shows('#login-hint', 'wrong or was removed')
  await give(sender.secret)
  await shows('#login-hint', 'The API token "sender" is for ingest')
  await give(reader.secret)
  await shows('#cost', '$3.500')
  await shows('#state', 'live')
  assert.equal(await page.locator('#login').isVisible(), false)
  assert.equal(await page.locator('#token').inputValue(), '')
  // Links carry no token: those that would need one are not there.
  assert.deepEqual(await page.locator('nav a:visible').allInnerTexts(), ['API', 'Health'])

  await page.reload()
  await shows('#cost', '$3.500')
  assert.equal(new URL(page.url()).search, '')
  writeTokens(access.path, [sender])
  access.tokens.look()
  await shows('#state', 'needs a token')
  await page.locator('#login').waitFor()
  assert.equal(await page.evaluate('sessionStorage.length'), 0)
  assert.deepEqual(errors, [])
})
