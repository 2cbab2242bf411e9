// The loop on the embedded log and store, in one process: hosts, live prices across restarts, redriven records, closed
// days, several members. What crashes and outages do is in test/flows.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { REDRIVE_ID_HEADER } from '../../../src/domain/events/cloudevents.ts'
import type { TokenDocument } from '../../../src/domain/events/event.ts'
import { SqliteLog } from '../../../src/log/sqlite/sqlite-log.ts'
import { redrive } from '../../../src/processor/ingest/dead-letters.ts'
import { LivePrices } from '../../../src/processor/ingest/live-prices.ts'
import { Processor, type ProcessorOptions } from '../../../src/processor/ingest/processor.ts'
import { PriceBookVersions, setBook } from '../../../src/processor/prices/price-book-versions.ts'
import { SqliteStore } from '../../../src/store/sqlite/sqlite-store.ts'
import { goodSample, goodToken } from '../../bad-records.ts'

const T0 = Date.UTC(2026, 10, 22, 12)
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
const NAMES = { topicMetric: 'gpu', topicToken: 'token', topicDead: 'dead' }

/** A log and a store in a temporary directory, and processors on them. */
class Bench {
  readonly log: SqliteLog
  readonly store: SqliteStore
  #sent = 0

  constructor(t: TestContext) {
    const directory = mkdtempSync(join(tmpdir(), 'pertoken-processor-'))
    this.log = new SqliteLog({ path: join(directory, 'log.sqlite') })
    this.store = new SqliteStore({ path: join(directory, 'store.sqlite') })
    t.after(async () => {
      await Promise.all([this.log.close(), this.store.close()])
      rmSync(directory, { recursive: true })
    })
  }

  async send(topic: 'gpu' | 'token', events: readonly unknown[], key: string | null = 'h1'): Promise<void> {
    await this.log.ensureTopics(Object.values(NAMES).map((name) => ({ name, partitions: 1 })))
    await this.log.append(
      topic,
      events.map((event) => ({ key, value: Buffer.from(typeof event === 'string' ? event : JSON.stringify(event)) })),
    )
    this.#sent += events.length
  }

  /** Runs a processor until everything that was sent has an outcome, then drains it. */
  async process({
    defaultHost = null,
    ...options
  }: Partial<ProcessorOptions> & { defaultHost?: string | null } = {}): Promise<Processor> {
    const processor = new Processor(this.log, this.store, {
      ...NAMES,
      group: 'g',
      partitions: 1,
      live: new LivePrices(new PriceBookVersions(this.store.ledger), {
        windowSeconds: 30,
        allowedLatenessSeconds: 10,
        defaultHost,
        defaultUsdPerHour: 3.6,
      }),
      log: quiet,
      now: () => T0,
      ...options,
    })
    const stop = new AbortController()
    const running = processor.run(stop.signal)
    const deadlineMs = performance.now() + 30_000
    while (processor.health().status !== 'ok' || processor.health().lag !== 0 || processor.health().open_steps > 0) {
      if (performance.now() > deadlineMs) assert.fail(JSON.stringify(processor.health()))
      await sleep(5)
    }
    stop.abort()
    await running
    return processor
  }

  async tokens(): Promise<TokenDocument[]> {
    const all: TokenDocument[] = []
    for await (const token of this.store.readEvents('token', 0, T0 * 2)) all.push(token)
    return all
  }
}

test('a token event without host gets the only host that has a GPU of that index, and says so', async (t) => {
  const bench = new Bench(t)
  await bench.send('gpu', [
    goodSample(T0, { host: 'a', gpu_index: 0 }),
    goodSample(T0, { host: 'b', gpu_index: 1 }),
    goodSample(T0, { host: 'a', gpu_index: 1 }),
  ])
  await bench.process()
  await bench.send('token', [
    goodToken(T0, { host: undefined, gpu_index: 0 }),
    goodToken(T0 + 1, { host: undefined, gpu_index: 1 }),
    goodToken(T0 + 2, { host: 'c' }),
  ])
  await bench.process()
  assert.deepEqual(
    (await bench.tokens()).map(({ host, host_inferred }) => [host, host_inferred]),
    [
      ['a', true],
      [null, undefined],
      ['c', undefined],
    ],
  )
})

test('tokens under another name of a host take the price of its samples, and keep the name that they came with', async (t) => {
  const bench = new Bench(t)
  const hosts = [{ name: 'a', aliases: ['a.example.com'] }]
  await bench.store.prepare()
  await setBook(bench.store.ledger, { currency: 'USD', hosts, rules: [] }, { origin: 'test', nowMs: T0 })
  await bench.send('gpu', [goodSample(T0, { host: 'a', gpu_index: 0, price_per_hour_usd: 9 })])
  await bench.process()
  // Another process: its window is rebuilt from the store.
  await bench.send('token', [goodToken(T0 + 1, { host: 'a.example.com', gpu_index: 0 })])
  await bench.process()
  assert.deepEqual(
    (await bench.tokens()).map(({ host, host_inferred, price_per_hour_usd }) => [
      host,
      host_inferred,
      price_per_hour_usd,
    ]),
    [['a.example.com', undefined, 9]],
  )
})

test('DEFAULT_HOST is the host of events that name none', async (t) => {
  const bench = new Bench(t)
  await bench.send('gpu', [goodSample(T0, { host: undefined })])
  await bench.send('token', [goodToken(T0, { host: undefined })])
  await bench.process({ defaultHost: 'here' })
  assert.equal((await bench.store.latestSample({}))?.host, 'here')
  assert.deepEqual(
    (await bench.tokens()).map(({ host, host_inferred }) => [host, host_inferred]),
    [['here', true]],
  )
})

test('the live window is rebuilt at a restart: prices go on as if nothing had happened', async (t) => {
  const events = Array.from({ length: 60 }, (_, i) => goodToken(T0 + i * 1000, { n: i, prompt_tokens: 10 * (i + 1) }))
  const whole = new Bench(t)
  await whole.send('gpu', [goodSample(T0 - 1000)])
  await whole.send('token', events)
  await whole.process()
  const interrupted = new Bench(t)
  await interrupted.send('gpu', [goodSample(T0 - 1000)])
  for (let from = 0; from < events.length; from += 15) {
    await interrupted.send('token', events.slice(from, from + 15))
    await interrupted.process()
  }
  const prices = async (bench: Bench) =>
    (await bench.tokens()).map(({ cost_per_token, partial }) => [cost_per_token, partial])
  assert.deepEqual(await prices(interrupted), await prices(whole))
})

test('records that come again after a crash are not counted twice in the live window', async (t) => {
  const bench = new Bench(t)
  await bench.send(
    'token',
    Array.from({ length: 10 }, (_, i) => goodToken(T0 + i * 1000)),
  )
  await bench.process()
  // As after a crash between documents and position: all is there, and is read once more.
  const [topic] = await bench.log.describe(['token'])
  await bench.store.resetPositions('g', [{ topic: 'token', topicId: topic!.topicId, partition: 0, offset: 0 }])
  const processor = await bench.process()
  assert.equal(processor.outcomes.duplicate, 10)
  assert.equal(processor.outcomes.stored, 0)
  await bench.send('token', [goodToken(T0 + 10_000)])
  await bench.process()
  assert.equal((await bench.tokens()).at(-1)?.tokens_per_second, (11 * 120) / 30)
})

test('a late event is stored without a price and counted', async (t) => {
  const bench = new Bench(t)
  await bench.send('token', [goodToken(T0), goodToken(T0 - 60_000)])
  const { outcomes } = await bench.process()
  const [late] = await bench.tokens()
  assert.deepEqual([late?.late, late?.cost_per_token], [true, null])
  assert.deepEqual([outcomes.stored, outcomes.late], [2, 1])
})

test('a redriven dead letter gets the id that it would have had', async (t) => {
  const bench = new Bench(t)
  // Two hours ahead of the log's own clock.
  await bench.send('token', [goodToken(T0), goodToken(Date.now() + 2 * 3_600_000)])
  assert.equal((await bench.process()).outcomes.rejected, 1)
  const letter = (await bench.store.listDeadLetters({ limit: 10 })).items[0]!
  assert.equal(letter.reason, 'too_far_ahead')
  await redrive(bench.log, bench.store, letter, new Date(T0))
  assert.ok((await bench.store.readDeadLetter(letter._id))?.redriven_at)
  const again = await bench.process()
  assert.equal(again.outcomes.rejected, 1, 'still ahead: refused again, at its new place')
  const { items } = await bench.store.listDeadLetters({ limit: 10 })
  const second = items.find(({ _id }) => _id !== letter._id)!
  assert.equal(second.headers[REDRIVE_ID_HEADER], letter._id)
  // Repaired by hand, as a person would before redriving: the document has the id of the first place.
  const value = Buffer.from(JSON.stringify(goodToken(T0 + 1)))
  await redrive(bench.log, bench.store, { ...second, value, value_length: value.length }, new Date(T0))
  await bench.process()
  assert.deepEqual(
    (await bench.tokens()).map(({ _id }) => _id === letter._id),
    [false, true],
  )
})

test('events of a day that retention has closed are refused by name, the others stored', async (t) => {
  const bench = new Bench(t)
  await bench.store.prepare()
  const dayMs = Date.UTC(2026, 10, 20)
  await bench.store.ledger.advanceDay({ startMs: dayMs, state: 'closing', sinceMs: T0 })
  const nextMs = dayMs + 86_400_000
  const summing = [
    // The first begins with the next day, the second a millisecond before it.
    { ...goodToken(nextMs + 60_000), interval_s: 60 },
    { ...goodToken(nextMs + 60_000), interval_s: 60.001 },
  ]
  await bench.send('token', [goodToken(dayMs + 1000), goodToken(T0), goodToken(nextMs - 1), ...summing])
  const { outcomes } = await bench.process()
  assert.deepEqual([outcomes.stored, outcomes.rejected], [2, 3])
  const { items } = await bench.store.listDeadLetters({ limit: 10 })
  assert.deepEqual(
    items.map(({ reason }) => reason),
    ['day_closed', 'day_closed', 'day_closed'],
  )
  for (const { message } of items) assert.match(message, /2026-11-20 is closing/)
  assert.equal(items.filter(({ message }) => message.startsWith('/interval_s: Begins in a day')).length, 1)
})
