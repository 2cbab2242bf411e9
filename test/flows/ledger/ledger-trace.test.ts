// The trace on a fleet of two GPUs of known prices, as a user would see it: replayed into a running pertoken, kept, and
// then reported as a spreadsheet of plain numbers says; verified; corrupted by hand, found and repaired; untouched by
// another PRICE_PER_HOUR_USD; repriced by exactly the price difference. On the embedded store and on MongoDB (the log
// embedded, so that no Kafka is needed). Spans are computed by a keeper of the test's own, which does not wait for
// marks to settle; at the end it is seen that the keeper of a running service, which does, came to the same.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { CostAnswer } from '../../../src/report/cost-answer.ts'
import type { CostFigures } from '../../../src/report/cost-figures.ts'
import { mongoForTests } from '../../servers/servers-for-tests.ts'
import { pertoken, startService, temporaryDirectory, until } from '../harness.ts'
import { readTraceRows, TRACE_HEADER, traceFile } from '../trace/trace-file.ts'
import { allSpans, embeddedPlace, keepAll, mongoPlace, type Place, verify } from './ledger-hands.ts'
import { DEFAULT_USD, fleetSamples, HOST, type Line, spreadsheet, USERS } from './ledger-spreadsheet.ts'

type T = Parameters<typeof embeddedPlace>[0]

const MINUTE = 60_000
const REPRICED_USD = 3.6
const iso = (ms: number) => new Date(ms).toISOString()

interface File {
  path: string
  flags: string[]
  events: number
}

/** The files that are replayed, with the flags of each, and what they come to. */
class Trace {
  readonly rows
  readonly samples
  /** The fleet's samples as JSON lines. */
  readonly fleet: File
  /** The trace as it is, a file for each user. */
  readonly users: File[]
  /** The same as JSON lines in one file. */
  readonly lines: File
  readonly byGpu: Line[]
  readonly byUser: Line[]
  readonly from: string
  readonly to: string

  constructor(directory: string) {
    this.rows = readTraceRows(traceFile(directory))
    this.samples = fleetSamples(this.rows)
    this.fleet = jsonLines(join(directory, 'fleet.jsonl'), this.samples)
    this.lines = jsonLines(
      join(directory, 'users.jsonl'),
      this.rows.map(({ atMs, prompt, completion }, i) => {
        const { gpu, model, tenant } = USERS[i % USERS.length]!
        const counts = { prompt_tokens: prompt, completion_tokens: completion }
        return { ts: iso(atMs), host: HOST, gpu_index: gpu, model, tenant, ...counts }
      }),
    )
    this.users = USERS.map(({ gpu, model, tenant }, user) => {
      const lines = this.rows.filter((_, i) => i % USERS.length === user).map(({ line }) => line)
      const path = join(directory, `user-${user}.csv`)
      writeFileSync(path, [TRACE_HEADER, ...lines].join('\r\n'))
      const flags = ['--host', HOST, '--gpu-index', String(gpu), '--model', model, '--tenant', tenant]
      return { path, flags, events: lines.length }
    })
    const { byGpu, byUser } = spreadsheet(this.rows, this.samples)
    this.byGpu = byGpu
    this.byUser = byUser
    const times = this.samples.map(({ ts }) => Date.parse(ts))
    this.from = iso(Math.floor(Math.min(...times) / MINUTE) * MINUTE)
    this.to = iso(Math.ceil(Math.max(...times) / MINUTE) * MINUTE)
  }

  get events(): number {
    return this.rows.length + this.samples.length
  }
}

function jsonLines(path: string, events: readonly object[]): File {
  writeFileSync(path, events.map((event) => `${JSON.stringify(event)}\n`).join(''))
  return { path, flags: [], events: events.length }
}

function replay({ env }: Place, { path, flags, events }: File): void {
  const { status, stdout, stderr } = pertoken(['replay', path, '--speed', 'max', '--json', ...flags], env)
  assert.equal(status, 0, stderr)
  assert.deepEqual(JSON.parse(stdout), { events, wrong: 0 })
}

function report({ env }: Place, { from, to }: Trace, ...flags: string[]): CostAnswer {
  const { status, stdout, stderr } = pertoken(['report', '--from', from, '--to', to, '--json', ...flags], env)
  assert.equal(status, 0, stderr)
  return JSON.parse(stdout) as CostAnswer
}

/** That the report's rows are the spreadsheet's lines: counts exactly, time to the millisecond, money to 10⁻⁹ USD. */
function assertLines(rows: readonly CostFigures[], lines: readonly Line[], label: string): void {
  const place = (...key: unknown[]) => key.map((part) => part ?? '-').join(' ')
  const found = new Map(rows.map((row) => [place(row.start, row.gpu_index, row.model, row.tenant), row]))
  const expected = new Map(lines.map((line) => [place(iso(line.startMs), line.gpu, line.model, line.tenant), line]))
  assert.deepEqual([...found.keys()].sort(), [...expected.keys()].sort(), label)
  for (const [key, line] of expected) {
    const row = found.get(key)!
    const near = (field: keyof CostFigures, want: number, by: number) =>
      assert.ok(
        Math.abs((row[field] as number) - want) <= by * (1 + 1e-6),
        `${label} ${key} ${field}: ${row[field]}, not ${want}`,
      )
    assert.deepEqual(
      [row.requests, row.prompt_tokens, row.completion_tokens, row.host, row.uncovered_seconds],
      [line.requests, line.prompt, line.completion, HOST, 0],
      `${label} ${key}`,
    )
    near('covered_seconds', line.coveredS, 1e-3)
    near('assumed_seconds', line.assumedS, 1e-3)
    near('busy_usd', line.busyUsd, 1e-9)
    near('loaded_idle_usd', line.loadedIdleUsd, 1e-9)
    near('unallocated_usd', line.unallocatedUsd, 1e-9)
    near('total_usd', line.busyUsd + line.loadedIdleUsd + line.unallocatedUsd, 1e-9)
    near('assumed_usd', line.assumedUsd, 1e-9)
  }
}

/** The whole range: every figure that is published about it, from the spreadsheet's lines. */
function assertTotals({ totals }: CostAnswer, lines: readonly Line[]): void {
  const sum = (of: (line: Line) => number) => lines.reduce((total, line) => total + of(line), 0)
  const tokens = sum(({ prompt, completion }) => prompt + completion)
  const busy = sum(({ busyUsd }) => busyUsd)
  const idle = sum(({ loadedIdleUsd }) => loadedIdleUsd)
  const unallocated = sum(({ unallocatedUsd }) => unallocatedUsd)
  const near = (found: number | null, want: number) =>
    assert.ok(found !== null && Math.abs(found - want) <= 1e-9 * Math.max(1, want), `${found}, not ${want}`)
  near(totals.busy_usd, busy)
  near(totals.loaded_idle_usd, idle)
  near(totals.unallocated_usd, unallocated)
  near(totals.total_usd, busy + idle + unallocated)
  near(totals.usd_per_million_tokens, ((busy + idle + unallocated) / tokens) * 1e6)
  near(totals.usd_per_million_tokens_busy, (busy / tokens) * 1e6)
  const inputUsd = totals.usd_per_million_input_tokens! * totals.prompt_tokens
  near((inputUsd + totals.usd_per_million_output_tokens! * totals.completion_tokens) / 1e6, busy + idle + unallocated)
  assert.equal(totals.prompt_tokens + totals.completion_tokens, tokens)
}

function assertReport(place: Place, trace: Trace): void {
  const { byGpu, byUser } = spreadsheet(trace.rows, trace.samples)
  assert.ok(
    byGpu.some(({ assumedS }) => assumedS > 0),
    'some time is covered by no sample',
  )
  assert.ok(
    byUser.some(({ model, unallocatedUsd }) => model === null && unallocatedUsd > 0),
    'some is of nobody',
  )
  assertLines(report(place, trace, '--by', 'gpu', '--step', '1m').rows, byGpu, 'by GPU')
  assertLines(report(place, trace, '--by', 'model,tenant,gpu', '--step', '1m').rows, byUser, 'by model and tenant')
  const whole = report(place, trace, '--by', 'price_kind', '--step', 'all')
  assert.deepEqual(
    whole.rows.map((row) => row.price_kind),
    ['default', 'sample'],
  )
  assert.equal(whole.final, false, 'nobody knows that no more of the trace comes')
  assertTotals(whole, byGpu)
}

function assertCorruptionIsFound(place: Place, atMs: number): void {
  const { differences, differenceCount, repaired } = verify(place, 1)
  // The cell, and the hour that is no longer the sum of its cells.
  assert.deepEqual([differenceCount, repaired], [2, 0])
  assert.deepEqual(
    differences.map(({ level, start, host, what }) => [level, start, host, what]),
    [
      ['minute', iso(atMs), HOST, 'rows'],
      ['hour', iso(Math.floor(atMs / 3_600_000) * 3_600_000), HOST, 'sum'],
    ],
  )
  const [expected, found] = [differences[0]!.expected, differences[0]!.found].map((text) =>
    Number(/busy_nano_usd=(\d+)/.exec(text)![1]),
  )
  assert.equal(found! - expected!, 1)
  const text = pertoken(['verify'], place.env)
  assert.equal(text.status, 1)
  assert.match(text.stdout, new RegExp(`2 differences[^]*minute +${iso(atMs)} +${HOST} +rows`))
}

async function anotherDefaultChangesNothing(t: T, place: Place, trace: Trace): Promise<void> {
  const before = [report(place, trace, '--by', 'gpu', '--step', '1m'), await withoutRevs(place)] as const
  const env = { ...place.env, PRICE_PER_HOUR_USD: '9.99' }
  const service = await (await startService(t, ['up'], env)).ready()
  await until('the new default has a version', async () => (await place.store.ledger.readBooks()).length === 2)
  // The samples once more: they mark every cell of the trace, so that all of it is computed again under the new book.
  replay(place, trace.fleet)
  const { outcomes } = await service.settled(trace.samples.length)
  assert.equal(outcomes.duplicate, trace.samples.length)
  assert.equal(await service.stop(), 0)
  assert.ok((await keepAll(place.store)) > trace.rows.length / 1000)
  assert.deepEqual([report(place, trace, '--by', 'gpu', '--step', '1m'), await withoutRevs(place)], before)
  assert.equal(verify(place, 0).pending, 0)
}

/** All spans, but for how often and when they were computed. */
async function withoutRevs({ store }: Place): Promise<string[]> {
  return [...(await allSpans(store)).values()].map((text) => text.replace(/"rev":\d+|"computedMs":\d+/g, ''))
}

async function repriceMovesTheDifference(place: Place, trace: Trace): Promise<void> {
  const flags = ['--by', 'model,tenant,gpu', '--step', '1m']
  const before = report(place, trace, ...flags)
  const gpuSeconds = trace.byGpu
    .filter(({ gpu }) => gpu === 0)
    .reduce((sum, { coveredS, assumedS }) => sum + coveredS + assumedS, 0)
  const difference = (gpuSeconds / 3600) * (REPRICED_USD - DEFAULT_USD)
  const book = join(place.env['DATA_DIR']!, 'prices.yaml')
  const rule = `{ id: zero, match: { host: ${HOST}, gpu_index: 0 }, kind: reserved, usd_per_hour: ${REPRICED_USD} }`
  writeFileSync(book, `currency: USD\nrules:\n  - ${rule}\n`)
  const set = pertoken(['prices', 'set', book, '--json'], place.env)
  assert.equal(set.status, 0, set.stderr)
  const { fit, ...answer } = JSON.parse(set.stdout)
  assert.deepEqual(answer, { version: 3, is_new: true })
  assert.deepEqual(fit.unmatched_rules, [], 'the rule is for a GPU that was seen')
  assert.deepEqual(report(place, trace, ...flags), before, 'a new book alone changes nothing in the past')

  const made = pertoken(['reprice', '--from', trace.from, '--to', trace.to, '--json'], place.env)
  assert.equal(made.status, 0, made.stderr)
  const { revision, summary } = JSON.parse(made.stdout)
  assert.deepEqual([revision, summary.done], [1, true])
  const nano = Number(summary.after_nano_usd) - Number(summary.before_nano_usd)
  assert.equal(nano, Math.round(difference * 1e9), 'reprice says before and after')
  assert.ok((await keepAll(place.store)) > 0)

  const after = report(place, trace, ...flags)
  const nanoOf = ({ totals }: CostAnswer) => Math.round(totals.total_usd * 1e9)
  assert.equal(nanoOf(after) - nanoOf(before), Math.round(difference * 1e9), 'exactly the price difference')
  const { byUser } = spreadsheet(trace.rows, trace.samples, [REPRICED_USD, 2.35])
  assertLines(after.rows, byUser, 'repriced')
  const of = ({ rows }: CostAnswer, gpu: number) => rows.filter((row) => row.gpu_index === gpu)
  assert.deepEqual(of(after, 1), of(before, 1), 'the other GPU is as it was')
  const old = report(place, trace, ...flags, '--revision', '0')
  assert.deepEqual({ ...old, revision: null }, before, 'the old revision can still be reported')
  assert.equal(verify(place, 0).pending, 0)
}

async function wholeStory(t: T, place: Place, { trace, files }: { trace: Trace; files: File[] }): Promise<void> {
  const env = { ...place.env, PRICE_PER_HOUR_USD: String(DEFAULT_USD) }
  const service = await (await startService(t, ['up'], env)).ready()
  for (const file of files) replay(place, file)
  const { outcomes } = await service.settled(trace.events)
  assert.equal(outcomes.stored, trace.events)
  assert.equal(await service.stop(), 0)
  await place.store.prepare()
  assert.ok((await keepAll(place.store)) > 0)

  assertReport(place, trace)
  const clean = verify(place, 0)
  assert.deepEqual([clean.differenceCount, clean.pending, clean.events >= trace.events], [0, 0, true])

  const atMs = Date.parse(trace.from) + 5 * MINUTE
  await place.corruptCell(atMs)
  assertCorruptionIsFound(place, atMs)
  const marked = verify(place, 1, '--repair')
  assert.deepEqual([marked.repaired, marked.pending], [1, 1], 'the cell is marked, and with it its hour waits')
  assert.ok((await keepAll(place.store)) > 0)
  assert.equal(verify(place, 0).pending, 0)
  assertLines(report(place, trace, '--by', 'gpu', '--step', '1m').rows, trace.byGpu, 'repaired')

  await anotherDefaultChangesNothing(t, place, trace)
  await repriceMovesTheDifference(place, trace)
}

const mongo = await mongoForTests()

test('the trace on two GPUs', async (t) => {
  // Runs beside the rest, since its keeper waits until marks have settled.
  const directory = temporaryDirectory(t)
  const patient = embeddedPlace(t, directory)
  const trace = new Trace(directory)
  const service = await (await startService(t, ['up'], { ...patient.env, PRICE_PER_HOUR_USD: '1.8' })).ready()
  for (const file of [trace.fleet, trace.lines]) replay(patient, file)
  await service.settled(trace.events)

  await t.test('costs what a spreadsheet says, through corruption, restart and repricing (embedded)', async (t) => {
    const place = embeddedPlace(t, temporaryDirectory(t))
    await wholeStory(t, place, { trace, files: [trace.fleet, ...trace.users] })
  })

  await t.test(
    'costs what a spreadsheet says, through corruption, restart and repricing (MongoDB)',
    { skip: mongo.skip },
    async (t) => {
      const directory = temporaryDirectory(t)
      await wholeStory(t, await mongoPlace(t, mongo.url, directory), { trace, files: [trace.fleet, trace.lines] })
    },
  )

  await t.test('the keeper of a running service comes to the same by itself', async () => {
    await until('minutes and hours are kept', async () => {
      const dirty = await Promise.all(
        (['minute', 'hour'] as const).map((level) => patient.store.ledger.dirtyBuckets(level, 1)),
      )
      return dirty.flat().length === 0
    })
    assertLines(report(patient, trace, '--by', 'model,tenant,gpu', '--step', '1m').rows, trace.byUser, 'by itself')
    const { differenceCount, cellsCompared, hoursCompared } = verify(patient, 0)
    assert.ok(differenceCount === 0 && cellsCompared > 0 && hoursCompared > 0)
    const answer = await service.json<CostAnswer>(`/api/v1/cost?from=${trace.from}&to=${trace.to}&by=gpu&step=1m`)
    assertLines(answer.rows, trace.byGpu, 'over HTTP')
    assert.equal(await service.stop(), 0)
  })
})
