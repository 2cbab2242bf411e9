// `make bench`: real Kafka, real mongod, in one run. Fills topics of each size once, then drains them in turn with the
// naive loop, Kafka Connect's MongoDB sink (where `make bench-peers` has fetched it) and ours, as the published
// package: several rounds, interleaved, each into a new database. Then latency at a steady rate, and the embedded
// default. Prints a table of medians with the targets beside them. Nothing fails for being slow.
//
//   node test/bench/bench.ts [--sizes 200000,1000000] [--rounds 5 | --quick] [--json FILE] [--sources] [--cpu-prof DIR]
//                            [--only naive,connect,ours,latency,embedded] [--connect tuned|default]
//
// --quick: two rounds of the smallest size, one of each other. --connect: see peers/kafka-connect.ts. For profiling, with
// which figures differ: --sources runs src/ in place of the compiled package, --cpu-prof has ours write a profile of
// each round.

import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { MongoClient } from 'mongodb'
import { KafkaLog } from '../../src/log/kafka/kafka-log.ts'
import { startKafka } from '../servers/kafka/kafka.ts'
import { freePort } from '../servers/managed-server.ts'
import { startMongod } from '../servers/mongod.ts'
import { NotInstalled } from '../servers/server-cache.ts'
import { benchEvents } from './events.ts'
import { INSTALL_COMMAND, requireKafkaConnect } from './peers/install.ts'
import { TUNINGS } from './peers/kafka-connect.ts'
import { CONTENDERS, type ContenderName, Contenders, type Topics } from './pipeline/contenders.ts'
import { type Drain, drain } from './pipeline/drain.ts'
import { type Latency, measureLatency } from './pipeline/latency.ts'
import { type Embedded, type Results, reportOf, type SizeResult } from './pipeline/report.ts'

const PARTS = [...CONTENDERS, 'latency', 'embedded'] as const
type Part = (typeof PARTS)[number]
const PARTITIONS = 12
const APPENDED_AT_ONCE = 1000

const { values: args } = parseArgs({
  options: {
    sizes: { type: 'string', default: '200000,1000000' },
    rounds: { type: 'string', default: '5' },
    quick: { type: 'boolean', default: false },
    only: { type: 'string', default: PARTS.join(',') },
    connect: { type: 'string', default: 'tuned' },
    sources: { type: 'boolean', default: false },
    'cpu-prof': { type: 'string' },
    json: { type: 'string' },
  },
})
const sizes = args.sizes
  .split(',')
  .map(Number)
  .toSorted((a, b) => a - b)
const parts = new Set(args.only.split(',') as Part[])
for (const part of parts) if (!PARTS.includes(part)) throw new Error(`No part "${part}": there are ${PARTS.join(', ')}`)
if (!sizes.every((size) => size > 0)) throw new Error(`Sizes are counts of events: "${args.sizes}"`)

const connectTuning = TUNINGS.find((tuning) => tuning === args.connect)
if (connectTuning === undefined) throw new Error(`--connect is one of ${TUNINGS.join(', ')}: "${args.connect}"`)

const note = (text: string) => process.stderr.write(`${text}\n`)
if (parts.has('connect')) await requirePeer()
const load = loadavg()[0]!.toFixed(1)
note(`${cpus().length} × ${cpus()[0]?.model.trim()}, load ${load} before the start, Node ${process.version}`)
if (parts.has('connect')) note(`Kafka Connect: ${connectTuning} settings`)
const needsServers = [...parts].some((part) => part !== 'embedded')
const measured = needsServers ? await withServers() : { sizes: [], latency: null }
const results: Results = { ...measured, embedded: parts.has('embedded') ? measureEmbedded() : [] }
process.stdout.write(`\n${reportOf(results)}`)
if (args.json !== undefined) writeFileSync(args.json, `${JSON.stringify({ connectTuning, ...results })}\n`)

/** Compares two where the third is not installed. */
async function requirePeer(): Promise<void> {
  try {
    await requireKafkaConnect()
  } catch (error) {
    if (!(error instanceof NotInstalled)) throw error
    parts.delete('connect')
    note(`Kafka Connect is not installed, so it is left out of the comparison; to fetch it: ${INSTALL_COMMAND}`)
  }
}

async function withServers(): Promise<Pick<Results, 'sizes' | 'latency'>> {
  const kafka = await startKafka({ version: '3.9', mode: 'kraft' })
  const mongod = await startMongod({ mode: 'replica-set' })
  const client = await new MongoClient(mongod.url).connect()
  const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
  const log = new KafkaLog({ bootstrap: kafka.bootstrap, log: quiet })
  const contenders = new Contenders({
    bootstrap: kafka.bootstrap,
    mongoUrl: mongod.url,
    fromSources: args.sources,
    connectTuning: connectTuning!,
    profileDirectory: args['cpu-prof'],
  })
  let runs = 0
  try {
    const results: SizeResult[] = []
    const isDrained = CONTENDERS.some((name) => parts.has(name))
    if (!isDrained) await fill(log, sizes[0]!)
    for (const events of isDrained ? sizes : []) {
      const topics = await fill(log, events)
      const drainOnce = (name: ContenderName) => {
        const database = `bench_${name}_${++runs}`
        const start = () => contenders.start(name, { database, topics })
        return drain({ name, db: client.db(database), events, mongodPid: mongod.pid, start })
      }
      results.push({ events, drains: await rounds(events, drainOnce) })
    }
    return { sizes: results, latency: parts.has('latency') ? await latency() : null }
  } finally {
    await log.close()
    await client.close()
    contenders.close()
    await Promise.all([kafka.close(), mongod.close()])
  }

  /** On the topics of the smallest size, which get more events thereby: hence last. */
  async function latency(): Promise<Latency> {
    note(`Events at a steady rate`)
    const [database, topics, port] = [`bench_latency`, topicsOf(sizes[0]!), await freePort()]
    const start = () => contenders.start('ours', { database, topics, port })
    return measureLatency({ log, topic: topics.token, db: client.db(database), port, start })
  }
}

function topicsOf(events: number): Topics {
  return { gpu: `gpu.metrics.${events}`, token: `token.usage.${events}` }
}

async function fill(log: KafkaLog, events: number): Promise<Topics> {
  note(`Filling ${events} events into 2 × ${PARTITIONS} partitions`)
  const topics = topicsOf(events)
  await log.ensureTopics(Object.values(topics).map((name: string) => ({ name, partitions: PARTITIONS })))
  for (const { kind, records } of benchEvents(events, APPENDED_AT_ONCE)) await log.append(topics[kind], records)
  return topics
}

async function rounds(
  events: number,
  drainOnce: (name: ContenderName) => Promise<Drain>,
): Promise<SizeResult['drains']> {
  const drains: SizeResult['drains'] = { naive: [], connect: [], ours: [] }
  const count = args.quick ? (events === sizes[0] ? 2 : 1) : Number(args.rounds)
  for (let round = 1; round <= count; round++) {
    for (const name of CONTENDERS.filter((contender) => parts.has(contender))) {
      const result = await drainOnce(name)
      drains[name].push(result)
      note(`${events} events, round ${round}, ${name.padEnd(7)} ${summaryOf(result)}`)
    }
  }
  return drains
}

function summaryOf({ events, seconds, cpuSeconds, rssMb, firstDocumentSeconds }: Drain): string {
  const rate = `${(events / seconds).toFixed(0).padStart(7)} events/s`
  const cpu = `${((cpuSeconds / events) * 1e6).toFixed(2).padStart(6)} CPU-s per million`
  return `${rate} ${cpu} ${rssMb.toFixed(0).padStart(5)} MB, first document after ${firstDocumentSeconds.toFixed(2)} s`
}

/** At the largest size; as many rounds as that has. */
function measureEmbedded(): Embedded[] {
  const events = sizes.at(-1)!
  const count = args.quick ? 1 : Number(args.rounds)
  return Array.from({ length: count }, (_, i) => {
    const { stdout, status } = spawnSync(process.execPath, ['test/bench/embedded.ts', String(events)], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    if (status !== 0) throw new Error(`test/bench/embedded.ts ended with ${status}`)
    const result = JSON.parse(stdout) as Embedded
    note(`${events} events, round ${i + 1}, embedded ${result.eventsPerSecond.toFixed(0)} events/s`)
    return result
  })
}
