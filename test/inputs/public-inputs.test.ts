// Every file of own-inputs.ts gives its right value, and so does every file of the same name in the collection of public
// bug reports, where that folder lies beside the repository: one table, input file → right value. The values are those
// that the reports ask for: money to the 10⁻⁹ USD, fields as they were sent, refusals with what to do.

import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { crc32 } from 'node:zlib'
import { NvidiaSmiSource } from '../../src/agent/gpu/nvidia-smi-source.ts'
import { loadConfig } from '../../src/cli/config.ts'
import { hostFindings, probeHosts } from '../../src/cli/doctor/host-findings.ts'
import { parsePriceBook } from '../../src/cli/wiring/price-book-file.ts'
import { decodeRecord } from '../../src/domain/events/decode.ts'
import type { EventKind, GpuDocument, TokenDocument } from '../../src/domain/events/event.ts'
import { recordDateOf } from '../../src/domain/events/record-time.ts'
import { Rejection } from '../../src/domain/events/rejection.ts'
import { unmatchedRules } from '../../src/domain/prices/book-fit.ts'
import { PriceBook } from '../../src/domain/prices/price-book.ts'
import { problemText } from '../../src/domain/prices/price-book-check.ts'
import { CostReading, UNKNOWN_PROGRESS } from '../../src/processor/cost/cost-reading.ts'
import { setBook } from '../../src/processor/prices/price-book-versions.ts'
import { sleepUntil } from '../../src/producers/long-sleep.ts'
import { readTrace } from '../../src/producers/trace-file.ts'
import { figuresOf } from '../../src/report/cost-figures.ts'
import { type CostQuery, costQuery } from '../../src/report/cost-query.ts'
import { focusFile, focusQuery } from '../../src/report/focus.ts'
import { openServer } from '../http/fixture.ts'
import { LedgerPlace, openSqlite } from '../processor/ledger/ledger-place.ts'
import { parseCsv } from '../report/parse-csv.ts'
import { OWN_INPUTS } from './own-inputs.ts'

const NOW_MS = Date.UTC(2026, 10, 27, 20)
const DAY = { fromMs: Date.UTC(2026, 10, 20), toMs: Date.UTC(2026, 10, 21) }
const PUBLIC = [1, 2].map((up) => new URL(`../../${'../'.repeat(up)}shared/field/inputs/`, import.meta.url).pathname)
const folder = PUBLIC.find((path) => existsSync(path))

/** What other tests hold: the documented producers, and the lines of environment.txt. */
const ELSEWHERE: Record<string, string[]> = {
  'smi-doc-exit-14.sh': ['test/flows/agent/agents-doc.test.ts'],
  'environment.txt': [
    'test/cli/own-address.test.ts',
    'test/agent/http-sink.test.ts',
    'test/store/mongo-member-names.test.ts',
  ],
}

interface Files {
  /** The text of a file of the same collection. */
  text(name: string): string
}

type Check = (file: string, files: Files, t: TestContext) => void | Promise<void>

interface Sent {
  timestampMs?: number
  headers?: Record<string, string>
}

function decode(event: unknown, { timestampMs = NOW_MS, headers }: Sent = {}): GpuDocument | TokenDocument | Rejection {
  const text = typeof event === 'string' ? event : JSON.stringify(event)
  const kind: EventKind = text.includes('prompt_tokens') ? 'token' : 'gpu'
  const pairs = Object.entries(headers ?? {}).map(([name, value]) => [name, Buffer.from(value)] as const)
  const record = { offset: 7, timestampMs, value: Buffer.from(text), headers: headers ? new Map(pairs) : null }
  return decodeRecord(kind, 'pt1l:t:0:', record, crc32, () => NOW_MS)
}

function accepted(event: unknown, sent: Sent = {}): Record<string, unknown> & { _id: string; ts: Date } {
  const document = decode(event, sent)
  if (document instanceof Rejection) assert.fail(document.message)
  return document as never
}

function rejected(event: unknown, sent: Sent = {}): Rejection {
  const rejection = decode(event, sent)
  assert.ok(rejection instanceof Rejection, 'accepted')
  return rejection
}

const eventsOf = (text: string) => [JSON.parse(text) as object].flat()

/** A ledger of these files' events, as processor and keeper make it. */
async function keep(t: TestContext, texts: readonly string[], book: unknown): Promise<LedgerPlace> {
  const { store, dispose } = openSqlite()
  t.after(dispose)
  const place = await LedgerPlace.on(store)
  await setBook(store.ledger, book, { origin: 'test', nowMs: 0 })
  place.nowMs = NOW_MS
  const documents = texts.flatMap(eventsOf).map((event) => accepted(event) as unknown as GpuDocument & TokenDocument)
  const isToken = (document: object) => 'model' in document
  await place.step(
    documents.filter((document) => !isToken(document)),
    documents.filter(isToken),
  )
  await place.settle()
  const { differenceCount, pending } = await place.verify(DAY)
  assert.deepEqual([differenceCount, pending], [0, 0])
  return place
}

const queryOf = (by: CostQuery['by']) => costQuery({ ...DAY, by, step: 'all', idle: 'own' }) as CostQuery
const sourceOf = ({ ledger }: LedgerPlace) => ({ ledger, progress: UNKNOWN_PROGRESS, latenessMs: 10_000 })

/** `host model total`, one a row. */
async function report(place: LedgerPlace): Promise<string[]> {
  const rows: string[] = []
  for await (const row of new CostReading(sourceOf(place), queryOf(['model', 'host'])).rows()) {
    const { host, model, total_usd } = figuresOf(row)
    rows.push(`${host} ${model ?? '-'} ${total_usd}`)
  }
  return rows.sort()
}

async function notesOf(place: LedgerPlace, host?: string): Promise<readonly string[]> {
  const query = { ...queryOf(['model']), ...(host === undefined ? {} : { host }) }
  const reading = new CostReading(sourceOf(place), query)
  for await (const _ of reading.rows());
  return (await reading.tail()).notes ?? []
}

const ownedBook = ({ text }: Files) => bookOf(text('book-owned.yaml'))

function bookOf(text: string) {
  const { book, problems } = parsePriceBook(text)
  assert.deepEqual(problems.map(problemText), [])
  return book!
}

async function findingsOf({ store }: LedgerPlace): Promise<string[]> {
  const { config } = loadConfig({ env: { HOSTNAME: 'here' }, envFile: '', flags: {} })
  const findings = hostFindings(await probeHosts(store), config, false)
  return findings.filter(({ ok }) => ok === false).map(({ message }) => message)
}

/** A source whose nvidia-smi is the script. */
function smiOf(t: TestContext, script: string): NvidiaSmiSource {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-inputs-'))
  const path = join(directory, 'nvidia-smi')
  writeFileSync(path, script)
  chmodSync(path, 0o755)
  const source = new NvidiaSmiSource({ path, timeoutMs: 10_000 })
  t.after(async () => {
    await source.close()
    rmSync(directory, { recursive: true, force: true })
  })
  return source
}

/** `prompt completion ts` of each event of a trace. */
async function traceOf(name: string, text: string): Promise<string[]> {
  async function* input() {
    yield Buffer.from(text)
  }
  const events: string[] = []
  for await (const item of readTrace(name, { input: input() })) {
    if ('note' in item) continue
    assert.ok('event' in item && item.topic === 'token', JSON.stringify(item))
    const { ts, prompt_tokens, completion_tokens } = item.event
    events.push(`${prompt_tokens} ${completion_tokens} ${new Date(ts).toISOString()}`)
  }
  return events
}

const CASES: Record<string, Check> = {
  'big-integer.json': (file, { text }) => {
    const { issues } = rejected(text(file))
    assert.deepEqual(
      issues.map(({ path }) => path),
      ['/trace_id'],
    )
  },
  'book-bare-star.yaml': (file, { text }) => {
    const { book, problems } = parsePriceBook(text(file))
    assert.equal(book, null)
    assert.match(problems.map(problemText).join('\n'), /^line \d: \/rules\/0\/match\/name: is "?\*H100\*.*quotes/)
  },
  'book-label-names.yaml': (file, { text }) => {
    const seen = [{ host: 'e6', gpuIndex: 0, uuid: null, name: 'NVIDIA H100 80GB HBM3' }]
    const { rules } = unmatchedRules(new PriceBook(bookOf(text(file)), 1), seen, NOW_MS)
    assert.deepEqual(
      rules.map(({ id, state, nearest }) => [id, state, nearest]),
      [['h100', 'never_seen', 'NVIDIA H100 80GB HBM3']],
    )
  },
  'book-owned.yaml': (file, { text }) => {
    const book = new PriceBook(bookOf(text(file)), 1)
    const slot = { host: 'own-1', gpuIndex: 0, uuid: null, name: null }
    assert.equal(book.ruleAt(slot, NOW_MS)?.nanoUsdPerHour, 1_000_000_000n)
  },
  'book-wrong-kind.yaml': (file, { text }) => {
    const paths = parsePriceBook(text(file)).problems.map(({ path }) => path)
    for (const field of ['id', 'match/host', 'kind', 'usd_per_hour', 'until']) {
      assert.ok(paths.includes(`/rules/0/${field}`), `${field}: ${paths.join()}`)
    }
  },
  'cloudevent-base64.json': (file, { text }) => {
    const { host, utilization, gpu_index } = accepted(text(file))
    assert.deepEqual([host, utilization, gpu_index], ['sdk', 0.5, 0])
  },
  // A minute at 1 USD/h and 0.3 kW × 0.20 USD/kWh.
  'energy-other-gpu.json': async (file, files, t) => {
    assert.deepEqual(await report(await keep(t, [files.text(file)], ownedBook(files))), ['own-1 - 0.017666667'])
  },
  'energy-zero-and-back.json': async (file, files, t) => {
    assert.deepEqual(await report(await keep(t, [files.text(file)], ownedBook(files))), ['own-1 - 0.017666667'])
  },
  'env-bom.txt': (file, { text }) => {
    const { config, problems } = loadConfig({ env: {}, envFile: text(file), flags: {} })
    assert.deepEqual([config.PRICE_PER_HOUR_USD, config.LOG_LEVEL, problems], [2.49, 'warn', []])
  },
  'host-fqdn-samples.json': async (file, files, t) => {
    const texts = [files.text(file), files.text('host-fqdn-tokens.json')]
    const parted = await keep(t, texts, ownedBook(files))
    const entry =
      /"gpu-1\.example\.com", of which no sample came.*hosts: \[\{ name: "gpu-1", aliases: \["gpu-1\.example\.com"\]/
    assert.match((await findingsOf(parted)).join('\n'), entry)
    const note = (await notesOf(parted)).join('\n')
    assert.match(note, entry)
    assert.match(note, /, and reprice: 0\.014166667 USD of this range are for it$/)
    const hosts = [{ name: 'gpu-1', aliases: ['gpu-1.example.com'] }]
    const joined = await keep(t, texts, { ...ownedBook(files), hosts })
    assert.deepEqual(await report(joined), ['gpu-1 llama-3 0.06'])
    assert.deepEqual([await findingsOf(joined), await notesOf(joined)], [[], []])
    const asked = await notesOf(joined, 'gpu-1.example.com')
    assert.deepEqual(asked, [
      '"gpu-1.example.com" is a name of host "gpu-1" in the price book: what was joined is under "gpu-1"',
    ])
    assert.deepEqual(await notesOf(joined, 'gpu-1'), [])
  },
  'host-fqdn-tokens.json': (file, { text }) =>
    assert.equal(accepted(eventsOf(text(file))[0])['host'], 'gpu-1.example.com'),
  'http-quoted-headers.txt': async (file, { text }, t) => {
    const [head, body] = text(file).split('\n\n') as [string, string]
    const { app, appended } = await openServer(t, () => ({ now: () => NOW_MS }))
    const headers = { host: 'localhost', ...Object.fromEntries(head.split('\n').slice(1).map(pairOf)) }
    const answer = await app.inject({ method: 'POST', url: '/api/v1/events', headers, payload: body.trim() })
    assert.equal(answer.statusCode, 202, answer.body)
    const { value, headers: kept } = appended[0]!.record
    const plain = { ce_specversion: '1.0', ce_type: 'x.gpu.metrics.v1', ce_source: '/my src', ce_id: 'q1' }
    const sent = Object.fromEntries(Object.entries(kept ?? {}).map(([name, text]) => [name, String(text)]))
    assert.equal(accepted(`${value}`, { headers: sent })._id, accepted(body.trim(), { headers: plain })._id)
  },
  // An hour's tokens on an hour of samples at 3.60 USD/h, from 10 s before its first sample: that minute is assumed.
  'interval-hour-samples.json': async (file, files, t) => {
    const place = await keep(t, [files.text(file), files.text('interval-hour-tokens.json')], ownedBook(files))
    assert.deepEqual(await report(place), ['box-3 mixtral 3.66'])
  },
  'interval-hour-tokens.json': (file, { text }) => assert.equal(accepted(eventsOf(text(file))[0])['interval_s'], 3600),
  'model-at-sign.json': async (file, files, t) => {
    const event = eventsOf(files.text(file))[0] as { model: string; tenant: string }
    const place = await keep(t, [files.text(file)], ownedBook(files))
    const reading = new CostReading(sourceOf(place), focusQuery(queryOf(['model', 'tenant', 'host', 'gpu'])))
    let csv = ''
    for await (const piece of focusFile(reading.rows(), { isFinal: false, commitmentOf: () => null })) csv += piece
    const [header, ...rows] = parseCsv(csv)
    const of = (name: string) => [...new Set(rows.map((row) => row[header!.indexOf(name)]))]
    assert.deepEqual([of('x_Model'), of('SubAccountId')], [[event.model], [event.tenant]])
  },
  'null-figures.json': (file, { text }) => {
    const sample = accepted(eventsOf(text(file))[0])
    assert.deepEqual([sample['utilization'], 'mem_used_mb' in sample, 'power_w' in sample], [0.5, false, false])
  },
  'null-optional.json': (file, { text }) => {
    const token = accepted(eventsOf(text(file))[0])
    assert.deepEqual(['tenant' in token, token['model'] === undefined], [false, false])
  },
  'record-stray-header.tsv': (file, { text }) => {
    const [header, value] = recordsOf(text(file))[0]!
    const [name, of] = pairOf(header)
    assert.equal(accepted(value, { headers: { [name]: of } })['prompt_tokens'], 10)
  },
  'record-times.tsv': (file, { text }) => {
    const records = recordsOf(text(file))
    assert.equal(records.length, 3)
    for (const [time, value] of records) {
      const [base, operator, factor] = /^(-?\w+)(?:([*/])(\d+))?$/.exec(time)!.slice(1)
      const nowMs = base === 'NOW' ? NOW_MS : Number(base)
      const timestampMs = operator === '*' ? nowMs * Number(factor) : nowMs / Number(factor ?? 1)
      assert.equal(recordDateOf(timestampMs), null, time)
      const isWhole = value.endsWith('}')
      if (isWhole) assert.deepEqual(accepted(value, { timestampMs }).ts, new Date(NOW_MS))
      else assert.equal(rejected(value, { timestampMs }).reason, 'not_json')
    }
  },
  'same-id-no-host.json': (file, { text }) => {
    const ids = eventsOf(text(file)).map((event) => accepted(event)._id)
    assert.equal(new Set(ids).size, 2)
  },
  'smi-banner-first.sh': async (file, { text }, t) => {
    const source = smiOf(t, text(file))
    const [gpu, ...others] = await source.read()
    assert.deepEqual([gpu?.gpuIndex, gpu?.utilization, gpu?.memUsedMb, others], [0, 0.03, 701, []])
    assert.deepEqual(source.faults, [])
    assert.match(source.notices.join(), /infoROM is corrupted/)
  },
  'smi-nvml-unknown.sh': async (file, { text }, t) => {
    await assert.rejects(
      smiOf(t, text(file)).read(),
      /Failed to initialize NVML: Unknown Error.*(container|cgroup|restart)/s,
    )
  },
  'smi-stderr-noise.sh': async (file, { text }, t) => {
    const source = smiOf(t, text(file))
    assert.equal((await source.read()).length, 1)
    assert.deepEqual(source.faults, [])
  },
  'time-float-ms.json': (file, { text }) => {
    const event = eventsOf(text(file))[0] as { ts: number }
    assert.equal(accepted(event).ts.getTime(), Math.trunc(event.ts))
  },
  'time-local-ahead.txt': (file, { text }) => {
    const { reason, message } = rejected(text(file).split('\n', 1)[0])
    assert.equal(reason, 'too_far_ahead')
    assert.match(message, /no zone.*\+08:00/)
  },
  'time-no-seconds.json': (file, { text }) => {
    assert.deepEqual(accepted(eventsOf(text(file))[0]).ts, new Date('2026-11-20T06:00:00.000Z'))
  },
  'trace-extra-column.csv': async (file, { text }) => {
    const times = ['2024-10-15T00:00:00.012Z', '2024-10-15T00:00:00.512Z']
    assert.deepEqual(await traceOf(file, text(file)), [`1823 44 ${times[0]}`, `320 12 ${times[1]}`])
  },
  'trace-gap-30-days.jsonl': async (file, { text }) => {
    const [first, second] = (await traceOf(file, text(file))).map((line) => Date.parse(line.split(' ')[2]!))
    assert.equal(second! - first!, 30 * 86_400_000)
    let nowMs = first!
    const sleep = async (ms: number) => {
      assert.ok(ms < 2 ** 31)
      nowMs += ms
    }
    await sleepUntil(second!, new AbortController().signal, { nowMs: () => nowMs, sleep })
    assert.equal(nowMs, second)
  },
  'trace-mongoexport.jsonl': async (file, { text }) => {
    const times = ['2026-11-20T10:00:00.000Z', '2026-11-20T10:00:01.000Z']
    assert.deepEqual(
      await traceOf(file, text(file)),
      times.map((time) => `100 20 ${time}`),
    )
  },
  'trace-quoted.csv': async (file, { text }) => {
    assert.deepEqual(await traceOf(file, text(file)), ['4808 10 2023-11-16T18:17:03.979Z'])
  },
  'two-gpus-one-slot.json': async (file, files, t) => {
    const place = await keep(t, [files.text(file)], ownedBook(files))
    assert.match((await findingsOf(place)).join('\n'), /"box-2" GPU 0 is sampled as GPU-c, GPU-d, which take turns/)
  },
}

function recordsOf(text: string): [string, string][] {
  const now = new Date(NOW_MS).toISOString()
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return lines.map((line) => line.replace('"ISO"', `"${now}"`).split('\t') as [string, string])
}

function pairOf(line: string): [string, string] {
  const at = line.indexOf(':')
  return [line.slice(0, at), line.slice(at + 1).trim()]
}

for (const [name, check] of Object.entries(CASES)) {
  test(`own ${name}`, (t) => check(name, { text: (file) => OWN_INPUTS[file]! }, t))
  if (folder === undefined) continue
  test(`public ${name}`, (t) => check(name, { text: (file) => readFileSync(join(folder, file), 'utf8') }, t))
}

test('every input has its right value here, or the test that has it is named', () => {
  const names = new Set([...Object.keys(OWN_INPUTS), ...(folder === undefined ? [] : readdirSync(folder))])
  assert.deepEqual(
    [...names].filter((name) => !(name in CASES) && !(name in ELSEWHERE)),
    [],
  )
})
