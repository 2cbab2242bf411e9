// The embedded default in one process: append, read, price, store. Prints one JSON line.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SqliteLog } from '../../src/log/sqlite/sqlite-log.ts'
import { LivePrices } from '../../src/processor/ingest/live-prices.ts'
import { Processor } from '../../src/processor/ingest/processor.ts'
import { PriceBookVersions } from '../../src/processor/prices/price-book-versions.ts'
import { SqliteStore } from '../../src/store/sqlite/sqlite-store.ts'
import { benchEvents } from './events.ts'

const events = Number(process.argv[2])
const directory = mkdtempSync(join(tmpdir(), 'pertoken-bench-'))
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
const log = new SqliteLog({ path: join(directory, 'log.sqlite') })
const store = new SqliteStore({ path: join(directory, 'store.sqlite') })
const processor = new Processor(log, store, {
  group: 'bench',
  topicMetric: 'gpu.metrics.v1',
  topicToken: 'token.usage.v1',
  topicDead: 'dead.letter.v1',
  partitions: 1,
  live: new LivePrices(new PriceBookVersions(store.ledger), {
    windowSeconds: 30,
    allowedLatenessSeconds: 10,
    defaultHost: null,
    defaultUsdPerHour: 0.85,
  }),
  log: quiet,
})
const stop = new AbortController()
const done = processor.run(stop.signal)
while (processor.health().status !== 'ok') await new Promise((resolve) => setTimeout(resolve, 5))
const startedMs = performance.now()
const cpuBefore = process.cpuUsage()
for (const { topic, records } of benchEvents(events, 500)) {
  await log.append(topic, records)
}
while (processor.outcomes.stored < events) await new Promise((resolve) => setTimeout(resolve, 2))
const seconds = (performance.now() - startedMs) / 1000
const cpu = process.cpuUsage(cpuBefore)
stop.abort()
await done
await Promise.all([log.close(), store.close()])
rmSync(directory, { recursive: true })
const rssMb = process.resourceUsage().maxRSS / 1024
process.stdout.write(
  `${JSON.stringify({ events, seconds, eventsPerSecond: events / seconds, cpuSecondsPerMillion: (cpu.user + cpu.system) / events, rssMb })}\n`,
)
