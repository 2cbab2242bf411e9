// What must not harm the ledger: events that come an hour late, a keeper that is stopped in mid-write while another
// works, a processor that is stopped while a day is frozen. Each test proves that its fault happened: late events are
// counted, stopped processes are seen to stand still inside a call, lost races and refused events are counted. And
// verify itself: a ledger that nobody kept is not called right.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { TokenDocument } from '../../../src/domain/events/event.ts'
import { ownEventId } from '../../../src/domain/events/event-id.ts'
import { TouchedCells } from '../../../src/domain/ledger/buckets.ts'
import { SqliteLog } from '../../../src/log/sqlite/sqlite-log.ts'
import type { KeeperStatus } from '../../../src/processor/ledger/keeper.ts'
import { ensureDefault } from '../../../src/processor/prices/price-book-versions.ts'
import type { VerifyResult } from '../../../src/processor/recompute/verify.ts'
import { mongoForTests } from '../../servers/servers-for-tests.ts'
import { pertoken, type Service, startScript, startService, temporaryDirectory, until } from '../harness.ts'
import { randomOf } from './ledger-events.ts'
import { allSpans, embeddedPlace, freeze, isFrozen, keepAll, mongoPlace, type Place, verify } from './ledger-hands.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
/** The midnight around which all of it happens. */
const MIDNIGHT = Date.UTC(2023, 10, 16)
const iso = (ms: number) => new Date(ms).toISOString()
const script = (name: string) => new URL(name, import.meta.url).pathname

const mongo = await mongoForTests()
const PLACES: { name: string; skip: string | false; open: (t: TestContext) => Promise<Place> }[] = [
  { name: 'embedded', skip: false, open: async (t) => embeddedPlace(t, temporaryDirectory(t)) },
  { name: 'MongoDB', skip: mongo.skip, open: (t) => mongoPlace(t, mongo.url, temporaryDirectory(t)) },
]

/**
 * Events as producers send them: tokens every 20 s and samples every 30 s on two hosts, two hours on each side of
 * midnight.
 */
function fourHours(): object[] {
  const events: object[] = []
  for (let atMs = MIDNIGHT - 2 * HOUR; atMs < MIDNIGHT + 2 * HOUR; atMs += 10_000) {
    for (const host of ['a', 'b']) {
      const common = { ts: iso(atMs), host, gpu_index: 0 }
      if (atMs % 20_000 === 0) events.push({ ...common, model: 'm', prompt_tokens: 100, completion_tokens: 10 })
      if (atMs % 30_000 === 0) events.push({ ...common, utilization: 0.5 })
    }
  }
  return events
}

function replay({ env }: Place, name: string, events: readonly object[]): void {
  const path = join(env['DATA_DIR']!, name)
  writeFileSync(path, events.map((event) => `${JSON.stringify(event)}\n`).join(''))
  const { status, stdout, stderr } = pertoken(['replay', path, '--speed', 'max', '--json'], env)
  assert.deepEqual([status, JSON.parse(stdout)], [0, { events: events.length, wrong: 0 }], stderr)
}

for (const { name, skip, open } of PLACES) {
  test(`a thousand events an hour late change their cells, hours and days, and nothing else (${name})`, {
    skip,
  }, async (t) => {
    const place = await open(t)
    const service = await (await startService(t, ['up'], place.env)).ready()
    const base = fourHours()
    replay(place, 'base.jsonl', base)
    const { outcomes } = await service.settled(base.length)
    await place.store.prepare()
    await keepAll(place.store)
    const before = await allSpans(place.store)

    // On host a, ten minutes on each side of midnight; the newest event is nearly two hours further.
    const late = Array.from({ length: 1000 }, (_, n) => ({
      ...{ ts: iso(MIDNIGHT - 10 * MINUTE + n * 1200), host: 'a', gpu_index: 0, model: 'm', n },
      ...{ prompt_tokens: 1000, completion_tokens: 1 },
    }))
    replay(place, 'late.jsonl', late)
    const after = (await service.settled(base.length + late.length)).outcomes
    assert.deepEqual([after.late - outcomes.late, after.stored - outcomes.stored], [1000, 1000], 'they were late')
    assert.equal(await service.stop(), 0)
    await keepAll(place.store)

    const spans = await allSpans(place.store)
    const touched = [
      ...Array.from({ length: 20 }, (_, i) => `minute ${iso(MIDNIGHT + (i - 10) * MINUTE)} a`),
      ...[-1, 0].flatMap((i) => [`hour ${iso(MIDNIGHT + i * HOUR)} a`, `day ${iso(MIDNIGHT + i * DAY)} a`]),
    ]
    assert.deepEqual([...spans.keys()], [...before.keys()])
    // The text of a span has its rev and the time when it was computed: what is the same was not even written again.
    const changed = [...spans].filter(([key, text]) => before.get(key) !== text).map(([key]) => key)
    assert.deepEqual(changed.sort(), touched.sort())
    for (const day of [-1, 0]) {
      const key = `day ${iso(MIDNIGHT + day * DAY)} a`
      assert.equal(promptTokens(spans.get(key)!) - promptTokens(before.get(key)!), 500_000, key)
    }
    assert.equal(verify(place, 0).pending, 0)
  })
}

function promptTokens(span: string): number {
  const { rows } = JSON.parse(span) as { rows: { prompt_tokens: string }[] }
  return rows.reduce((sum, row) => sum + Number(row.prompt_tokens), 0)
}

function token(atMs: number, host: string, id: string): TokenDocument {
  return {
    ...{ _id: ownEventId(host, id), ts: new Date(atMs), host, gpu_index: 0, model: 'm', latency_ms: 1 },
    ...{ prompt_tokens: 70, completion_tokens: 7, price_per_hour_usd: 1, window_s: 30 },
    ...{ cost_per_token: null, tokens_per_second: null },
  }
}

const HOSTS = ['a', 'b', 'c', 'd', 'e']

/** An event in each minute of an hour on five hosts: documents, then marks. */
async function feed({ store }: Place, label: string, hourMs = MIDNIGHT): Promise<void> {
  const tokens: TokenDocument[] = []
  const cells = new TouchedCells()
  for (let minute = 0; minute < 60; minute++) {
    for (const host of HOSTS) {
      const atMs = hourMs + minute * MINUTE
      tokens.push(token(atMs, host, `${label}-${minute}`))
      cells.touch(host, atMs)
    }
  }
  await store.writeDocuments([], tokens)
  await store.ledger.insertMarks('minute', cells.dirtyMinutes(), Date.now())
}

test('a ledger that nobody kept, or that somebody lost a part of, is not verified', async (t) => {
  const place = await PLACES[0]!.open(t)
  await place.store.prepare()
  await ensureDefault(place.store.ledger, 1, Date.now())
  await feed(place, 'only')
  // Marked and not kept: nothing is compared, and it says so.
  const marked = pertoken(['verify', '--json'], place.env)
  assert.equal((JSON.parse(marked.stdout) as VerifyResult).pending, 300)
  // As a keeper would leave it that deletes marks and computes nothing.
  await place.removeAllMarks()
  const found = verify(place, 1)
  assert.deepEqual([found.differenceCount, found.pending, found.differences.length], [300, 0, 20])
  assert.deepEqual(found.differences[0], {
    ...{ level: 'minute', start: iso(MIDNIGHT), host: 'a', what: 'missing', expected: '1 rows', found: 'no span' },
  })
  assert.equal(verify(place, 1, '--repair').repaired, 300)
  await keepAll(place.store)
  const clean = verify(place, 0)
  assert.deepEqual([clean.pending, clean.cellsCompared, clean.hoursCompared, clean.daysCompared], [0, 300, 5, 5])
  // One minute of all hosts; their hours are no longer the sums of their cells.
  await place.removeCells(MIDNIGHT + 7 * MINUTE)
  assert.deepEqual(
    verify(place, 1).differences.map(({ level, start, host, what }) => [level, start, host, what]),
    [
      ...HOSTS.map((host) => ['minute', iso(MIDNIGHT + 7 * MINUTE), host, 'missing']),
      ...HOSTS.map((host) => ['hour', iso(MIDNIGHT), host, 'sum']),
    ],
  )
})

/** Calls of a keeper in which it is stopped, one a round. */
const MOMENTS = [
  ...[
    'tokenTotals',
    'replaceBuckets minute',
    'readRevs minute',
    'insertMarks hour',
    'deleteMarks',
    'replaceBuckets hour',
  ],
  ...['readMarks minute', 'tokenTotals', 'replaceBuckets minute', 'readRevs hour'],
]

test('a keeper stopped in mid-write while another works, and then continued, leaves nothing stale', {
  skip: mongo.skip,
}, async (t) => {
  const place = await PLACES[1]!.open(t)
  await place.store.prepare()
  await ensureDefault(place.store.ledger, 1, Date.now())
  const keepers = [await startKeeper(t, place), await startKeeper(t, place)] as [Service, Service]
  // An hour for each round, so that what is left stale is not computed again by a later one. Its cells are there
  // already, because to replace one is harder than to insert it.
  for (const round of MOMENTS.keys()) await feed(place, `${round} base`, MIDNIGHT + round * HOUR)
  await nothingMarked(place)
  const random = randomOf(11)
  let stoppedInACall = 0
  for (const [round, moment] of MOMENTS.entries()) {
    const hourMs = MIDNIGHT + round * HOUR
    const [victim, other] = round % 2 === 0 ? keepers : keepers.toReversed()
    await freeze(other!)
    const isThere = said(victim!, `> ${moment}\n`)
    await feed(place, `${round} before`, hourMs)
    await isThere
    await sleep(random() * 3)
    await freeze(victim!)
    if (victim!.output.trimEnd().split('\n').at(-1)!.startsWith('> ')) stoppedInACall++
    // The same cells get more, which only the other keeper sees in time.
    await feed(place, `${round} after`, hourMs)
    other!.child.kill('SIGCONT')
    await nothingMarked(place)
    victim!.child.kill('SIGCONT')
  }
  await nothingMarked(place)
  let racesLost = 0
  for (const keeper of keepers) {
    assert.equal(await keeper.stop(), 0)
    racesLost += (JSON.parse(keeper.output.trimEnd().split('\n').at(-1)!) as KeeperStatus).racesLost
  }
  assert.ok(stoppedInACall >= 3, `${stoppedInACall} of ${MOMENTS.length} were stopped inside a call`)
  assert.ok(racesLost > 0, 'a keeper that was continued tried to write what it had read before')
  await keepAll(place.store)
  const { differenceCount, pending, cellsCompared, hoursCompared, events } = verify(place, 0)
  assert.deepEqual([differenceCount, pending, cellsCompared], [0, 0, MOMENTS.length * 300])
  assert.equal(hoursCompared, MOMENTS.length * 5)
  assert.equal(events, MOMENTS.length * 3 * 300)
})

async function startKeeper(t: TestContext, place: Place): Promise<Service> {
  const keeper = await startScript(t, [script('./keeper-process.ts')], place.env)
  await said(keeper, 'keeping\n')
  return keeper
}

/** Resolves at once when a process says it, from now on. */
function said({ child, output }: Service, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let heard = text === 'keeping\n' ? output : ''
    const listen = (data: Buffer | string) => {
      heard += String(data)
      if (!heard.includes(text)) return
      child.stderr!.off('data', listen)
      resolve()
    }
    child.stderr!.on('data', listen)
    child.once('exit', () => reject(new Error(`It ended before it said ${text}: ${heard}`)))
    listen('')
  })
}

async function nothingMarked({ store }: Place): Promise<void> {
  await until('nothing is marked', async () => (await store.ledger.pendingMarks(0, Date.UTC(2100, 0))) === 0)
}

const GROUP = 'g'
const TOPIC = 'token'
/** Events of one append, half of them of each day. */
const EVENTS = 200

for (const { name, skip, open } of PLACES) {
  for (const stopAt of ['read', 'documents'] as const) {
    const place = stopAt === 'read' ? 'before it writes' : 'between documents and marks'
    test(
      `a processor stopped ${place} across a day's freeze, and continued, leaves the day alone (${name})`,
      { skip },
      async (t) => acrossAFreeze(t, await open(t), stopAt),
    )
  }
}

async function acrossAFreeze(t: TestContext, place: Place, stopAt: 'read' | 'documents'): Promise<void> {
  const { store, env } = place
  await store.prepare()
  await ensureDefault(store.ledger, 1, Date.now())
  const log = new SqliteLog({ path: join(env['DATA_DIR']!, 'log.sqlite') })
  t.after(() => log.close())
  await log.ensureTopics([{ name: TOPIC, partitions: 1 }])
  const names = { TOPIC_TOKEN: TOPIC, TOPIC_METRIC: 'gpu', TOPIC_DEAD: 'dead', KAFKA_GROUP: GROUP }
  const processor = await startScript(t, [script('./stopping-processor.ts')], { ...env, ...names, STOP_AT: stopAt })
  const append = async (label: string) => {
    const records = Array.from({ length: EVENTS }, (_, n) => {
      // Odd ones on the day that is frozen, even ones on the next.
      const ts = iso(MIDNIGHT + (n % 2 === 1 ? -1 : 1) * (n + 1) * MINUTE)
      const counts = { prompt_tokens: 10, completion_tokens: 1 }
      const event = { ts, host: 'h', gpu_index: 0, model: 'm', event_id: `${label}-${n}`, ...counts }
      return { key: 'h', value: Buffer.from(JSON.stringify(event)) }
    })
    await log.append(TOPIC, records)
  }
  // Positions come last: then all is stored and marked.
  const stepped = (records: number) =>
    until(`${records} records are stored (${processor.output})`, async () => {
      const positions = await store.readPositions(GROUP)
      return positions.some(({ topic, offset }) => topic === TOPIC && offset === records)
    })
  const ofDay = async (dayMs: number) => {
    const day = iso(dayMs).slice(0, 10)
    const spans = [...(await allSpans(store))].filter(([key]) => key.split(' ')[1]!.startsWith(day))
    let events = 0
    for await (const _ of store.readEvents('token', dayMs, dayMs + DAY)) events++
    return { spans, events }
  }
  const [closedMs, openMs] = [MIDNIGHT - DAY, MIDNIGHT]

  await append('first')
  await stepped(EVENTS)
  await keepAll(store)
  const before = { closed: await ofDay(closedMs), open: await ofDay(openMs) }
  assert.deepEqual([before.closed.events, before.open.events], [EVENTS / 2, EVENTS / 2])

  processor.child.kill('SIGUSR2')
  await until('it is armed', async () => processor.output.includes('armed'))
  await append('second')
  await until('it stops', async () => processor.output.includes('stops'))
  await isFrozen(processor.child.pid!)
  assert.equal(await store.ledger.pendingMarks(closedMs, closedMs + DAY), 0, 'so retention may freeze the day')
  for (const state of ['closing', 'frozen'] as const) {
    assert.ok(await store.ledger.advanceDay({ startMs: closedMs, state, sinceMs: Date.now() }))
  }
  processor.child.kill('SIGCONT')
  await stepped(2 * EVENTS)
  await append('third')
  await stepped(3 * EVENTS)
  // By the processor's clock: it was stopped for two hours.
  await keepAll(store, () => Date.now() + 3 * HOUR)

  const after = { closed: await ofDay(closedMs), open: await ofDay(openMs) }
  assert.deepEqual(after.closed.spans, before.closed.spans, 'the frozen day is as it was')
  assert.equal(after.open.events, (3 * EVENTS) / 2)
  assert.notDeepEqual(after.open.spans, before.open.spans)
  // Documents that were written before the stop are there; everything after the freeze was refused by name.
  const refused = stopAt === 'read' ? EVENTS : EVENTS / 2
  assert.equal(after.closed.events, (3 * EVENTS) / 2 - refused)
  const letters = await store.listDeadLetters({ limit: 1000 })
  assert.equal(letters.items.length, refused)
  for (const { reason, message } of letters.items) {
    assert.equal(reason, 'day_closed')
    assert.match(message, /^\/ts: 2023-11-15 is frozen by retention/)
  }
  const { skippedDays, pending } = verify(place, 0)
  assert.deepEqual([skippedDays, pending], [['2023-11-15'], 0])
  assert.equal(await processor.stop(), 0)
}
