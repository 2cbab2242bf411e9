// One store with a month of events, half of them in its last hour: how long queries of cost take over HTTP's own
// code, and how many events a second `verify` and `reprice` go through. With fewer events than the full ten million, a
// smaller part of each day of the month has events, as dense as at full size; the last hour grows with them.

import { DAY_MS, HOUR_MS } from '../../../src/domain/ledger/buckets.ts'
import { liveTotals } from '../../../src/domain/live/live-totals.ts'
import { buildServer } from '../../../src/http/server.ts'
import type { EventLog } from '../../../src/log/event-log.ts'
import { Outcomes } from '../../../src/processor/ingest/outcomes.ts'
import { setBook } from '../../../src/processor/prices/price-book-versions.ts'
import { reprice } from '../../../src/processor/recompute/reprice.ts'
import { verify } from '../../../src/processor/recompute/verify.ts'
import type { EventStore } from '../../../src/store/event-store.ts'
import { quiet } from './feed.ts'
import { SLOTS, writeFleet } from './fleet.ts'
import { keepAll, prepareLedger, TurnedClock } from './keep.ts'

const END_MS = Date.UTC(2026, 0, 31)
const DAYS = 30
const FULL_EVENTS = 10_000_000
const QUERIES = 30
const WARM_UP = 5

export interface StoreResult {
  events: number
  cells: number
  keepSeconds: number
  /** p95 of a query, milliseconds. */
  hourMs: number
  lastHourMs: number
  daysMs: number
  verifyPerSecond: number
  repricePerSecond: number
}

export async function measureStore(
  store: EventStore,
  options: { events: number; modelsPerGpu: number; note: (text: string) => void },
): Promise<StoreResult> {
  const { note } = options
  const fromMs = END_MS - DAYS * DAY_MS
  await prepareLedger(store, END_MS)
  note(`Writing ${options.events} events over ${DAYS} days`)
  const events = await writeMonth(store, options)
  const clock = new TurnedClock(END_MS + HOUR_MS)
  note('Keeping its ledger')
  const kept = await keepAll(store, clock)
  note(`Kept ${kept.cells} cells in ${kept.seconds.toFixed(1)} s; querying`)
  const latencies = await queryAll(store, clock)
  note('verify')
  const whole = { ledger: store.ledger, fromMs, toMs: END_MS }
  const verified = await timed(async () => {
    const result = await verify({ ...whole, nowMs: clock.now() })
    if (result.differenceCount > 0 || result.pending > 0) throw new Error(`verify: ${JSON.stringify(result)}`)
    if (result.events !== events) throw new Error(`verify read ${result.events} events: expected ${events}`)
  })
  note('reprice')
  const { version } = await setBook(
    store.ledger,
    {
      currency: 'USD',
      default_usd_per_hour: 0.9,
      rules: [{ id: 'l4', kind: 'on-demand', match: { name: 'NVIDIA L4' }, usd_per_hour: 0.7 }],
    },
    { origin: 'api', nowMs: clock.now() },
  )
  const repriced = await timed(async () => {
    const revision = await reprice({ ...whole, bookVersion: version.version, nowMs: clock.now() })
    if (revision.summary.cells < kept.cells / 2) throw new Error(`reprice saw ${revision.summary.cells} cells`)
  })
  const perSecond = (seconds: number) => events / seconds
  return {
    events,
    cells: kept.cells,
    keepSeconds: kept.seconds,
    ...latencies,
    verifyPerSecond: perSecond(verified),
    repricePerSecond: perSecond(repriced),
  }
}

export async function writeMonth(
  store: EventStore,
  { events, modelsPerGpu }: { events: number; modelsPerGpu: number },
): Promise<number> {
  const hourMs = END_MS - HOUR_MS
  const minutesOfDay = Math.min(1440, Math.max(1, Math.round((1440 * events) / FULL_EVENTS)))
  const minutes = DAYS * minutesOfDay - Math.max(0, minutesOfDay - 1380)
  const share = Math.round(events / 2)
  const thin = {
    fromMs: END_MS - DAYS * DAY_MS,
    toMs: hourMs,
    sampleEveryMs: 60_000,
    tokensPerMinute: Math.max(1, Math.round(share / minutes) - SLOTS),
    minutesOfDay,
    modelsPerGpu,
  }
  const first = await writeFleet(store, thin)
  const tokensPerMinute = Math.max(1, Math.round((events - first) / 60) - SLOTS * 6)
  const dense = { fromMs: hourMs, toMs: END_MS, sampleEveryMs: 10_000, tokensPerMinute, modelsPerGpu }
  return first + (await writeFleet(store, dense, first))
}

export async function queryAll(
  store: EventStore,
  clock: TurnedClock,
): Promise<Pick<StoreResult, 'hourMs' | 'lastHourMs' | 'daysMs'>> {
  const app = await buildServer({
    processor: {
      outcomes: new Outcomes(),
      health: () => {
        throw new Error('Health is not requested here')
      },
      live: () => ({ as_of: '', window_s: 30, stale: true, totals: liveTotals([], 30), models: [], slots: [] }),
    },
    store,
    // Queries of cost never touch the log.
    log: { description: 'none' } as EventLog,
    topics: { metric: 'gpu.metrics.v1', token: 'token.usage.v1' },
    version: '0',
    logger: quiet,
    progress: { readUpToMs: () => clock.now() },
    now: clock.now,
  })
  const query = async (fromMs: number, toMs: number, words: string): Promise<number> => {
    const range = `from=${new Date(fromMs).toISOString()}&to=${new Date(toMs).toISOString()}`
    const times: number[] = []
    for (let i = 0; i < WARM_UP + QUERIES; i++) {
      const seconds = await timed(async () => {
        const response = await app.inject(`/api/v1/cost?${range}&${words}`)
        const { rows, final } = response.json() as { rows: unknown[]; final: boolean }
        if (response.statusCode !== 200 || rows.length === 0 || !final)
          throw new Error(`Wrong response: ${response.body}`)
      })
      if (i >= WARM_UP) times.push(seconds * 1000)
    }
    return times.sort((a, b) => a - b)[Math.floor(times.length * 0.95)]!
  }
  try {
    const minute = 60_000
    return {
      hourMs: await query(END_MS - HOUR_MS, END_MS, 'by=model'),
      // What lies across two hours is read from minutes, a hundred times as many rows.
      lastHourMs: await query(END_MS - HOUR_MS - minute, END_MS - minute, 'by=model'),
      daysMs: await query(END_MS - DAYS * DAY_MS, END_MS, 'by=tenant&step=1d'),
    }
  } finally {
    await app.close()
  }
}

/** Seconds that work took. */
export async function timed(work: () => Promise<void>): Promise<number> {
  const startedMs = performance.now()
  await work()
  return (performance.now() - startedMs) / 1000
}
