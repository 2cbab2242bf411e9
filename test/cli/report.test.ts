// The commands about cost on a real embedded store that the test has filled through the ledger's own computation: what
// they print, how they end, and that they say the same as a running server. Every command of docs/reports.md is run.

import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type Command, parseWords, UsageError } from '../../src/cli/command.ts'
import { prices } from '../../src/cli/commands/prices.ts'
import { report } from '../../src/cli/commands/report.ts'
import { reprice } from '../../src/cli/commands/reprice.ts'
import { verify } from '../../src/cli/commands/verify.ts'
import { parseInstant } from '../../src/cli/parse-instant.ts'
import type { GpuDocument, TokenDocument } from '../../src/domain/events/event.ts'
import { ownEventId } from '../../src/domain/events/event-id.ts'
import { HOUR_MS } from '../../src/domain/ledger/buckets.ts'
import { ensureDefault, setBook } from '../../src/processor/prices/price-book-versions.ts'
import { ledgerAsOf } from '../../src/processor/recompute/ledger-as-of.ts'
import { FOCUS_COLUMNS } from '../../src/report/focus.ts'
import type { LedgerBucket } from '../../src/store/ledger-store.ts'
import { SqliteStore } from '../../src/store/sqlite/sqlite-store.ts'
import { openServer } from '../http/fixture.ts'
import { parseCsv } from '../report/parse-csv.ts'
import { sumRows } from '../report/rows.ts'

const COMMANDS: Record<string, Command> = { report, prices, reprice, verify }
const START_MS = Date.UTC(2026, 5, 1, 12)
const DAY = ['--from', '2026-06-01', '--to', '2026-06-02']
const folder = mkdtempSync(join(tmpdir(), 'pertoken-report-'))
const guide = readFileSync('docs/reports.md', 'utf8')
const home = process.cwd()

/** Runs a command on the test's store; answers what it printed and its exit code, 2 for wrong usage. */
async function run(words: readonly string[], signal = new AbortController().signal) {
  const [name, ...rest] = words
  const command = COMMANDS[name!]!
  const [printed, said]: [string[], string[]] = [[], []]
  const told = () => ({ out: printed.join(''), err: said.join('') })
  try {
    const env = { DATA_DIR: folder, LOG_LEVEL: 'silent' }
    const parsed = parseWords(name!, command, rest, env)
    const say = (text: string) => void said.push(text)
    const code = await command.run({ ...parsed, signal, print: (text) => void printed.push(text), say })
    return { code, ...told() }
  } catch (error) {
    return { code: error instanceof UsageError ? 2 : 1, out: told().out, err: (error as Error).message }
  }
}

function sample(second: number, gpuIndex: number, utilization: number): GpuDocument {
  const ts = new Date(START_MS + second * 1000)
  const _id = ownEventId('h1', `s${gpuIndex}-${second}`)
  const gpu = { name: 'NVIDIA H100', uuid: `GPU-${gpuIndex}`, utilization, power_w: 500 }
  return { _id, ts, host: 'h1', gpu_index: gpuIndex, ...gpu } as unknown as GpuDocument
}

function usage(second: number, tenant: string): TokenDocument {
  const ts = new Date(START_MS + second * 1000)
  const counts = { prompt_tokens: 900, completion_tokens: 100, latency_ms: 10 }
  const _id = ownEventId('h1', `t${second}`)
  return { _id, ts, host: 'h1', gpu_index: 0, model: 'llama', tenant, ...counts } as unknown as TokenDocument
}

/** Two GPUs for ten minutes, one of them used; the ledger as the keeper makes it. */
async function fill(path: string): Promise<void> {
  const store = new SqliteStore({ path })
  await store.prepare()
  const seconds = Array.from({ length: 61 }, (_, i) => i * 10)
  const samples = seconds.flatMap((second) => [sample(second, 0, 0.5), sample(second, 1, 0)])
  const tokens = seconds.slice(0, 60).map((second, i) => usage(second + 1, i % 2 === 0 ? 'chat' : 'batch'))
  await store.writeDocuments(samples, tokens)
  await ensureDefault(store.ledger, 3.6, START_MS - HOUR_MS)
  const range = { fromMs: START_MS, toMs: START_MS + HOUR_MS }
  const cells: LedgerBucket[] = []
  for await (const cell of ledgerAsOf({ ledger: store.ledger, ...range, revision: 0 })) cells.push(cell)
  const rows = sumRows(cells.flatMap((cell) => cell.rows))
  const sum = { host: 'h1', rev: 0, bookVersions: [1], rows, totals: null, capped: 0, computedMs: START_MS }
  const dayMs = START_MS - 12 * HOUR_MS
  const sums = [
    { ...sum, level: 'hour' as const, startMs: START_MS },
    { ...sum, level: 'day' as const, startMs: dayMs },
  ]
  await store.ledger.replaceBuckets([...cells, ...sums])
  await store.close()
}

before(async () => {
  await fill(join(folder, 'store.sqlite'))
  process.chdir(folder)
})
after(() => {
  process.chdir(home)
  rmSync(folder, { recursive: true, force: true })
})

test('report prints a table with busy, idle and total dollars, and says whether it is final', async () => {
  const { code, out } = await run(['report', ...DAY, '--by', 'model,tenant'])
  assert.equal(code, 0)
  assert.match(out, /^2026-06-01T00:00:00.000Z to 2026-06-02T00:00:00.000Z \((not )?final/)
  const lines = out.split('\n')
  // 600 s of GPU 1 without a model at 3.60 USD/h; GPU 0 the same, half busy, split over two tenants.
  assert.match(lines.find((line) => line.startsWith('(none)'))!, /\s0\.6000\s+0\.6000\s/)
  assert.match(lines.find((line) => /^llama +batch/.test(line))!, /\s30\s+27,000\s+3,000\s+0\.1500\s+0\.1500\s/)
  assert.match(lines.find((line) => line.startsWith('total'))!, /\s1\.2000\s+0\.0000\s+20\.0000\s+5\.0000\s+100 %/)
})

test('json, csv and focus say the same; an answer from a running server is the same, byte for byte in CSV', async (t) => {
  const { app } = await openServer(t, () => ({ store: openedStore }))
  await app.listen({ host: '127.0.0.1', port: 0 })
  const url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
  const json = JSON.parse((await run(['report', ...DAY, '--by', 'tenant', '--json'])).out)
  assert.equal(json.totals.total_usd, 1.2)
  const rows = json.rows.map((each: Record<string, unknown>) => [each['tenant'], each['total_usd']])
  assert.deepEqual(rows, [
    [null, 0.6],
    ['batch', 0.3],
    ['chat', 0.3],
  ])
  const remote = JSON.parse((await run(['report', ...DAY, '--by', 'tenant', '--json', '--url', url])).out)
  assert.deepEqual([remote.rows, remote.totals], [json.rows, json.totals])
  for (const format of ['csv', 'focus']) {
    const words = ['report', ...DAY, '--format', format]
    const own = await run(words)
    assert.equal(own.code, 0)
    const fromServer = await run([...words, '--url', url])
    assert.equal(fromServer.out, own.out, format)
    for (const { err } of [own, fromServer]) assert.match(err, /^The file is not final: .*\n$/, format)
  }
  const focus = parseCsv((await run(['report', ...DAY, '--format', 'focus'])).out)
  const paid = focus.slice(1).reduce((sum, line) => sum + Number(line[FOCUS_COLUMNS.indexOf('EffectiveCost')]), 0)
  assert.ok(Math.abs(paid - 1.2) < 1e-9)
  const table = await run(['report', ...DAY, '--url', url])
  assert.match(table.out, /^llama\s/m)
  const refused = await run(['report', ...DAY, '--revision', '9', '--url', url])
  assert.deepEqual([refused.code, /revision: Is 9/.test(refused.err)], [2, true])
})

const openedStore = new SqliteStore({ path: join(folder, 'store.sqlite') })
after(() => openedStore.close())

test('wrong words end in exit code 2 with what is allowed', async () => {
  const cases: [string[], RegExp][] = [
    [['report', '--by', 'modle'], /--by is "modle": expected any of model, tenant/],
    [['report', '--step', '1s'], /--step is "1s": expected one of 1m/],
    [['report', '--from', 'yesterday'], /--from is "yesterday": expected an instant/],
    [['report', '--from', '2026-06-02', '--to', '2026-06-01'], /--to: .*later instant/],
    [['report', '--from', '1000d', '--step', '1m'], /--step: .*one of 1h, 1d, all/],
    [['report', '--format', 'xml'], /--format is "xml"/],
    [['report', '--json', '--format', 'csv'], /contradicts/],
    [['report', ...DAY, '--revision', '5'], /--revision is 5: there is none yet/],
    [['report', '--url', 'localhost'], /--url is "localhost": expected an address/],
    [['report', 'now'], /Unknown words/],
    [['prices', 'set'], /Expected list, show, set FILE/],
    [['prices', 'explain'], /needs --gpu INDEX/],
    [['reprice', '--from', '1h'], /Expected --from TIME and --to TIME/],
    [['reprice', ...DAY, '--version', '9'], /--version is 9/],
    [['verify', '--from', '1h', '--to', '2h'], /later instant/],
  ]
  for (const [words, message] of cases) {
    const { code, err } = await run(words)
    assert.equal(code, 2, words.join(' '))
    assert.match(err, message)
  }
  const gone = await run(['report', '--url', 'http://127.0.0.1:9'])
  assert.deepEqual([gone.code, /Cannot reach http:\/\/127.0.0.1:9/.test(gone.err)], [1, true])
})

test('instants are dates, ISO 8601, epoch milliseconds, now, or so long ago', () => {
  const now = START_MS
  const cases: [string, number][] = [
    ['now', now],
    ['90m', now - 90 * 60_000],
    ['24h', now - 86_400_000],
    ['7d', now - 7 * 86_400_000],
    ['2026-06-01', START_MS - 12 * HOUR_MS],
    ['2026-06-01T12:00:00Z', START_MS],
    [String(START_MS), START_MS],
    ['12', Number.NaN],
    ['tomorrow', Number.NaN],
  ]
  for (const [text, expected] of cases) assert.equal(parseInstant(text, now), expected, text)
})

test('a wrong price book is refused with lines and exit code 1, and the old one stays in force', async () => {
  const path = join(folder, 'wrong.yaml')
  writeFileSync(path, 'currency: EUR\nrules:\n  - { id: a, match: { host: h }, kind: spot, usd_per_hour: -1 }\n')
  const { code, err } = await run(['prices', 'set', path])
  assert.equal(code, 1)
  assert.match(err, /wrong\.yaml: line 1: \/currency: is "EUR", expected USD/)
  assert.match(err, /wrong\.yaml: line 3: \/rules\/0\/usd_per_hour: is -1/)
  assert.match(err, /2 problems: the old one stays in force/)
  const listing = JSON.parse((await run(['prices', 'list', '--json'])).out)
  assert.equal(listing.versions.length, 1)
})

/** The commands of the guide in order, without what is behind #. */
function commandsOf(text: string): string[] {
  const blocks = [...text.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap(([, block]) => block!.trim().split('\n'))
  return blocks.map((line) => line.replace(/\s+#.*$/, '').trim())
}

test('every command of docs/reports.md does what the page says', async (t) => {
  writeFileSync(join(folder, 'prices.yaml'), /```yaml\n([\s\S]*?)```/.exec(guide)![1]!)
  const { app } = await openServer(t, () => ({ store: openedStore }))
  const commands = commandsOf(guide)
  assert.ok(commands.length >= 14)
  const outputs = new Map<string, string>()
  for (const command of commands) {
    const curl = /^curl 'localhost:8080(\/.*)'$/.exec(command)
    if (curl !== null) {
      const answer = await app.inject(curl[1]!)
      assert.equal(answer.statusCode, 200, command)
      outputs.set(command, answer.body)
      continue
    }
    const { code, out, err } = await run(command.split(/\s+/).slice(1))
    assert.equal(code, 0, `${command}: ${err}${out}`)
    assert.match(command, /^pertoken /)
    outputs.set(command, out)
  }
  const of = (pattern: RegExp) => [...outputs].find(([command]) => pattern.test(command))![1]
  assert.match(of(/prices set/), /version 2 is set/)
  assert.match(of(/prices list/), /1 .*since ever.*environment/)
  // A minute passes before the new version is in force.
  assert.match(of(/prices show/), /^Price book version 1: no rules\n/)
  assert.match(of(/prices explain/), /h1\/0 \(NVIDIA H100, GPU-0\)/)
  // Both GPUs: from 3.60 to 2.50 USD/h on GPU 1, and to 0.856… + 0.13 of energy on GPU 0.
  assert.match(of(/reprice/), /^total\s+1\.2000\s+0\.\d+\s+-/m)
  assert.match(of(/--revision 0/), /revision 0 .*\n[\s\S]*^total\s.*1\.2000/m)
})

test('a book is set by its text alone: the same again makes no version', async () => {
  const first = await setBook(openedStore.ledger, { currency: 'USD', rules: [] }, { origin: 'cli', nowMs: Date.now() })
  const path = join(folder, 'same.json')
  writeFileSync(path, '{"currency": "USD", "rules": []}')
  const { out } = await run(['prices', 'set', path])
  assert.match(out, new RegExp(`version ${first.version.version} says the same already`))
})

test('prices show has the rules in force with their prices, and a server returns the same', async (t) => {
  const { app, store } = await openServer(t)
  const own = { kind: 'owned', purchase_usd: 26_280, life_years: 3, usd_per_kwh: 0.2 }
  const rules = [
    { id: 'own', match: { host: 'h1', gpu_index: 0 }, from: '2026-01-01', ...own },
    { id: 'h100', match: { name: '*H100*' }, kind: 'spot', usd_per_hour: 2.5 },
  ]
  await setBook(store.ledger, { currency: 'USD', rules }, { origin: 'test', nowMs: START_MS })
  await store.writeDocuments([sample(0, 0, 0.5)], [])
  await app.listen({ host: '127.0.0.1', port: 0 })
  const url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
  const { code, out } = await run(['prices', 'show', '--url', url])
  assert.equal(code, 0)
  assert.match(out, /^Price book version 1\n/)
  assert.match(out, /^own +owned +host h1, gpu_index 0 +1 +2026-01-01 +-$/m)
  assert.match(out, /^h100 +spot +name \*H100\* +2\.5 +- +-$/m)
  const { in_force: effective, fit } = JSON.parse((await run(['prices', 'show', '--url', url, '--json'])).out)
  assert.deepEqual([effective.version, fit.unmatched_rules, fit.gpus_seen], [1, [], 1])
})

test('a rule that fits no GPU is reported by set and show, over the store and over HTTP', async (t) => {
  const { app } = await openServer(t, () => ({ store: openedStore }))
  await app.listen({ host: '127.0.0.1', port: 0 })
  const url = ['--url', `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`]
  const rule = (name: string) => ({ id: name, match: { name }, kind: 'spot', usd_per_hour: 1 })
  const path = join(folder, 'label.json')
  const lines = [
    /^Rule "NVIDIA-H100" matches name "NVIDIA-H100", which no GPU has that was seen; seen: "NVIDIA H100"$/m,
    /^GPUs were looked for since 2026-05-02T00:00:00\.000Z$/m,
    /^No rule fits h1\/0 \(NVIDIA H100\), h1\/1 \(NVIDIA H100\): the default, \d/m,
  ]
  for (const [i, way] of [[], url].entries()) {
    const book = { currency: 'USD', default_usd_per_hour: 3 + i, rules: [rule('NVIDIA-H100')] }
    writeFileSync(path, JSON.stringify(book))
    const set = await run(['prices', 'set', path, ...way])
    assert.equal(set.code, 0, set.err)
    for (const line of lines) assert.match(set.out, line)
    const again = JSON.parse((await run(['prices', 'set', path, ...way, '--json'])).out)
    assert.deepEqual([again.is_new, again.fit.unmatched_rules_count, again.fit.default_gpus_count], [false, 1, 2])
    const unknown = await run(['prices', 'explain', '--host', 'h1', '--gpu', '7', ...way])
    assert.equal(unknown.code, 1)
    assert.match(unknown.err, /No GPU 7 of host "h1" was ever seen: see/)
  }
})
