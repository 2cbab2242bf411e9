// A default that is changed counts from now on, and the commands do not promise more: what `prices set` announces for
// the last day is what `reprice` does, and where that is nothing because the past keeps its default, both print what
// corrects it; done as printed, it does.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type Command, parseWords } from '../../src/cli/command.ts'
import { prices } from '../../src/cli/commands/prices.ts'
import { reprice } from '../../src/cli/commands/reprice.ts'
import { CELL_MS, floorTo, HOUR_MS } from '../../src/domain/ledger/buckets.ts'
import { ensureDefault } from '../../src/processor/prices/price-book-versions.ts'
import { SqliteStore } from '../../src/store/sqlite/sqlite-store.ts'
import { sample } from '../processor/ledger/ledger-place.ts'

const COMMANDS: Record<string, Command> = { prices, reprice }
const folder = mkdtempSync(join(tmpdir(), 'pertoken-default-'))
const startMs = floorTo(CELL_MS, Date.now()) - 2 * HOUR_MS

before(async () => {
  const store = new SqliteStore({ path: join(folder, 'store.sqlite') })
  await store.prepare()
  await ensureDefault(store.ledger, 0.6, startMs - HOUR_MS)
  await store.writeDocuments(
    Array.from({ length: 61 }, (_, i) => sample(startMs + i * CELL_MS)),
    [],
  )
  await store.close()
})
after(() => rmSync(folder, { recursive: true }))

async function run(...words: string[]): Promise<string> {
  const [name, ...rest] = words as [string, ...string[]]
  const printed: string[] = []
  const parsed = parseWords(name, COMMANDS[name]!, rest, { DATA_DIR: folder, LOG_LEVEL: 'silent' })
  const signal = new AbortController().signal
  const code = await COMMANDS[name]!.run({ ...parsed, signal, print: (text) => void printed.push(text), say: () => {} })
  assert.equal(code, 0)
  return printed.join('')
}

function setBook(text: string): Promise<string> {
  const path = join(folder, 'book.yaml')
  writeFileSync(path, `currency: USD\n${text}\nrules: []\n`)
  return run('prices', 'set', path)
}

/** The line of a printed table with the totals. */
const totalOf = (text: string) => /^total.*$/m.exec(text)?.[0].split(/\s+/).slice(1) ?? null

test('a changed default: set and reprice agree, and print what corrects the past', async () => {
  const kept = /the past keeps 0.6 USD\/h, also when it is repriced to this version/
  const set = await setBook('default_usd_per_hour: 1.2')
  assert.match(set, /version 2 is set/)
  assert.match(set, /The last day costs the same with this version/)
  assert.equal(totalOf(set), null)
  assert.match(set, kept)
  const nothing = await run('reprice', '--from', '1d', '--to', '0h', '--version', '2')
  assert.deepEqual(totalOf(nothing), ['0.6000', '0.6000', '0.0000'])
  assert.match(nothing, kept)
  const remedy = /^ {2}(defaults: .*)$/m.exec(set)![1]!
  assert.equal(/^ {2}(defaults: .*)$/m.exec(nothing)![1], remedy)
  const corrected = await setBook(remedy)
  assert.deepEqual(totalOf(corrected), ['0.6000', '1.2000', '+0.6000'])
  assert.doesNotMatch(corrected, /the past keeps/)
  assert.match(corrected, /To correct it: pertoken reprice --from TIME --to TIME --version 3/)
  const done = await run('reprice', '--from', '1d', '--to', '0h', '--version', '3')
  assert.deepEqual(totalOf(done), totalOf(corrected))
})

test('what is no change of the default prints no remedy for it', async () => {
  const set = await setBook(
    'defaults: [{ from_ms: null, usd_per_hour: 1 }, { from_ms: 1700000000000, usd_per_hour: 2 }]',
  )
  assert.doesNotMatch(set, /the past keeps/)
})
