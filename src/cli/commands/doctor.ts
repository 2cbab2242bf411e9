// `pertoken doctor`: reaches the log, the store, the seed file and the own HTTP, and says in one line each what is well
// or what to do. Exit 1 when something is wrong.

import { existsSync, readFileSync } from 'node:fs'
import { parseSeed } from '../../sources/seed.ts'
import type { Command, CommandContext } from '../command.ts'
import type { Config } from '../config.ts'
import { makeLogger, openLog, openStore } from '../wire.ts'
import { SERVICE_OPTIONS } from './processor.ts'

interface Finding {
  part: string
  ok: boolean
  message: string
}

const HTTP_TIMEOUT_MS = 3000

export const doctor: Command = {
  summary: 'Reaches log, store, seed file and own HTTP; one line each with what to do; exit 1 when something is wrong',
  usage: '[--json]',
  flags: { json: { help: 'Prints the findings as JSON' } },
  options: [...SERVICE_OPTIONS, 'GPU_SEED', 'GPU_SEED_LOCAL'],
  async run(context) {
    const { config, flags, print } = context
    const findings = [
      ...(await checkLog(context)),
      ...(await checkStore(context)),
      ...checkSeed(config),
      ...(await checkHttp(config)),
    ]
    if (flags['json'] === true) print(`${JSON.stringify(findings, null, 2)}\n`)
    else for (const { part, ok, message } of findings) print(`${ok ? 'ok   ' : 'WRONG'} ${part.padEnd(7)} ${message}\n`)
    return findings.every(({ ok }) => ok) ? 0 : 1
  },
}

async function checkLog({ config }: CommandContext): Promise<Finding[]> {
  const log = await openLog(config, makeLogger({ ...config, LOG_LEVEL: 'silent' }))
  try {
    await log.ping()
    const names = [config.TOPIC_METRIC, config.TOPIC_TOKEN, config.TOPIC_DEAD]
    const described = await log.describe(names, config.KAFKA_GROUP)
    const missing = names.filter((name) => !described.some((topic) => topic.name === name))
    const findings: Finding[] = [{ part: 'log', ok: true, message: `Reached ${log.description}` }]
    if (missing.length > 0) {
      findings.push({
        part: 'topics',
        ok: false,
        message: `Missing: ${missing.join(', ')}: run pertoken topics, or start the processor`,
      })
    } else findings.push({ part: 'topics', ok: true, message: names.join(', ') })
    return findings
  } catch (error) {
    const message = `Cannot reach ${log.description}: ${(error as Error).message}; check KAFKA_BOOTSTRAP and that it runs`
    return [{ part: 'log', ok: false, message }]
  } finally {
    await log.close()
  }
}

async function checkStore({ config }: CommandContext): Promise<Finding[]> {
  const store = await openStore(config, makeLogger({ ...config, LOG_LEVEL: 'silent' }))
  try {
    await store.ping()
    const { warnings } = await store.prepare()
    const counts = await store.count()
    const foreign =
      counts.foreign === null || counts.foreign === 0
        ? ''
        : `; ${counts.foreign} documents of an older deployment (take them in with pertoken replay --from-mongo)`
    const summary = `${counts.gpuMetrics} samples, ${counts.tokenUsage} token events, ${counts.deadLetters} dead letters`
    return [
      { part: 'store', ok: true, message: `Reached ${store.description}: ${summary}${foreign}` },
      ...warnings.map((message) => ({ part: 'store', ok: false, message })),
    ]
  } catch (error) {
    const message = `Cannot use ${store.description}: ${(error as Error).message}; check MONGO_URL and that it runs`
    return [{ part: 'store', ok: false, message }]
  } finally {
    await store.close()
  }
}

function checkSeed(config: Config): Finding[] {
  const path =
    config.GPU_SEED_LOCAL !== null && existsSync(config.GPU_SEED_LOCAL) ? config.GPU_SEED_LOCAL : config.GPU_SEED
  if (path === null) return []
  try {
    return [
      { part: 'seed', ok: true, message: `${parseSeed(readFileSync(path, 'utf8'), path).length} GPUs in ${path}` },
    ]
  } catch (error) {
    return [{ part: 'seed', ok: false, message: (error as Error).message }]
  }
}

async function checkHttp(config: Config): Promise<Finding[]> {
  const host = config.HOST === null || ['0.0.0.0', '::'].includes(config.HOST) ? '127.0.0.1' : config.HOST
  const url = `http://${host}:${config.PORT}/health`
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(HTTP_TIMEOUT_MS) })
    const health = (await response.json()) as { status: string; problems?: { message: string }[] }
    if (response.ok) return [{ part: 'http', ok: true, message: `${url} says ${health.status}` }]
    const problems = (health.problems ?? []).map(({ message }) => message).join('; ')
    return [{ part: 'http', ok: false, message: `${url} says ${health.status}: ${problems || 'no problem named'}` }]
  } catch {
    return [{ part: 'http', ok: false, message: `Nothing answers at ${url}: start pertoken up or pertoken processor` }]
  }
}
