// `make bench`: real Kafka, real mongod, in one run. Fills topics once, then drains them in turn with the naive loop and
// with pertoken's processor, several rounds, interleaved, each into a fresh database; then latency at a steady rate, the
// start-up, and the embedded default; at the end test/bench/ledger/ledger.ts. Prints a table with the targets beside it, and JSON.
// Nothing fails for being slow.
//
//   node test/bench/bench.ts [--events 200000] [--rounds 5] [--json FILE] [--pipeline-only]

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { type Db, MongoClient } from 'mongodb'
import { ownEventId } from '../../src/domain/events/event-id.ts'
import { KafkaLog } from '../../src/log/kafka/kafka-log.ts'
import { startKafka } from '../servers/kafka.ts'
import { freePort } from '../servers/managed-server.ts'
import { startMongod } from '../servers/mongod.ts'
import { benchEvent, benchEvents } from './events.ts'
import { cpuSeconds, peakRssMb } from './process-cost.ts'
import { until } from './until.ts'

const { values: args } = parseArgs({
  options: {
    events: { type: 'string', default: '200000' },
    rounds: { type: 'string', default: '5' },
    json: { type: 'string' },
    'pipeline-only': { type: 'boolean', default: false },
  },
})
const EVENTS = Number(args.events)
const ROUNDS = Number(args.rounds)
const TOPICS = { gpu: 'gpu.metrics.v1', token: 'token.usage.v1' }
const LATENCY_RATE = 5000
const LATENCY_SECONDS = 12

interface Drain {
  eventsPerSecond: number
  cpuPerMillion: number
  mongodCpuPerMillion: number
  rssMb: number
  firstDocumentSeconds: number
}

const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
const note = (text: string) => process.stderr.write(`${text}\n`)
const kafka = await startKafka({ version: '3.9', mode: 'kraft' })
const mongod = await startMongod({ mode: 'replica-set' })
const client = await new MongoClient(mongod.url).connect()
const log = new KafkaLog({ bootstrap: kafka.bootstrap, log: quiet })
let run = 0

try {
  note(`Filling ${EVENTS} events into 2 × 12 partitions`)
  await log.ensureTopics(Object.values(TOPICS).map((name) => ({ name, partitions: 12 })))
  for (const { topic, records } of benchEvents(EVENTS, 1000)) await log.append(topic, records)
  const naive: Drain[] = []
  const ours: Drain[] = []
  for (let round = 1; round <= ROUNDS; round++) {
    naive.push(await drain('naive', startNaive))
    ours.push(await drain('pertoken', startProcessor))
    note(`Round ${round}: naive ${format(naive.at(-1)!)}; pertoken ${format(ours.at(-1)!)}`)
  }
  const latency = await measureLatency()
  const embedded = measureEmbedded()
  report(naive, ours, latency, embedded)
} finally {
  await log.close()
  await client.close()
  await Promise.all([kafka.close(), mongod.close()])
}
if (!args['pipeline-only']) measureLedger()

function startNaive(database: string): ChildProcess {
  const words = [
    'test/bench/pipeline/naive.ts',
    kafka.bootstrap,
    mongod.url,
    database,
    database,
    Object.values(TOPICS).join(','),
  ]
  return spawn(process.execPath, words, { stdio: ['ignore', 'inherit', 'inherit'] })
}

function startProcessor(database: string, port = 0): ChildProcess {
  const words = ['bin/pertoken.js', 'processor', '--port', String(port), '--host', '127.0.0.1', '--log-level', 'warn']
  const url = mongod.url.replace(/(:\d+)\/?(\?|$)/, `$1/${database}$2`)
  const env = { ...process.env, KAFKA_BOOTSTRAP: kafka.bootstrap, MONGO_URL: url, KAFKA_GROUP: database }
  return spawn(process.execPath, words, { stdio: ['ignore', 'ignore', 'inherit'], env })
}

/** Drains the topics with one process; measured from its first document to its last. */
async function drain(name: string, start: (database: string) => ChildProcess): Promise<Drain> {
  const database = `bench_${name}_${++run}`
  const db = client.db(database)
  const startedMs = performance.now()
  const child = start(database)
  const first = await untilCount(db, 1, child)
  const before = { cpu: cpuSeconds(child.pid!), mongod: cpuSeconds(mongod.pid!) }
  const last = await untilCount(db, EVENTS, child)
  const events = EVENTS - first.count
  const seconds = (last.atMs - first.atMs) / 1000
  const result = {
    eventsPerSecond: events / seconds,
    cpuPerMillion: ((cpuSeconds(child.pid!) - before.cpu) / events) * 1e6,
    mongodCpuPerMillion: ((cpuSeconds(mongod.pid!) - before.mongod) / events) * 1e6,
    rssMb: peakRssMb(child.pid!),
    firstDocumentSeconds: (first.atMs - startedMs) / 1000,
  }
  await stop(child)
  const count =
    (await db.collection('gpu_metrics').countDocuments()) + (await db.collection('token_usage').countDocuments())
  if (count !== EVENTS) throw new Error(`${name} stored ${count} documents: expected ${EVENTS}`)
  await db.dropDatabase()
  return result
}

async function untilCount(db: Db, atLeast: number, child: ChildProcess): Promise<{ atMs: number; count: number }> {
  let sawProgressMs = performance.now()
  let most = 0
  for (;;) {
    const counts = await Promise.all(
      Object.keys(TOPICS).map((kind) =>
        db.collection(kind === 'gpu' ? 'gpu_metrics' : 'token_usage').estimatedDocumentCount(),
      ),
    )
    const count = counts[0]! + counts[1]!
    if (count >= atLeast) return { atMs: performance.now(), count }
    if (count > most) {
      most = count
      sawProgressMs = performance.now()
    }
    if (performance.now() - sawProgressMs > 30_000)
      throw new Error(`No progress for 30 s at ${count} of ${EVENTS} documents`)
    if (child.exitCode !== null) throw new Error(`Process ended with ${child.exitCode} after ${count} documents`)
    await sleep(5)
  }
}

/** Produces at a steady rate and times marked events from the call that appends them to their documents. */
async function measureLatency(): Promise<{ p50Ms: number; p99Ms: number }> {
  const database = `bench_latency_${++run}`
  const port = await freePort()
  const child = startProcessor(database, port)
  // The new group begins with all that the rounds have drained; only then is it live.
  await until(async () => {
    const { status, lag } = (await (await fetch(`http://127.0.0.1:${port}/health`)).json()) as {
      status: string
      lag: number | null
    }
    return status === 'ok' && lag === 0
  })
  const collection = client.db(database).collection<{ _id: string }>('token_usage')
  const timesMs: number[] = []
  const watching: Promise<void>[] = []
  const watch = async (_id: string, sinceMs: number) => {
    while ((await collection.findOne({ _id }, { projection: { _id: 1 } })) === null) await sleep(4)
    timesMs.push(performance.now() - sinceMs)
  }
  const startedMs = performance.now()
  for (let sent = 0, batch = 0; performance.now() - startedMs < LATENCY_SECONDS * 1000; batch++) {
    const waitMs = startedMs + (sent / LATENCY_RATE) * 1000 - performance.now()
    if (waitMs > 0) await sleep(waitMs)
    const records = Array.from({ length: 50 }, (_, i) => benchEvent('token', sent + i, Date.now()))
    const event = JSON.parse(records[0]!.value!.toString()) as { host: string }
    records[0]!.value = Buffer.from(JSON.stringify({ ...event, event_id: `m${batch}` }))
    const sinceMs = performance.now()
    await log.append(TOPICS.token, records)
    sent += records.length
    // The first seconds warm both programs up.
    if (batch % 5 === 0 && sinceMs - startedMs > 2000)
      watching.push(watch(ownEventId(event.host, `m${batch}`), sinceMs))
  }
  await Promise.race([Promise.all(watching), sleep(20_000)])
  await stop(child)
  timesMs.sort((a, b) => a - b)
  return { p50Ms: quantile(timesMs, 0.5), p99Ms: quantile(timesMs, 0.99) }
}

function measureEmbedded(): { eventsPerSecond: number; cpuSecondsPerMillion: number; rssMb: number } {
  const { stdout, status } = spawnSync(process.execPath, ['test/bench/embedded.ts', String(EVENTS)], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  if (status !== 0) throw new Error(`test/bench/embedded.ts ended with ${status}`)
  return JSON.parse(stdout) as ReturnType<typeof measureEmbedded>
}

/** The ledger's own table; its JSON lies beside ours. */
function measureLedger(): void {
  const json = args.json === undefined ? [] : ['--json', args.json.replace(/(\.json)?$/, '-ledger.json')]
  const { status } = spawnSync(process.execPath, ['test/bench/ledger/ledger.ts', ...json], { stdio: 'inherit' })
  if (status !== 0) throw new Error(`test/bench/ledger/ledger.ts ended with ${status}`)
}

function report(
  naive: Drain[],
  ours: Drain[],
  latency: { p50Ms: number; p99Ms: number },
  embedded: ReturnType<typeof measureEmbedded>,
): void {
  const median = (drains: Drain[], field: keyof Drain) =>
    quantile(
      drains.map((one) => one[field]).toSorted((a, b) => a - b),
      0.5,
    )
  const rows: [string, string, string, string, string][] = [['', 'naive loop', 'pertoken', 'reached', 'target']]
  const add = (name: string, field: keyof Drain, target: (n: number, p: number) => [string, string]) => {
    const [n, p] = [median(naive, field), median(ours, field)]
    rows.push([name, n.toFixed(1), p.toFixed(1), ...target(n, p)])
  }
  add('events/s', 'eventsPerSecond', (n, p) => [`${(p / n).toFixed(2)} ×`, '≥ 1.5 ×'])
  add('processor CPU-s per million', 'cpuPerMillion', (n, p) => [`${(p / n).toFixed(2)} ×`, '≤ 0.75 ×'])
  add('mongod CPU-s per million', 'mongodCpuPerMillion', (n, p) => [`${(p / n).toFixed(2)} ×`, ''])
  add('peak memory, MB', 'rssMb', (_n, p) => [p.toFixed(0), '≤ 300'])
  add('start-up to first document, s', 'firstDocumentSeconds', (_n, p) => [p.toFixed(2), '≤ 2'])
  rows.push(['event → document p50, ms', '', latency.p50Ms.toFixed(0), '', ''])
  rows.push([
    'event → document p99, ms',
    '',
    latency.p99Ms.toFixed(0),
    latency.p99Ms.toFixed(0),
    `≤ 250 at ${LATENCY_RATE}/s`,
  ])
  rows.push([
    'embedded, events/s',
    '',
    embedded.eventsPerSecond.toFixed(0),
    embedded.eventsPerSecond.toFixed(0),
    '≥ 60000',
  ])
  rows.push(['embedded, peak memory, MB', '', embedded.rssMb.toFixed(0), embedded.rssMb.toFixed(0), '≤ 350'])
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  for (const row of rows)
    process.stdout.write(
      `${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ')}\n`,
    )
  const json = JSON.stringify({ events: EVENTS, rounds: ROUNDS, naive, ours, latency, embedded })
  if (args.json === undefined) process.stdout.write(`${json}\n`)
  else writeFileSync(args.json, `${json}\n`)
}

async function stop(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once('exit', resolve))
  if (child.exitCode !== null) return
  child.kill('SIGTERM')
  if ((await Promise.race([ended, sleep(5000)])) === undefined) child.kill('SIGKILL')
}

function quantile(sorted: readonly number[], q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN
}

function format(one: Drain): string {
  return `${one.eventsPerSecond.toFixed(0)} events/s, ${one.cpuPerMillion.toFixed(1)} CPU-s/M, ${one.rssMb.toFixed(0)} MB`
}
