// The ledger's figures in one run, with their targets beside them: what the keeper adds to the CPU of processor and
// mongod while events flow, how soon and how often cells are computed, queries of cost, `verify`, `reprice`, and
// catching up with days of marks, on both stores. By default smaller than the targets require, and the table states it;
// `--full` runs their sizes (about an hour). Nothing fails for being slow.
//
//   node test/bench/ledger/ledger.ts [--full] [--seconds 60] [--rate 20000] [--events 1000000] [--days 1] [--models-per-gpu 1]
//                        [--only feed,sqlite,mongo] [--json FILE]

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { EventStore } from '../../../src/store/event-store.ts'
import { MongoStore } from '../../../src/store/mongo/mongo-store.ts'
import { SqliteStore } from '../../../src/store/sqlite/sqlite-store.ts'
import { startMongod } from '../../servers/mongod.ts'
import { tableOf } from '../table.ts'
import { CACHE_GB, type FeedResult, measureFeed, quiet } from './feed.ts'
import { SLOTS, writeFleet } from './fleet.ts'
import { keepAll, prepareLedger, TurnedClock } from './keep.ts'
import { measureStore, type StoreResult } from './stores.ts'

const FULL = { seconds: 600, rate: 20_000, events: 10_000_000, days: 3 }
const USUAL = { seconds: 60, rate: 20_000, events: 1_000_000, days: 1 }
const { values: args } = parseArgs({
  options: {
    full: { type: 'boolean', default: false },
    seconds: { type: 'string' },
    rate: { type: 'string' },
    events: { type: 'string' },
    days: { type: 'string' },
    'models-per-gpu': { type: 'string', default: '1' },
    only: { type: 'string', default: 'feed,sqlite,mongo' },
    json: { type: 'string' },
  },
})
const usual = args.full ? FULL : USUAL
const SIZES = {
  seconds: Number(args.seconds ?? usual.seconds),
  rate: Number(args.rate ?? usual.rate),
  events: Number(args.events ?? usual.events),
  days: Number(args.days ?? usual.days),
  modelsPerGpu: Number(args['models-per-gpu']),
}

interface CatchUp {
  events: number
  cells: number
  seconds: number
  timesRealTime: number
}
type OfStore = StoreResult & { catchUp: CatchUp }

const note = (text: string) => process.stderr.write(`${text}\n`)
const parts = new Set(args.only.split(','))
const feed = parts.has('feed') ? await measureFeed({ ...SIZES, note }) : null
const sqlite = parts.has('sqlite') ? await onSqlite(measure) : null
const mongo = parts.has('mongo') ? await onMongo(measure) : null
report(feed, sqlite, mongo)

async function measure(open: (name: string) => EventStore): Promise<OfStore> {
  const month = open('month')
  const figures = await measureStore(month, { ...SIZES, note }).finally(() => month.close())
  const backlog = open('backlog')
  const catchUp = await measureCatchUp(backlog).finally(() => backlog.close())
  return { ...figures, catchUp }
}

/** Marks of days that no keeper has computed: each GPU sampled every 10 s, and as much token usage. */
async function measureCatchUp(store: EventStore): Promise<CatchUp> {
  const endMs = Date.UTC(2026, 0, 31)
  const fromMs = endMs - Math.round(SIZES.days * 1440) * 60_000
  await prepareLedger(store, endMs)
  note(`Writing ${SIZES.days} days of marks`)
  const fleet = { fromMs, toMs: endMs, sampleEveryMs: 10_000, tokensPerMinute: SLOTS * 6 }
  const events = await writeFleet(store, { ...fleet, modelsPerGpu: SIZES.modelsPerGpu })
  note(`Catching up with ${events} events`)
  const { cells, minutesSeconds: seconds } = await keepAll(store, new TurnedClock(endMs + 600_000))
  return { events, cells, seconds, timesRealTime: (endMs - fromMs) / 1000 / seconds }
}

async function onSqlite<T>(work: (open: (name: string) => EventStore) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-bench-'))
  note('SQLite')
  try {
    return await work((name) => new SqliteStore({ path: join(directory, `${name}.sqlite`) }))
  } finally {
    rmSync(directory, { recursive: true })
  }
}

async function onMongo<T>(work: (open: (name: string) => EventStore) => Promise<T>): Promise<T> {
  const mongod = await startMongod({ mode: 'replica-set', cacheGb: CACHE_GB })
  note('MongoDB')
  try {
    const urlOf = (name: string) => mongod.url.replace(/(:\d+)\/?(\?|$)/, `$1/${name}$2`)
    return await work((name) => new MongoStore({ url: urlOf(name), log: quiet }))
  } finally {
    await mongod.close()
  }
}

function report(feed: FeedResult | null, sqlite: OfStore | null, mongo: OfStore | null): void {
  const rows: string[][] = [['ledger', 'SQLite', 'MongoDB', 'target']]
  if (feed !== null) {
    const cpu = ({ processor, mongod }: FeedResult['keeper']) => `${processor.toFixed(1)} + ${mongod.toFixed(1)}`
    rows.push(
      ['events/s that were fed', '', feed.eventsPerSecond.toFixed(0), '20000'],
      ['CPU-s of processor + mongod without keeper', '', cpu(feed.plain), ''],
      ['  with keeper', '', cpu(feed.keeper), ''],
      ['  added by the keeper while events flow', '', `${(feed.addedShare * 100).toFixed(1)} %`, '≤ 15 %'],
      ['  added in a system at rest, CPU-s/s', '', feed.restPerSecond.toFixed(3), ''],
      [`times a cell was computed, most (mean)`, '', `${feed.computedMost} (${feed.computedMean.toFixed(2)})`, '≤ 2'],
      ['last cell there after its end, s', '', feed.thereAfterSeconds.toFixed(0), '≤ 180'],
    )
  }
  const add = (name: string, of: (result: OfStore) => number, target: string) => {
    const shown = [sqlite, mongo].map((result) =>
      result === null ? '' : Number.isFinite(of(result)) ? of(result).toFixed(0) : '-',
    )
    rows.push([name, ...shown, target])
  }
  if (sqlite !== null || mongo !== null) {
    add('/api/v1/cost, a whole hour by model, p95 ms', (result) => result.hourMs, '≤ 50')
    add('/api/v1/cost, 60 minutes of two hours, p95 ms', (result) => result.lastHourMs, '≤ 50')
    add('/api/v1/cost, 30 days by day and tenant, p95 ms', (result) => result.daysMs, '≤ 200')
    add('verify, events/s', (result) => result.verifyPerSecond, '≥ 100000')
    add('reprice, events/s', (result) => result.repricePerSecond, '≥ 100000')
    add('catching up, × real time', (result) => result.catchUp.timesRealTime, '≥ 500')
  }
  const { seconds, rate, events, days, modelsPerGpu } = SIZES
  const isFull = seconds >= FULL.seconds && rate >= FULL.rate && events >= FULL.events && days >= FULL.days
  const size = `${seconds} s at ${rate} events/s; ${events} stored events; ${days} days of marks; ${SLOTS} GPUs with ${modelsPerGpu} model(s) each`
  process.stdout.write(`Sizes: ${size}${isFull ? '' : ': SMALLER than the targets are meant for, see --full'}\n`)
  process.stdout.write(tableOf(rows))
  const json = JSON.stringify({ sizes: SIZES, isFull, feed, sqlite, mongo })
  if (args.json !== undefined) writeFileSync(args.json, `${json}\n`)
}
