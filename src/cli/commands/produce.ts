// `pertoken produce`: publishes pairs (GPU sample, token event) made from the seed file, at a given pace, until the
// batch is done or it is stopped. Records are keyed by host, so the events of a host keep their order.

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { EventLog, NewRecord } from '../../log/event-log.ts'
import { appendUntilTaken } from '../../producers/append.ts'
import { pairs, parseSeed, SeedError, type SeedPair } from '../../producers/seed.ts'
import { type Command, type CommandContext, numberFlag, UsageError } from '../command.ts'
import type { Config } from '../options.ts'
import { seedPathOf } from '../wiring/gpu-sources.ts'
import { defaultPartitions, makeLogger, openLog } from '../wiring/wire.ts'

/** Most pairs of one append. */
const MAX_PAIRS_AT_ONCE = 500
/** At high rates events are appended this often, milliseconds. */
const TICK_MS = 20

export const produce: Command = {
  usage: '[--batch N] [--interval S | --rate N]',
  flags: {
    batch: { option: 'BATCH', value: 'PAIRS', help: 'Pairs to publish; 0: until stopped' },
    interval: { option: 'SLEEP_SEC', value: 'SECONDS', help: 'Pause between pairs' },
    rate: { value: 'N', help: 'Events a second, instead of --interval' },
    'event-hosts': { value: 'N', help: 'Spread the events over so many hosts' },
    gpus: { value: 'N', help: 'GPUs a host, the seed file’s in turn' },
    json: { help: 'Prints the result as JSON' },
  },
  options: [
    'KAFKA_BOOTSTRAP',
    'DATA_DIR',
    'TOPIC_METRIC',
    'TOPIC_TOKEN',
    'GPU_SEED',
    'GPU_SEED_LOCAL',
    'HOSTNAME',
    'LOG_LEVEL',
  ],
  async run(context) {
    const { config, flags, signal, say, print } = context
    const seedPath = seedPathOf(config)
    if (seedPath === null) {
      throw new UsageError('No seed file: set GPU_SEED to a JSON array of GPUs (an example is examples/gpu_seed.json)')
    }
    let seed: ReturnType<typeof parseSeed>
    try {
      seed = parseSeed(readFileSync(seedPath, 'utf8'), seedPath)
    } catch (error) {
      throw new UsageError(
        error instanceof SeedError ? error.message : `Cannot read seed file "${seedPath}": ${(error as Error).message}`,
      )
    }
    const rate = numberFlag(flags, 'rate', { min: 0.001, max: 1_000_000, default: 0 })
    const eventHosts = numberFlag(flags, 'event-hosts', { min: 1, max: 100_000, default: 0, integer: true })
    const gpus = numberFlag(flags, 'gpus', { min: 1, max: 1024, default: 0, integer: true })
    const source = pairs(seed, {
      startMs: Date.now(),
      seedNumber: Date.now() % 2 ** 31,
      hostname: config.HOSTNAME,
      nowMs: Date.now,
      ...(eventHosts > 0 ? { eventHosts } : {}),
      ...(gpus > 0 ? { gpus } : {}),
    })
    const log = await openLog(config, makeLogger(config))
    try {
      await waitForTopics(log, config, signal, say)
      const published = await publish(context, log, source, rate > 0 ? 2000 / rate : config.SLEEP_SEC * 1000)
      const result = { pairs: published, events: published * 2 }
      if (flags['json'] === true) print(`${JSON.stringify(result)}\n`)
      else say(`Published ${result.pairs} pairs (${result.events} events) to ${log.description}\n`)
      return 0
    } finally {
      await log.close()
    }
  },
}

/** Creates the topics, retrying until the log responds: an append to a missing topic would fail. */
async function waitForTopics(
  log: EventLog,
  config: Config,
  signal: AbortSignal,
  say: (text: string) => void,
): Promise<void> {
  const partitions = defaultPartitions(config)
  const topics = [config.TOPIC_METRIC, config.TOPIC_TOKEN].map((name) => ({ name, partitions }))
  for (let tries = 0; !signal.aborted; tries++) {
    try {
      await log.ensureTopics(topics)
      return
    } catch (error) {
      if (tries === 0) say(`Waiting for the log: ${(error as Error).message}\n`)
      await sleep(500, undefined, { signal }).catch(() => {})
    }
  }
}

async function publish(
  { config, signal, say }: CommandContext,
  log: EventLog,
  source: Iterator<SeedPair>,
  msPerPair: number,
): Promise<number> {
  const total = config.BATCH === 0 ? Number.POSITIVE_INFINITY : config.BATCH
  const startedMs = performance.now()
  const onFault = (error: Error) => say(`Repeating until the log takes it: ${error.message}\n`)
  let published = 0
  while (published < total && !signal.aborted) {
    const dueMs = startedMs + published * msPerPair
    const waitMs = dueMs - performance.now()
    if (waitMs > 0) {
      await sleep(Math.max(waitMs, msPerPair < TICK_MS ? TICK_MS : 0), undefined, { signal }).catch(() => {})
      if (signal.aborted) break
    }
    const due =
      msPerPair === 0 ? MAX_PAIRS_AT_ONCE : Math.floor((performance.now() - startedMs) / msPerPair) + 1 - published
    const count = Math.max(1, Math.min(due, MAX_PAIRS_AT_ONCE, total - published))
    const gpu: NewRecord[] = []
    const token: NewRecord[] = []
    for (let i = 0; i < count; i++) {
      const pair = source.next().value as SeedPair
      gpu.push({ key: pair.gpu.host ?? null, value: Buffer.from(JSON.stringify(pair.gpu)) })
      token.push({ key: pair.token.host ?? null, value: Buffer.from(JSON.stringify(pair.token)) })
    }
    const taken =
      (await appendUntilTaken(log, config.TOPIC_METRIC, gpu, signal, onFault)) &&
      (await appendUntilTaken(log, config.TOPIC_TOKEN, token, signal, onFault))
    if (taken) published += count
  }
  return published
}
