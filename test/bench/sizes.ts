// How much room events take: 86,400 samples as the agent sends them (eight GPUs, once a second, three hours: as many as
// one GPU sends in a day) and as many token events, through a real Kafka into MongoDB, and through the embedded log and
// store. Prints MB for each place. Event times lie in the past, so the ledger is complete soon. Takes about two
// minutes.
//
//   node test/bench/sizes.ts

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { appendFileSync, globSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { MongoClient } from 'mongodb'
import { toSample } from '../../src/agent/gpu-sample.ts'
import { KafkaLog } from '../../src/log/kafka/kafka-log.ts'
import { startKafka } from '../servers/kafka/kafka.ts'
import { freePort } from '../servers/managed-server.ts'
import { startMongod } from '../servers/mongod.ts'

const GPUS = 8
const SECONDS = 10_800
const EVENTS = GPUS * SECONDS
const START_MS = Date.now() - 24 * 3_600_000
const TOPICS = { gpu: 'gpu.metrics.v1', token: 'token.usage.v1' }
const BIN = new URL('../../bin/pertoken.js', import.meta.url).pathname

const directory = mkdtempSync(join(tmpdir(), 'pertoken-sizes-'))
const rows: [place: string, samplesMb: number, tokensMb: number, ledgerMb: number][] = []
try {
  await throughServers()
  await throughEmbedded()
} finally {
  rmSync(directory, { recursive: true, force: true })
}
process.stdout.write(`${EVENTS} samples and ${EVENTS} token events, MB:\n`)
for (const [place, ...megabytes] of [['', 'samples', 'tokens', 'ledger and rest'] as const, ...rows]) {
  const cells = megabytes.map((cell) => (typeof cell === 'number' ? cell.toFixed(1) : cell).padStart(16))
  process.stdout.write(`${place.padEnd(24)}${cells.join('')}\n`)
}

/** The events of one second: figures wander, as measured ones do. */
function eventsOf(second: number): { gpu: object[]; token: object[] } {
  const nowMs = START_MS + second * 1000
  const gpus = Array.from({ length: GPUS }, (_, i) => i)
  const wander = (i: number, scale: number) =>
    scale * (1 + Math.sin(second / 97 + i) / 3 + Math.sin(second * (i + 7.3)) / 9)
  const settings = { host: 'gpu-box-1', source: 'nvml' as const, models: () => null, pricePerHourUsd: 2.2 }
  return {
    gpu: gpus.map((i) =>
      toSample(
        {
          gpuIndex: i,
          uuid: `GPU-0f3c5a1e-7b1d-4c55-9d0a-5b8f6f0a1c0${i}`,
          name: 'NVIDIA H100 80GB HBM3',
          utilization: Math.round(wander(i, 60)) / 100,
          memUsedMb: Math.round(wander(i, 50_000)),
          memTotalMb: 81_559,
          powerW: Math.round(wander(i, 400_000)) / 1000,
          energyJ: Math.round((second * 400 + wander(i, 400)) * 1000) / 1000,
          migProfile: null,
          pricePerHourUsd: null,
        },
        settings,
        { eventId: `agent-4f1c2d9ab07e-${second * GPUS + i}`, nowMs },
      ),
    ),
    token: gpus.map((i) => ({
      ts: new Date(nowMs + i * 100).toISOString(),
      host: 'gpu-box-1',
      gpu_index: i,
      model: i < 4 ? 'llama-3.3-70b' : 'qwen2.5-coder-32b',
      tenant: `team-${second % 5}`,
      prompt_tokens: Math.round(wander(i, 900)),
      completion_tokens: Math.round(wander(i, 220)),
      latency_ms: Math.round(wander(i, 1800)),
      event_id: `request-${second * GPUS + i}`,
    })),
  }
}

async function throughServers(): Promise<void> {
  const kafkaData = join(directory, 'kafka')
  const kafka = await startKafka({ version: '3.9', mode: 'kraft', dataDir: kafkaData })
  const mongod = await startMongod({ mode: 'replica-set' })
  const client = await new MongoClient(mongod.url).connect()
  const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
  const log = new KafkaLog({ bootstrap: kafka.bootstrap, log: quiet })
  try {
    await log.ensureTopics(Object.values(TOPICS).map((name) => ({ name, partitions: 12 })))
    for (let second = 0; second < SECONDS; second++) {
      const events = eventsOf(second)
      for (const kind of ['gpu', 'token'] as const) {
        const records = events[kind].map((event) => ({ key: 'gpu-box-1', value: Buffer.from(JSON.stringify(event)) }))
        await log.append(TOPICS[kind], records)
      }
    }
    const db = client.db('ca0')
    const env = { KAFKA_BOOTSTRAP: kafka.bootstrap, MONGO_URL: mongod.url.replace('/?', '/ca0?') }
    await runUntil(env, async () => {
      const stored = await db.collection('gpu_metrics').estimatedDocumentCount()
      return stored === EVENTS && (await db.collection('pt_marks').countDocuments()) === 0
    })
    await client.db('admin').command({ fsync: 1 })
    const sizeOf = async (name: string) => {
      const { storageSize, totalIndexSize } = await db.command({ collStats: name })
      return (Number(storageSize) + Number(totalIndexSize)) / 1e6
    }
    const all = (await db.listCollections({}, { nameOnly: true }).toArray()).map(({ name }) => name)
    let rest = 0
    for (const name of all) if (!['gpu_metrics', 'token_usage'].includes(name)) rest += await sizeOf(name)
    const logOf = (topic: string) => sizeOfFiles(join(kafkaData, 'log', `${topic}-*`, '*.log'))
    rows.push(['Kafka', logOf(TOPICS.gpu), logOf(TOPICS.token), 0])
    rows.push(['MongoDB', await sizeOf('gpu_metrics'), await sizeOf('token_usage'), rest])
  } finally {
    await log.close()
    await client.close()
    await Promise.all([kafka.close(), mongod.close()])
  }
}

/** Samples alone and then both: the embedded files hold everything together. */
async function throughEmbedded(): Promise<void> {
  const sizes: { log: number; store: number }[] = []
  for (const kinds of [['gpu'], ['gpu', 'token']] as const) {
    const data = join(directory, kinds.join('-'))
    const file = `${data}.jsonl`
    for (let second = 0; second < SECONDS; second++) {
      const events = eventsOf(second)
      appendFileSync(file, kinds.flatMap((kind) => events[kind].map((event) => `${JSON.stringify(event)}\n`)).join(''))
    }
    const env = { DATA_DIR: data }
    const { status } = spawnSync(process.execPath, [BIN, 'replay', file, '--speed', 'max'], {
      env: envOf(env),
      cwd: directory,
    })
    if (status !== 0) throw new Error(`pertoken replay ended with ${status}`)
    await runUntil(env, async ({ outcomes }) => outcomes.stored === EVENTS * kinds.length && noMarks(data))
    sizes.push({ log: sizeOfFiles(join(data, 'log*')), store: sizeOfFiles(join(data, 'store*')) })
  }
  const [samples, both] = sizes as [{ log: number; store: number }, { log: number; store: number }]
  rows.push(['embedded log', samples.log, both.log - samples.log, 0])
  rows.push(['embedded store, ledger in', samples.store, both.store - samples.store, 0])
}

/** Whether the embedded store's ledger is complete. */
function noMarks(data: string): boolean {
  const store = new DatabaseSync(join(data, 'store.sqlite'), { readOnly: true })
  try {
    return store.prepare('SELECT 1 FROM marks LIMIT 1').get() === undefined
  } finally {
    store.close()
  }
}

function sizeOfFiles(pattern: string): number {
  return globSync(pattern).reduce((sum, path) => sum + statSync(path).size, 0) / 1e6
}

interface Health {
  outcomes: { stored: number }
}

/** Runs a processor until `isDone`, and stops it. */
async function runUntil(env: Record<string, string>, isDone: (health: Health) => Promise<boolean>): Promise<void> {
  const port = await freePort()
  const words = [BIN, 'processor', '--port', String(port), '--host', '127.0.0.1', '--log-level', 'warn']
  const child = spawn(process.execPath, words, {
    env: envOf(env),
    cwd: directory,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const deadlineMs = performance.now() + 300_000
  try {
    for (;;) {
      await sleep(500)
      if (child.exitCode !== null) throw new Error(`The processor ended with ${child.exitCode}`)
      if (performance.now() > deadlineMs) throw new Error('The processor was not done after 300 s')
      const health = await fetch(`http://127.0.0.1:${port}/health`).then(
        (response) => response.json() as Promise<Health>,
        () => null,
      )
      if (health !== null && (await isDone(health))) return
    }
  } finally {
    await stop(child)
  }
}

function envOf(env: Record<string, string>): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '/', ...env }
}

async function stop(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once('exit', resolve))
  if (child.exitCode !== null) return
  child.kill('SIGTERM')
  await ended
}
