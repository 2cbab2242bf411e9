// `pertoken doctor`: checks settings, log, store, disks, clocks, hosts, prices, GPU sources and HTTP server, and
// reports in one line each that it is well or what to do. Exit 1 when something is wrong. A GPU source that cannot be
// used is wrong only where the settings name it: a machine for a processor or a broker has no GPU. The checks are in
// src/cli/doctor, one subject a file.

import { existsSync } from 'node:fs'
import type { EventLog } from '../../log/event-log.ts'
import { type EventStore, StoreError } from '../../store/event-store.ts'
import { type Command, type CommandContext, UsageError } from '../command.ts'
import { clockFindings } from '../doctor/clock-findings.ts'
import { type Disk, diskFindings, diskOf } from '../doctor/disk-findings.ts'
import type { Finding } from '../doctor/finding.ts'
import { type HostLook, hostFindings, probeHosts } from '../doctor/host-findings.ts'
import { checkOwnHttp } from '../doctor/http-findings.ts'
import { checkLog, isLogUsable } from '../doctor/log-findings.ts'
import { checkPrices } from '../doctor/price-findings.ts'
import { checkSettings } from '../doctor/settings-findings.ts'
import { checkStart, checkStore, isStoreUsable } from '../doctor/store-findings.ts'
import { readEnvFile } from '../env-file.ts'
import type { Config } from '../options.ts'
import { GPU_FLAGS, GPU_OPTIONS, seedPathOf, tryGpuSources, wantedSource } from '../wiring/gpu-sources.ts'
import { kafkaOptions, makeLogger, mongoOptions, openLog, openStore } from '../wiring/wire.ts'
import { SERVICE_OPTIONS } from './processor.ts'

const STATES = { true: 'ok   ', false: 'WRONG', null: '-    ' } as const

export const doctor: Command = {
  usage: '[--producer] [--json]',
  flags: {
    producer: { help: 'For a machine that only publishes: leaves out store, group and own HTTP' },
    ...GPU_FLAGS,
    json: { help: 'Prints the findings as JSON' },
  },
  options: [...SERVICE_OPTIONS, ...GPU_OPTIONS, 'GPU_SEED', 'GPU_SEED_LOCAL', 'HOSTNAME'],
  async run(context) {
    const { flags, print } = context
    const findings = await examine(context, { isProducer: flags['producer'] === true, nowMs: Date.now })
    if (flags['json'] === true) print(`${JSON.stringify(findings, null, 2)}\n`)
    else for (const { part, ok, message } of findings) print(`${STATES[`${ok}`]} ${part.padEnd(10)} ${message}\n`)
    return findings.every(({ ok }) => ok !== false) ? 0 : 1
  },
}

interface ExamineOptions {
  /** This machine only publishes: there is no processor to check. */
  isProducer: boolean
  /** This machine's clock. */
  nowMs: () => number
}

/** All findings. */
export async function examine(
  { config, loaded }: Pick<CommandContext, 'config' | 'loaded'>,
  options: ExamineOptions,
): Promise<Finding[]> {
  const gpus = await checkGpuSources(config)
  const { isProducer } = options
  const publishes = isProducer || config.AGENT_TO !== null || gpus.some(({ ok }) => ok === true)
  return [
    ...checkSettings(loaded, { envFile: readEnvFile(), isProducer }),
    ...(await checkData({ ...options, config, publishes })),
    ...gpus,
    ...(isProducer ? [] : await checkOwnHttp(config)),
  ]
}

interface DataCheck extends ExamineOptions {
  config: Config
  /** Whether events with this machine's HOSTNAME are to be expected. */
  publishes: boolean
}

/** Log and store, separately and together, and what they show of other machines. */
async function checkData(check: DataCheck): Promise<Finding[]> {
  const opened = await open(check)
  if ('message' in opened) return [opened]
  try {
    return await checkOpened(check, opened)
  } finally {
    await Promise.all([opened.log.close(), opened.store?.close()])
  }
}

interface Opened {
  log: EventLog
  /** Null on a machine that only publishes. */
  store: EventStore | null
}

/** Opening fails only for a malformed URL or a folder that cannot be created: connecting comes later. */
async function open({ config, isProducer }: DataCheck): Promise<Opened | Finding> {
  const quiet = quietLogger(config)
  try {
    const log = await openLog(config, quiet)
    return { log, store: isProducer ? null : await openStore(config, quiet) }
  } catch (error) {
    if (error instanceof UsageError) throw error
    if (error instanceof StoreError) return { part: 'store', ok: false, message: error.message }
    const message = `Cannot use DATA_DIR "${config.DATA_DIR}": ${(error as Error).message}; free some room, or set another folder`
    return { part: 'data', ok: false, message }
  }
}

async function checkOpened(check: DataCheck, { log, store }: Opened): Promise<Finding[]> {
  const { config, isProducer, nowMs, publishes } = check
  const ofLog = await checkLog(config, log, { kafka: kafkaOptions(config, quietLogger(config)), isProducer })
  const ofStore = store === null ? [] : await checkStore(store)
  const usableStore = store !== null && isStoreUsable(ofStore) ? store : null
  const isLogUsed = isLogUsable(ofLog)
  // An older processor that still runs has not yet committed where it stops.
  const mayStart = isLogUsed && ofLog.every(({ part, ok }) => part !== 'group' || ok)
  const ofMongo = usableStore === null ? null : await mongoState(check)
  const ofKafka = isLogUsed ? await kafkaState(config) : null
  const seen = usableStore === null ? NO_HOSTS : await probeHosts(usableStore)
  const aheadMs = (ms: number | null | undefined) => (ms === null || ms === undefined ? null : ms - nowMs())
  const hosts = [...seen.newestMs].map(([host, ms]) => ({ host, aheadMs: ms - nowMs() }))
  return [
    ...ofLog,
    ...ofStore,
    ...(usableStore !== null && mayStart ? await checkStart(config, log, usableStore) : []),
    ...diskFindings([...ownDisk(check), ...(ofMongo?.disks ?? []), ...(ofKafka?.disks ?? [])]),
    ...clockFindings({ mongoMs: ofMongo?.aheadMs ?? null, newestRecordMs: aheadMs(ofKafka?.newestMs), hosts }),
    ...hostFindings(seen, config, publishes),
    ...(usableStore === null ? [] : await checkPrices(usableStore, nowMs())),
  ]
}

const NO_HOSTS: HostLook = { newestMs: new Map(), conflicts: [], counters: [], spellings: [] }

/** The disk of DATA_DIR, where something is stored there. */
function ownDisk({ config, isProducer }: DataCheck): Disk[] {
  const isUsed = config.KAFKA_BOOTSTRAP === null || (config.MONGO_URL === null && !isProducer)
  return isUsed || existsSync(config.DATA_DIR) ? [diskOf(config.DATA_DIR)] : []
}

async function mongoState({ config, nowMs }: DataCheck): Promise<{ aheadMs: number; disks: Disk[] } | null> {
  const options = mongoOptions(config, quietLogger(config))
  if (options === null) return null
  const { probeMongo } = await import('../../store/mongo/diagnostics.ts')
  const { aheadMs, disk } = await probeMongo(options, nowMs)
  return { aheadMs, disks: disk === null ? [] : [{ name: 'MongoDB', ...disk }] }
}

async function kafkaState(config: Config): Promise<{ newestMs: number | null; disks: Disk[] } | null> {
  const options = kafkaOptions(config, quietLogger(config))
  if (options === null) return null
  const topics = [config.TOPIC_METRIC, config.TOPIC_TOKEN]
  const { probeDisks, newestRecordMs } = await import('../../log/kafka/diagnostics.ts')
  const disks = await probeDisks(options, topics)
  return {
    newestMs: await newestRecordMs(options, topics),
    disks: disks.map(({ node, directory, ...sizes }) => ({ name: `Kafka broker ${node} (${directory})`, ...sizes })),
  }
}

function quietLogger(config: Config) {
  return makeLogger({ ...config, LOG_LEVEL: 'silent' })
}

async function checkGpuSources(config: Config): Promise<Finding[]> {
  const isWanted = (name: string) => wantedSource(config) === name || (name === 'seed' && seedPathOf(config) !== null)
  const tried = await tryGpuSources(config)
  return tried.map(({ name, ok, message }) => ({ part: name, ok: ok || (isWanted(name) ? false : null), message }))
}
