// What the keeper adds while events flow: the same feed through Kafka into two processors, one with a keeper and one
// without, each with a mongod of its own, and the CPU of processor and mongod together. Both run for the same time; one
// is fed after the other, so that the keeper's cells become due while the other is fed. A system at rest costs CPU too
// (the keeper looks once a second), so rest is measured first, and each is charged with its rest for the time of the
// feed only.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { CELL_MS, floorTo } from '../../../src/domain/ledger/buckets.ts'
import { KafkaLog } from '../../../src/log/kafka/kafka-log.ts'
import { MongoStore } from '../../../src/store/mongo/mongo-store.ts'
import { type KafkaServer, startKafka } from '../../servers/kafka/kafka.ts'
import { type MongodServer, startMongod } from '../../servers/mongod.ts'
import { cpuSeconds } from '../process-cost.ts'
import { SLOTS, sampleOf, usageOf } from './fleet.ts'

const PARTITIONS = 12
const REST_SECONDS = 10
const TICK_MS = 50
/** What deploy/vm2-mongodb gives MongoDB of a machine's 4 GB. */
export const CACHE_GB = 1.5
/** After the feed's end every cell must be there within this time. */
const MAX_WAIT_MS = 200_000

export interface FeedResult {
  seconds: number
  eventsPerSecond: number
  /** CPU-seconds while events flow: processor and mongod. */
  plain: { processor: number; mongod: number }
  keeper: { processor: number; mongod: number }
  /** CPU that the keeper adds while events flow, and that it costs in a system at rest, CPU-seconds a second. */
  addedShare: number
  restPerSecond: number
  cells: number
  computedMost: number
  computedMean: number
  /** How long after its end the last cell was there as it stayed, seconds. */
  thereAfterSeconds: number
}

interface Side {
  way: 'plain' | 'keeper'
  mongod: MongodServer
  url: string
  child: ChildProcess
  lines: AsyncIterator<string>
}

interface Cpu {
  processor: number
  mongod: number
}

export const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

export async function measureFeed(options: {
  seconds: number
  rate: number
  note: (text: string) => void
}): Promise<FeedResult> {
  const { seconds, rate, note } = options
  const kafka = await startKafka({ version: '3.9', mode: 'kraft', heapMb: 768 })
  const log = new KafkaLog({ bootstrap: kafka.bootstrap, log: quiet })
  const sides: Side[] = []
  try {
    for (const way of ['keeper', 'plain'] as const) {
      await log.ensureTopics(['gpu', 'token'].map((kind) => ({ name: `${way}.${kind}`, partitions: PARTITIONS })))
      sides.push(await startSide(way, kafka))
    }
    const [keeper, plain] = sides as [Side, Side]
    // Topics, indexes and the first fetches are done by then.
    await sleep(3000)
    const rest = await measuring(sides, () => sleep(REST_SECONDS * 1000))
    const startedMs = performance.now()
    let events = 0
    let fedMs = 0
    let endMs = 0
    const all = await measuring(sides, async () => {
      note(`Feeding ${rate} events/s for ${seconds} s to the processor with a keeper`)
      const fed = await feed(log, keeper.way, { seconds, rate })
      endMs = Date.now()
      note(`Feeding the same to the one without, while cells become due`)
      const again = await feed(log, plain.way, { seconds, rate })
      events = fed.events
      fedMs = Math.max(fed.tookMs, again.tookMs)
      note('Waiting for the last cells')
      await untilNoMarks(keeper, endMs)
    })
    const windowSeconds = (performance.now() - startedMs) / 1000
    const charge = (way: Side['way']): Cpu => {
      const parts = [all[way], rest[way]] as const
      const idle = (part: keyof Cpu) => (parts[1][part] / REST_SECONDS) * (windowSeconds - fedMs / 1000)
      return { processor: parts[0].processor - idle('processor'), mongod: parts[0].mongod - idle('mongod') }
    }
    const cells = await cellFigures(keeper, endMs)
    const stored = await Promise.all(sides.map(end))
    for (const [i, one] of stored.entries())
      if (one !== events) throw new Error(`The ${sides[i]!.way} side stored ${one} events: expected ${events}`)
    const [with_, without] = [charge('keeper'), charge('plain')]
    return {
      seconds,
      eventsPerSecond: events / (fedMs / 1000),
      plain: without,
      keeper: with_,
      addedShare: sum(with_) / sum(without) - 1,
      restPerSecond: (sum(rest.keeper) - sum(rest.plain)) / REST_SECONDS,
      ...cells,
    }
  } finally {
    for (const { child } of sides) child.kill('SIGKILL')
    await log.close()
    await Promise.all([kafka.close(), ...sides.map(({ mongod }) => mongod.close())])
  }
}

async function startSide(way: Side['way'], kafka: KafkaServer): Promise<Side> {
  const mongod = await startMongod({ mode: 'replica-set', cacheGb: CACHE_GB })
  const url = mongod.url.replace(/(:\d+)\/?(\?|$)/, '$1/ledger$2')
  const env = { ...process.env, KAFKA_BOOTSTRAP: kafka.bootstrap, MONGO_URL: url }
  const words = ['test/bench/ledger/processor.ts', way, way, way]
  const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'], env })
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]()
  if ((await lines.next()).value !== 'ready') throw new Error(`The ${way} processor ended before it was ready`)
  return { way, mongod, url, child, lines }
}

/** Drains a processor; returns how many events it stored. */
async function end({ child, lines }: Side): Promise<number> {
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  const { value } = await lines.next()
  await exited
  return (JSON.parse(value as string) as { stored: number }).stored
}

/** Each slot is sampled once a second, the rest is token usage; times are now, keys are slots. */
async function feed(
  log: KafkaLog,
  way: string,
  { seconds, rate }: { seconds: number; rate: number },
): Promise<{ events: number; tookMs: number }> {
  const startedMs = performance.now()
  const record = (slot: number, event: object) => ({
    key: `slot-${slot}`,
    value: Buffer.from(JSON.stringify({ ts: Date.now(), ...event })),
  })
  const open = new Set<Promise<void>>()
  let events = 0
  for (let tick = 0; tick * TICK_MS < seconds * 1000; tick++) {
    const waitMs = startedMs + tick * TICK_MS - performance.now()
    if (waitMs > 0) await sleep(waitMs)
    const isSecond = (tick * TICK_MS) % 1000 === 0
    const samples = isSecond ? Array.from({ length: SLOTS }, (_, slot) => record(slot, sampleOf(slot, tick))) : []
    const until = Math.floor(((tick + 1) * TICK_MS * (rate - SLOTS)) / 1000)
    const from = Math.floor((tick * TICK_MS * (rate - SLOTS)) / 1000)
    const tokens = Array.from({ length: until - from }, (_, i) => record((from + i) % SLOTS, usageOf(from + i)))
    events += samples.length + tokens.length
    if (isSecond) track(open, log.append(`${way}.gpu`, samples))
    track(open, log.append(`${way}.token`, tokens))
    // A slow broker slows the feed down; the rate that was reached is printed.
    if (open.size > 8) await Promise.race(open)
  }
  await Promise.all(open)
  return { events, tookMs: performance.now() - startedMs }
}

function track(open: Set<Promise<void>>, work: Promise<void>): void {
  const done = work.finally(() => open.delete(done))
  open.add(done)
}

async function untilNoMarks(side: Side, endMs: number): Promise<void> {
  const store = new MongoStore({ url: side.url, log: quiet })
  try {
    // The last event's marks reach two minutes further; those cells end, and then the keeper's lag goes by.
    await sleep(Math.max(0, endMs + 2 * CELL_MS - Date.now()))
    const isDirty = async () =>
      (await store.ledger.dirtyBuckets('minute', 1000)).some(({ startMs }) => startMs <= floorTo(CELL_MS, endMs))
    while (await isDirty()) {
      if (Date.now() > endMs + MAX_WAIT_MS) throw new Error('Cells are still dirty long after their end')
      await sleep(1000)
    }
  } finally {
    await store.close()
  }
}

async function cellFigures(side: Side, endMs: number) {
  const store = new MongoStore({ url: side.url, log: quiet })
  const revs: number[] = []
  let lastMs = 0
  try {
    for await (const cell of store.ledger.readBuckets('minute', endMs - 86_400_000, endMs)) {
      revs.push(cell.rev)
      lastMs = Math.max(lastMs, cell.computedMs - (cell.startMs + CELL_MS))
    }
  } finally {
    await store.close()
  }
  const computedMean = revs.reduce((total, rev) => total + rev, 0) / revs.length
  return { cells: revs.length, computedMost: Math.max(...revs), computedMean, thereAfterSeconds: lastMs / 1000 }
}

async function measuring(sides: readonly Side[], work: () => Promise<unknown>): Promise<Record<Side['way'], Cpu>> {
  const read = () => sides.map(({ child, mongod }) => [cpuSeconds(child.pid!), cpuSeconds(mongod.pid)] as const)
  const before = read()
  await work()
  const after = read()
  const of = (i: number): Cpu => ({
    processor: after[i]![0] - before[i]![0],
    mongod: after[i]![1] - before[i]![1],
  })
  return Object.fromEntries(sides.map(({ way }, i) => [way, of(i)])) as Record<Side['way'], Cpu>
}

function sum({ processor, mongod }: Cpu): number {
  return processor + mongod
}
