// A real processor in a process of its own that kills itself (SIGKILL) at the labelled point of a step that CRASH_AT
// names, or, without it, drains and exits once everything is read. With CRASH_DRAIN the crash happens while draining.

import { loadConfig } from '../../src/cli/config.ts'
import { makeLogger } from '../../src/cli/wiring/wire.ts'
import { KafkaLog } from '../../src/log/kafka/kafka-log.ts'
import { SqliteLog } from '../../src/log/sqlite/sqlite-log.ts'
import { LivePrices } from '../../src/processor/ingest/live-prices.ts'
import { Processor } from '../../src/processor/ingest/processor.ts'
import { PriceBookVersions } from '../../src/processor/prices/price-book-versions.ts'
import { MongoStore } from '../../src/store/mongo/mongo-store.ts'
import { SqliteStore } from '../../src/store/sqlite/sqlite-store.ts'

const { config } = loadConfig({ env: process.env, envFile: '', flags: {} })
const logger = makeLogger(config)
const log =
  config.KAFKA_BOOTSTRAP === null
    ? new SqliteLog({ path: `${config.DATA_DIR}/log.sqlite`, leaseMs: 500 })
    : new KafkaLog({ bootstrap: config.KAFKA_BOOTSTRAP, log: logger, sessionTimeoutMs: 2000 })
const store =
  config.MONGO_URL === null
    ? new SqliteStore({ path: `${config.DATA_DIR}/store.sqlite` })
    : new MongoStore({ url: config.MONGO_URL, log: logger })
const [label, nth] = (process.env['CRASH_AT'] ?? ':0').split(':') as [string, string]
const drains = process.env['CRASH_DRAIN'] === 'true'
const stop = new AbortController()
let seen = 0

const processor = new Processor(log, store, {
  group: config.KAFKA_GROUP,
  topicMetric: config.TOPIC_METRIC,
  topicToken: config.TOPIC_TOKEN,
  topicDead: config.TOPIC_DEAD,
  partitions: 3,
  live: new LivePrices(new PriceBookVersions(store.ledger), {
    windowSeconds: 30,
    allowedLatenessSeconds: 10,
    defaultHost: config.DEFAULT_HOST,
    defaultUsdPerHour: 0.85,
  }),
  log: logger,
  checkpoint: (at) => {
    if (drains && at === 'read') stop.abort()
    if (at === label && ++seen === Number(nth)) process.kill(process.pid, 'SIGKILL')
  },
})
const running = processor.run(stop.signal)
if (label === '') {
  const caughtUp = () => {
    const { status, lag, open_steps } = processor.health()
    return status === 'ok' && lag === 0 && open_steps === 0
  }
  // Twice in a row, with a read between, so that a lag that is not yet known does not count.
  for (let quiet = 0; quiet < 3; quiet = caughtUp() ? quiet + 1 : 0)
    await new Promise((resolve) => setTimeout(resolve, 300))
  stop.abort()
}
await running
await Promise.all([log.close(), store.close()])
