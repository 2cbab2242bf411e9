// How many events a second POST /api/v1/events takes into the embedded log: the HTTP server in one process, the client
// in another, batches over a few connections, with an API token. On a machine that others share, the figure that counts
// is events per CPU-second of the server (all its threads, the kernel's time for them included): what one core would
// do. The log is the real one: each response waits for its fsync. With --read the processor reads, prices and stores
// all of it in the same process meanwhile, as in `pertoken up`; a round ends when it has. Nothing fails for being slow.
//
//   node test/bench/post.ts [--events 300000] [--batch 500] [--connections 8] [--rounds 5] [--read] [--cpu-prof DIR]

import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, type RequestOptions, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { hashOf, lineOf, newToken, readTokens } from '../../src/http/access/api-tokens.ts'
import { Access } from '../../src/http/access/auth.ts'
import { buildServer } from '../../src/http/server.ts'
import { SqliteLog } from '../../src/log/sqlite/sqlite-log.ts'
import { LivePrices } from '../../src/processor/ingest/live-prices.ts'
import { Processor } from '../../src/processor/ingest/processor.ts'
import { PriceBookVersions } from '../../src/processor/prices/price-book-versions.ts'
import { WatchedFile } from '../../src/runtime/watched-file.ts'
import { SqliteStore } from '../../src/store/sqlite/sqlite-store.ts'
import { benchEvent } from './events.ts'

const { values: args } = parseArgs({
  options: {
    events: { type: 'string', default: '300000' },
    batch: { type: 'string', default: '500' },
    connections: { type: 'string', default: '8' },
    rounds: { type: 'string', default: '5' },
    read: { type: 'boolean', default: false },
    'cpu-prof': { type: 'string' },
    /** Folder of the process that serves. */
    serve: { type: 'string' },
  },
})
/** What is wanted of POST alone, events per CPU-second. */
const TARGET = 40_000
/** Distinct bodies; they are sent again and again. */
const BODIES = 64
const TOPICS = { metric: 'gpu.metrics.v1', token: 'token.usage.v1' }

/** What the serving process reports about itself. */
interface Used {
  cpuSeconds: number
  rssMb: number
}

if (args.serve === undefined) await measure()
else await serve(args.serve, args.read)

async function measure(): Promise<void> {
  const [events, batch, connections] = [args.events, args.batch, args.connections].map(Number) as [
    number,
    number,
    number,
  ]
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-bench-'))
  const secret = newToken()
  const token = { name: 'bench', hash: hashOf(secret), scopes: ['ingest' as const], createdMs: 0, expiresMs: null }
  writeFileSync(join(directory, 'tokens'), lineOf(token))
  const profile = args['cpu-prof']
  const execArgv = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`]
  const words = ['--serve', directory, ...(args.read ? ['--read'] : [])]
  const server = fork(import.meta.filename, words, { execArgv })
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  try {
    const [port] = (await once(server, 'message')) as [number]
    const options = { agent, port, host: '127.0.0.1', path: '/api/v1/events', method: 'POST' }
    const headers = { 'content-type': 'application/json', authorization: `Bearer ${secret}` }
    const bodies = Array.from({ length: BODIES }, (_, i) => bodyOf(i * batch, batch))
    const bytes = Math.round(bodies.reduce((sum, body) => sum + body.length, 0) / BODIES / batch)
    for (let round = 1; round <= Number(args.rounds); round++) {
      const before = await used(server, 0)
      const startedMs = performance.now()
      let left = Math.ceil(events / batch)
      const client = async () => {
        while (left > 0) await post({ ...options, headers }, bodies[--left % BODIES]!)
      }
      await Promise.all(Array.from({ length: connections }, client))
      const after = await used(server, round * Math.ceil(events / batch) * batch)
      const seconds = (performance.now() - startedMs) / 1000
      const cpuSeconds = after.cpuSeconds - before.cpuSeconds
      const perCpuSecond = Math.round(events / cpuSeconds)
      const target = args.read ? '' : ` (target ${TARGET}: ${perCpuSecond >= TARGET ? 'reached' : 'missed'})`
      process.stdout.write(
        `${perCpuSecond} events per CPU-second of the server${target}; ${Math.round(events / seconds)} events/s on ` +
          `${(cpuSeconds / seconds).toFixed(2)} cores, ${bytes} bytes an event, ${after.rssMb} MB\n`,
      )
    }
  } finally {
    agent.destroy()
    if (server.connected) server.disconnect()
    if (server.exitCode === null) await once(server, 'exit')
    rmSync(directory, { recursive: true, force: true })
  }
}

/** Half samples, half token usage, by turns. */
function bodyOf(from: number, count: number): Buffer {
  const nowMs = Date.now()
  const kindOf = (i: number) => (i % 2 === 0 ? 'gpu' : 'token')
  const values = Array.from({ length: count }, (_, i) => benchEvent(kindOf(i), from + i, nowMs + i).value)
  return Buffer.from(`[${values.map(String).join(',')}]`)
}

async function post(options: RequestOptions, body: Buffer): Promise<void> {
  const sent = request(options).end(body)
  const [response] = await once(sent, 'response')
  if (response.statusCode !== 202) throw new Error(`The server responded with ${response.statusCode}`)
  await once(response.resume(), 'end')
}

/** Requests what the server has used, once it has stored so many events (0: at once). */
async function used(server: ChildProcess, stored: number): Promise<Used> {
  server.send(args.read ? stored : 0)
  const [reply] = (await once(server, 'message')) as [Used]
  return reply
}

async function serve(directory: string, reads: boolean): Promise<void> {
  const logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
  const log = new SqliteLog({ path: join(directory, 'log.sqlite') })
  const store = new SqliteStore({ path: join(directory, 'store.sqlite') })
  await log.ensureTopics(Object.values(TOPICS).map((name) => ({ name, partitions: 1 })))
  const processor = new Processor(log, store, {
    group: 'bench',
    topicMetric: TOPICS.metric,
    topicToken: TOPICS.token,
    topicDead: 'dead.letter.v1',
    partitions: 1,
    live: new LivePrices(new PriceBookVersions(store.ledger), {
      windowSeconds: 30,
      allowedLatenessSeconds: 10,
      defaultHost: null,
      defaultUsdPerHour: 0.85,
    }),
    log: logger,
  })
  const path = join(directory, 'tokens')
  const tokens = new WatchedFile({ code: 'api_tokens', what: '', paths: [path], read: () => readTokens(path), logger })
  const access = new Access({ tokens, limits: { requestsPerS: 1e6, eventsPerS: 1e9 }, logger })
  const app = await buildServer({ processor, store, log, topics: TOPICS, version: '', logger, access, now: Date.now })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const stop = new AbortController()
  const done = reads ? processor.run(stop.signal) : Promise.resolve()
  process.on('message', async (stored: number) => {
    while (processor.outcomes.stored < stored) await new Promise((resolve) => setTimeout(resolve, 2))
    const { user, system } = process.cpuUsage()
    const rssMb = Math.round(process.resourceUsage().maxRSS / 1024)
    process.send?.({ cpuSeconds: (user + system) / 1e6, rssMb } satisfies Used)
  })
  process.send?.((app.server.address() as AddressInfo).port)
  await once(process, 'disconnect')
  stop.abort()
  await done
  await app.close()
  await Promise.all([log.close(), store.close()])
}
