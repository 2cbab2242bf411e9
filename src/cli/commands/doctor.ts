// `pertoken doctor`: looks at the settings, the log, the store, disks, clocks, hosts, the GPU sources and the own HTTP, and
// says in one line each what is well or what to do. Exit 1 when something is wrong. A GPU source that cannot be used is
// wrong only where the settings ask for it by name: a machine for a processor or a broker has no GPU. What the lines are
// made of is in src/cli/doctor, one part a file.

import { existsSync } from 'node:fs'
import type { EventLog } from '../../log/event-log.ts'
import type { EventStore } from '../../store/event-store.ts'
import { type Command, type CommandContext, UsageError } from '../command.ts'
import { type Config, readEnvFile } from '../config.ts'
import { clockFindings } from '../doctor/clock-findings.ts'
import { type Disk, diskFindings, diskOf } from '../doctor/disk-findings.ts'
import type { Finding } from '../doctor/finding.ts'
import { hostFindings, lookAtHosts } from '../doctor/host-findings.ts'
import { checkLog, isLogUsable } from '../doctor/log-findings.ts'
import { checkSettings } from '../doctor/settings-findings.ts'
import { checkStart, checkStore, isStoreUsable } from '../doctor/store-findings.ts'
import { GPU_OPTIONS, seedPathOf, tryGpuSources } from '../gpu-sources.ts'
import { checkOwnHttp } from '../own-http.ts'
import { kafkaOptions, makeLogger, mongoOptions, openLog, openStore } from '../wire.ts'
import { SERVICE_OPTIONS } from './processor.ts'

const STATES = { true: 'ok   ', false: 'WRONG', null: '-    ' } as const

export const doctor: Command = {
  summary: 'Looks at everything that can be wrong from here; one line each with what to do; exit 1 when something is',
  usage: '[--json]',
  flags: { json: { help: 'Prints the findings as JSON' } },
  options: [...SERVICE_OPTIONS, ...GPU_OPTIONS, 'GPU_SEED', 'GPU_SEED_LOCAL', 'HOSTNAME'],
  async run(context) {
    const { flags, print } = context
    const findings = await examine(context, Date.now)
    if (flags['json'] === true) print(`${JSON.stringify(findings, null, 2)}\n`)
    else for (const { part, ok, message } of findings) print(`${STATES[`${ok}`]} ${part.padEnd(10)} ${message}\n`)
    return findings.every(({ ok }) => ok !== false) ? 0 : 1
  },
}

/** All findings; `nowMs` is this machine's clock. */
export async function examine(
  { config, loaded }: Pick<CommandContext, 'config' | 'loaded'>,
  nowMs: () => number,
): Promise<Finding[]> {
  const gpus = await checkGpuSources(config)
  const publishes = config.AGENT_TO !== null || gpus.some(({ ok }) => ok === true)
  return [
    ...checkSettings(loaded, readEnvFile()),
    ...(await checkData(config, { publishes, nowMs })),
    ...gpus,
    ...(await checkOwnHttp(config)),
  ]
}

interface Here {
  /** Whether events with this machine's HOSTNAME are to be expected. */
  publishes: boolean
  nowMs: () => number
}

/** Log and store, each by itself and together, and what they tell of machines. */
async function checkData(config: Config, here: Here): Promise<Finding[]> {
  const quiet = makeLogger({ ...config, LOG_LEVEL: 'silent' })
  const opened: { close(): Promise<void> }[] = []
  try {
    const log = await openLog(config, quiet)
    opened.push(log)
    const store = await openStore(config, quiet)
    opened.push(store)
    return await checkOpened(config, here, { log, store })
  } catch (error) {
    if (error instanceof UsageError) throw error
    const message = `Cannot use DATA_DIR "${config.DATA_DIR}": ${(error as Error).message}; free some room, or set another folder`
    return [{ part: 'data', ok: false, message }]
  } finally {
    await Promise.all(opened.map((one) => one.close()))
  }
}

async function checkOpened(
  config: Config,
  { publishes, nowMs }: Here,
  { log, store }: { log: EventLog; store: EventStore },
): Promise<Finding[]> {
  const quiet = makeLogger({ ...config, LOG_LEVEL: 'silent' })
  const kafka = kafkaOptions(config, quiet)
  const mongo = mongoOptions(config, quiet)
  const ofLog = await checkLog(config, log, kafka)
  const ofStore = await checkStore(store)
  const [logIsUsable, storeIsUsable] = [isLogUsable(ofLog), isStoreUsable(ofStore)]

  const disks: Disk[] = []
  if (kafka === null || mongo === null || existsSync(config.DATA_DIR)) disks.push(diskOf(config.DATA_DIR))
  let mongoMs: number | null = null
  if (mongo !== null && storeIsUsable) {
    const { lookAtMongo } = await import('../../store/mongo/server-facts.ts')
    const facts = await lookAtMongo(mongo, nowMs)
    mongoMs = facts.aheadMs
    if (facts.disk !== null) disks.push({ name: 'MongoDB', ...facts.disk })
  }
  let newestRecordMs: number | null = null
  if (kafka !== null && logIsUsable) {
    const topics = [config.TOPIC_METRIC, config.TOPIC_TOKEN]
    const { lookAtDisks, newestRecordMs: newestOf } = await import('../../log/kafka/kafka-facts.ts')
    const newestMs = await newestOf(kafka, topics)
    newestRecordMs = newestMs === null ? null : newestMs - nowMs()
    for (const { node, directory, ...sizes } of await lookAtDisks(kafka, topics))
      disks.push({ name: `Kafka broker ${node} (${directory})`, ...sizes })
  }
  const look = storeIsUsable ? await lookAtHosts(store) : { newestMs: new Map<string | null, number>(), conflicts: [] }
  const hosts = [...look.newestMs].map(([host, newestMs]) => ({ host, aheadMs: newestMs - nowMs() }))
  return [
    ...ofLog,
    ...ofStore,
    ...(logIsUsable && storeIsUsable ? await checkStart(config, log, store) : []),
    ...diskFindings(disks),
    ...clockFindings({ mongoMs, newestRecordMs, hosts }),
    ...hostFindings(look, config, publishes),
  ]
}

async function checkGpuSources(config: Config): Promise<Finding[]> {
  const asked = (name: string) => config.GPU_METRICS_SOURCE === name || (name === 'seed' && seedPathOf(config) !== null)
  const tried = await tryGpuSources(config)
  return tried.map(({ name, ok, message }) => ({ part: name, ok: ok || (asked(name) ? false : null), message }))
}
