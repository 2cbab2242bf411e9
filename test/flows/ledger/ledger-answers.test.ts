// Both stores give the same answers, byte for byte, to the same forty questions over the trace and 100,000 generated
// events with late, hostless and multi-GPU ones. MongoDB gets the documents in the opposite order and in other batches
// than the embedded store, so that nothing can depend on either; late events come to both after the ledger has been
// kept once.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ownEventId } from '../../../src/domain/events/event-id.ts'
import { TouchedCells } from '../../../src/domain/ledger/buckets.ts'
import { ensureDefault, setBook } from '../../../src/processor/prices/price-book-versions.ts'
import { reprice } from '../../../src/processor/recompute/reprice.ts'
import type { CostFigures } from '../../../src/report/cost-figures.ts'
import type { EventStore } from '../../../src/store/event-store.ts'
import { openServer } from '../../http/fixture.ts'
import { mongoForTests } from '../../servers/servers-for-tests.ts'
import { pertoken, temporaryDirectory } from '../harness.ts'
import { readTraceRows, traceFile } from '../trace/trace-file.ts'
import { HARD_BOOK, hardEvents, type LedgerEvents } from './ledger-events.ts'
import { embeddedPlace, keepAll, mongoPlace } from './ledger-hands.ts'
import { DEFAULT_USD, fleetSamples, USERS } from './ledger-spreadsheet.ts'

const GENERATED = 100_000
/** The tests' clock: after everything. */
const NOW_MS = Date.UTC(2023, 10, 18, 12)
const WHOLE = 'from=2023-11-15&to=2023-11-18'
const MIDNIGHT = 'from=2023-11-15T23:17:21.5Z&to=2023-11-16T01:41:59.001Z'
const EVENING = 'from=2023-11-16T18:00:00Z&to=2023-11-16T19:30:00Z'
const EDGE = 'from=2023-11-16T17:59:59.999Z&to=2023-11-16T18:00:00.001Z'
const ALL = 'model,tenant,host,gpu,price_kind'

const QUESTIONS = [
  WHOLE,
  `${WHOLE}&by=tenant`,
  `${WHOLE}&by=host`,
  `${WHOLE}&by=gpu`,
  `${WHOLE}&by=price_kind`,
  `${WHOLE}&by=model,tenant`,
  `${WHOLE}&by=model,host&step=1d`,
  `${WHOLE}&by=tenant,price_kind&step=1h`,
  `${WHOLE}&by=${ALL}`,
  `${WHOLE}&by=${ALL}&step=1d`,
  `${WHOLE}&by=gpu&step=1h&idle=spread`,
  `${WHOLE}&by=model,gpu&step=1d&idle=spread`,
  `${WHOLE}&by=model&idle=spread`,
  `${WHOLE}&by=tenant&model=llama`,
  `${WHOLE}&by=tenant&model=Llama&step=1d`,
  `${WHOLE}&by=model&tenant=zo%C3%AB`,
  `${WHOLE}&by=gpu&tenant=chat&host=h2`,
  `${WHOLE}&by=model&host=%C3%BC-host&step=1h`,
  `${WHOLE}&by=model,tenant&model=gr%C3%B6%C3%9Fe/70b&tenant=batch&step=1h`,
  `${WHOLE}&by=model&host=nowhere`,
  `${WHOLE}&by=model,tenant&format=csv`,
  `${WHOLE}&by=${ALL}&step=1h&format=csv`,
  `${WHOLE}&by=gpu,price_kind&step=1d&format=csv&idle=spread`,
  `${WHOLE}&format=focus`,
  `${WHOLE}&format=focus&step=1h&host=h1`,
  MIDNIGHT,
  `${MIDNIGHT}&by=${ALL}&step=1m`,
  `${MIDNIGHT}&by=host,tenant&step=1h`,
  `${MIDNIGHT}&by=gpu&step=1d`,
  `${MIDNIGHT}&by=model&step=1h&idle=spread`,
  `${MIDNIGHT}&by=gpu&step=1m&format=csv`,
  `${MIDNIGHT}&by=model,tenant&revision=0`,
  `${MIDNIGHT}&by=price_kind&step=1h&revision=1`,
  `${EVENING}&by=gpu&step=1m`,
  `${EVENING}&by=${ALL}&step=1h`,
  `${EVENING}&by=tenant&step=1m&host=gpu-host`,
  `${EVENING}&by=${ALL}&step=1m&format=csv`,
  `${EVENING}&format=focus&idle=spread`,
  `${EDGE}&by=${ALL}&step=1m`,
  'from=2023-11-16T20:00:00Z&to=2023-11-17T11:00:00Z&by=gpu,price_kind&step=1h',
]

/** The trace on its own two GPUs, and the generated events. */
function allEvents(directory: string): LedgerEvents {
  const { samples, tokens } = hardEvents(GENERATED)
  const rows = readTraceRows(traceFile(directory))
  for (const [n, { ts, ...sample }] of fleetSamples(rows).entries()) {
    samples.push({ _id: ownEventId('fleet', String(n)), ts: new Date(ts), ...sample })
  }
  for (const [i, { atMs, prompt, completion }] of rows.entries()) {
    const { gpu, model, tenant } = USERS[i % USERS.length]!
    tokens.push({
      ...{ _id: ownEventId('trace', String(i)), ts: new Date(atMs), host: 'gpu-host', gpu_index: gpu, model, tenant },
      ...{ prompt_tokens: prompt, completion_tokens: completion, latency_ms: 1, price_per_hour_usd: 1, window_s: 30 },
      ...{ cost_per_token: null, tokens_per_second: null },
    })
  }
  return { samples, tokens }
}

/** Documents, then marks, as a processor does; in batches of this size. */
async function deliver(store: EventStore, { samples, tokens }: LedgerEvents, size: number): Promise<void> {
  for (let from = 0; from < Math.max(samples.length, tokens.length); from += size) {
    const batch = [samples.slice(from, from + size), tokens.slice(from, from + size)] as const
    const { duplicate } = await store.writeDocuments(...batch)
    assert.equal(duplicate, 0)
    const cells = new TouchedCells()
    for (const { host, ts } of batch[0]) cells.touchAround(host, ts.getTime())
    for (const { host, ts } of batch[1]) cells.touch(host, ts.getTime())
    await store.ledger.insertMarks('minute', cells.dirtyMinutes(), NOW_MS)
  }
}

async function fill(store: EventStore, events: LedgerEvents, size: number): Promise<void> {
  const now = () => NOW_MS
  await store.prepare()
  await ensureDefault(store.ledger, DEFAULT_USD, Date.UTC(2023, 0))
  // In force from 18:31 on: in the middle of the trace.
  await setBook(store.ledger, HARD_BOOK, { origin: 'api', nowMs: Date.UTC(2023, 10, 16, 18, 30, 30) })
  const isLate = ({ late }: { late?: boolean }) => late === true
  await deliver(store, { samples: events.samples, tokens: events.tokens.filter((one) => !isLate(one)) }, size)
  assert.ok((await keepAll(store, now)) > 0)
  await deliver(store, { samples: [], tokens: events.tokens.filter(isLate) }, size)
  assert.ok((await keepAll(store, now)) > 0)
  const pinned = { fromMs: Date.UTC(2023, 10, 15, 23, 30), toMs: Date.UTC(2023, 10, 16, 0, 30), bookVersion: 2 }
  await reprice({ ledger: store.ledger, ...pinned, nowMs: NOW_MS })
  assert.ok((await keepAll(store, now)) > 0)
}

const mongo = await mongoForTests()

test('both stores answer forty questions with the same bytes', { skip: mongo.skip }, async (t) => {
  const directory = temporaryDirectory(t)
  const events = allEvents(directory)
  const count = (is: (token: LedgerEvents['tokens'][number]) => boolean) => events.tokens.filter(is).length
  assert.ok(count(({ late }) => late === true) > 5000 && count(({ host }) => host === null) > 5000)
  assert.ok(count(({ gpus }) => gpus !== undefined) > 5000)
  const embedded = embeddedPlace(t, directory)
  const mongodb = await mongoPlace(t, mongo.url, directory)
  const reversed = { samples: events.samples.toReversed(), tokens: events.tokens.toReversed() }
  // One after the other: the embedded store answers at once, and would leave the other's sockets no turn.
  await fill(embedded.store, events, 4000)
  await fill(mongodb.store, reversed, 3333)

  const ask = async (store: EventStore) => {
    const progress = { readUpToMs: () => NOW_MS - 1 }
    const { app } = await openServer(t, () => ({ store, progress, now: () => NOW_MS }))
    return async (question: string) => {
      const answer = await app.inject(`/api/v1/cost?${question}`)
      assert.equal(answer.statusCode, 200, `${question}: ${answer.body}`)
      return answer.body
    }
  }
  const [askEmbedded, askMongo] = [await ask(embedded.store), await ask(mongodb.store)]
  const answers = new Map<string, string>()
  assert.equal(QUESTIONS.length, 40)
  for (const question of QUESTIONS) {
    const [one, other] = await Promise.all([askEmbedded(question), askMongo(question)])
    assertSameText(one, other, question)
    answers.set(question, one)
  }
  assert.equal(new Set(answers.values()).size, QUESTIONS.length, 'no two questions have the same answer')

  await t.test('and the answers are about these events', () => {
    const totals = (question: string) => JSON.parse(answers.get(question)!).totals as CostFigures
    const whole = totals(WHOLE)
    const sum = (of: (token: LedgerEvents['tokens'][number]) => number) =>
      events.tokens.reduce((all, token) => all + of(token), 0)
    assert.deepEqual(
      [whole.prompt_tokens, whole.completion_tokens, whole.cached_prompt_tokens, whole.requests],
      [
        sum((token) => token.prompt_tokens),
        sum((token) => token.completion_tokens),
        sum((token) => token.cached_prompt_tokens ?? 0),
        sum((token) => token.requests ?? 1),
      ],
    )
    assert.ok(whole.total_usd > 50 && whole.assumed_usd > 0 && whole.uncovered_usd > 0 && whole.unallocated_usd > 0)
    for (const question of QUESTIONS.slice(0, 13)) assert.deepEqual(totals(question), whole, question)
    const kinds = JSON.parse(answers.get(`${WHOLE}&by=price_kind`)!).rows.map(
      (row: { price_kind: string }) => row.price_kind,
    )
    assert.deepEqual(kinds, ['default', 'on-demand', 'owned', 'reserved', 'sample', 'spot'])
    assert.equal(JSON.parse(answers.get(WHOLE)!).final, true)
  })

  await t.test('page by page, and as the table of the command line', async () => {
    const question = `${EVENING}&by=model,tenant,gpu&step=1h&limit=37`
    let cursor = ''
    let pages = 0
    for (; pages === 0 || cursor !== ''; pages++) {
      const next = cursor === '' ? question : `${question}&cursor=${encodeURIComponent(cursor)}`
      const [one, other] = await Promise.all([askEmbedded(next), askMongo(next)])
      assertSameText(one, other, next)
      cursor = JSON.parse(one).cursor ?? ''
    }
    assert.ok(pages > 3)
    const words = ['report', '--from', '2023-11-15', '--to', '2023-11-18', '--by', 'model,tenant', '--step', '1d']
    const [one, other] = [embedded, mongodb].map(({ env }) => pertoken(words, env))
    assert.deepEqual([one!.status, other!.status], [0, 0], one!.stderr + other!.stderr)
    assertSameText(one!.stdout, other!.stdout, words.join(' '))
    assert.match(one!.stdout, /größe\/70b/)
  })
})

/** Names the first place where they differ: the whole of both would be megabytes. */
function assertSameText(one: string, other: string, what: string): void {
  if (one === other) return
  let at = 0
  while (one[at] === other[at]) at++
  const around = (text: string) => text.slice(Math.max(0, at - 150), at + 100)
  assert.fail(`${what}\nembedded: …${around(one)}\nMongoDB:  …${around(other)}`)
}
