// A real processor on the embedded log that stops itself (SIGSTOP) at the checkpoint that STOP_AT names, once SIGUSR2
// has armed it, and goes on with SIGCONT; then its clock says that it was stopped for two hours. SIGTERM drains it.

import { writeSync } from 'node:fs'
import { loadConfig } from '../../../src/cli/config.ts'
import { makeLogger, openLog, openStore } from '../../../src/cli/wiring/wire.ts'
import { LivePrices } from '../../../src/processor/ingest/live-prices.ts'
import { Processor } from '../../../src/processor/ingest/processor.ts'
import { PriceBookVersions } from '../../../src/processor/prices/price-book-versions.ts'

const STOPPED_MS = 2 * 3_600_000

const { config } = loadConfig({ env: process.env, envFile: '', flags: {} })
const logger = makeLogger(config)
const log = await openLog(config, logger)
const store = await openStore(config, logger)
const stop = new AbortController()
const say = (text: string) => void writeSync(2, `${text}\n`)
let armed = false
let shiftMs = 0
process.once('SIGTERM', () => stop.abort())
process.on('SIGUSR2', () => {
  armed = true
  say('armed')
})

const processor = new Processor(log, store, {
  group: config.KAFKA_GROUP,
  topicMetric: config.TOPIC_METRIC,
  topicToken: config.TOPIC_TOKEN,
  topicDead: config.TOPIC_DEAD,
  partitions: 1,
  retentionDays: 30,
  live: new LivePrices(new PriceBookVersions(store.ledger), {
    windowSeconds: 30,
    allowedLatenessSeconds: 10,
    defaultHost: null,
    defaultUsdPerHour: 0.85,
  }),
  log: logger,
  now: () => Date.now() + shiftMs,
  checkpoint: (at) => {
    if (!armed || at !== process.env['STOP_AT']) return
    armed = false
    say('stops')
    process.kill(process.pid, 'SIGSTOP')
    shiftMs = STOPPED_MS
    say('goes on')
  },
})
await processor.run(stop.signal)
await Promise.all([log.close(), store.close()])
