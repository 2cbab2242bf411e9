// A processor in a process of its own for test/bench/ledger/feed.ts, with the keeper beside it or without: the same
// program but for that, so that the difference of their CPU is the keeper's. Prints a line when it is ready; at SIGTERM
// it drains and prints what its keeper counted.
//
//   KAFKA_BOOTSTRAP=... MONGO_URL=... node test/bench/ledger/processor.ts <group> <topic prefix> <keeper|plain>

import { loadConfig } from '../../../src/cli/config.ts'
import { makeLogger } from '../../../src/cli/wiring/wire.ts'
import { KafkaLog } from '../../../src/log/kafka/kafka-log.ts'
import { LivePrices } from '../../../src/processor/ingest/live-prices.ts'
import { Processor } from '../../../src/processor/ingest/processor.ts'
import { Keeper } from '../../../src/processor/ledger/keeper.ts'
import { ensureDefault, PriceBookVersions } from '../../../src/processor/prices/price-book-versions.ts'
import { MongoStore } from '../../../src/store/mongo/mongo-store.ts'
import { USD_PER_HOUR } from './fleet.ts'

const [group, prefix, way] = process.argv.slice(2) as [string, string, 'keeper' | 'plain']
const { config } = loadConfig({ env: process.env, envFile: '', flags: { LOG_LEVEL: 'warn' } })
const logger = makeLogger(config)
const log = new KafkaLog({ bootstrap: config.KAFKA_BOOTSTRAP!, log: logger })
const store = new MongoStore({ url: config.MONGO_URL!, log: logger })
const processor = new Processor(log, store, {
  group,
  topicMetric: `${prefix}.gpu`,
  topicToken: `${prefix}.token`,
  topicDead: `${prefix}.dead`,
  partitions: 12,
  live: new LivePrices(new PriceBookVersions(store.ledger), {
    windowSeconds: 30,
    allowedLatenessSeconds: 10,
    defaultHost: null,
    defaultUsdPerHour: USD_PER_HOUR,
  }),
  log: logger,
})
const stop = new AbortController()
process.once('SIGTERM', () => stop.abort())
const running = [processor.run(stop.signal)]
await store.prepare()
await ensureDefault(store.ledger, USD_PER_HOUR, Date.now())
const keeper = new Keeper(store.ledger, new PriceBookVersions(store.ledger), { log: logger })
if (way === 'keeper') running.push(keeper.run(stop.signal))
while (processor.health().status !== 'ok') await new Promise((resolve) => setTimeout(resolve, 20))
process.stdout.write('ready\n')
await Promise.all(running)
process.stdout.write(`${JSON.stringify({ ...keeper.status(), stored: processor.outcomes.stored })}\n`)
await Promise.all([log.close(), store.close()])
