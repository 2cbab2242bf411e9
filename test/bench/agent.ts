// What the agent costs beside the model that a GPU serves: eight GPUs of a stand-in for NVIDIA's library once a second,
// over HTTP and to a real Kafka, with the child process that queries the driver; compiled, as the package has it (from
// the sources Node holds a compiler as well). Prints the targets and what was reached; nothing fails for being slow.
//
//   node test/bench/agent.ts [--seconds 60]

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { compileStandIn } from '../agent/gpu/stand-in.ts'
import { startKafka } from '../servers/kafka/kafka.ts'
import { freePort } from '../servers/managed-server.ts'
import { buildPackage } from './package.ts'
import { childrenOf, cpuSeconds, memoryMb } from './process-cost.ts'
import { until } from './until.ts'

const { values: args } = parseArgs({ options: { seconds: { type: 'string', default: '60' } } })
const SECONDS = Number(args.seconds)
const GPUS = 8
/** Start-up, the first reading and the first batches are done by then. */
const WARM_UP_MS = 10_000
const MAX_SHARE = 0.01
const MAX_MB = 120

const pertoken = buildPackage()
const directory = mkdtempSync(join(tmpdir(), 'pertoken-bench-'))
const settings = join(directory, 'settings')
compileStandIn(join(directory, 'libnvidia-ml.so.1'))
writeFileSync(settings, `count=${GPUS}\n`)
const running: ChildProcess[] = []
try {
  const port = await freePort()
  const server = start(['up', '--embedded', '--port', String(port)], { DATA_DIR: join(directory, 'server') })
  await until(async () => (await fetch(`http://127.0.0.1:${port}/health`)).ok)
  await measure('over HTTP', ['--to', `http://127.0.0.1:${port}`], {})
  await stop(server)
  const kafka = await startKafka({ version: '3.9', mode: 'kraft' })
  try {
    await measure('to Kafka', [], { KAFKA_BOOTSTRAP: kafka.bootstrap })
  } finally {
    await kafka.close()
  }
} finally {
  for (const child of running) child.kill('SIGKILL')
  pertoken.remove()
  rmSync(directory, { recursive: true, force: true })
}

async function measure(way: string, words: readonly string[], env: NodeJS.ProcessEnv): Promise<void> {
  const port = await freePort()
  const agent = start(['agent', '--port', String(port), '--price', '1', ...words], {
    ...env,
    DATA_DIR: join(directory, way),
    LD_LIBRARY_PATH: directory,
    NVML_STAND_IN: settings,
  })
  const sent = async () => {
    const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
    return Number(/^pertoken_agent_samples_sent_total (\d+)/m.exec(metrics)?.[1] ?? 0)
  }
  await until(async () => (await sent()) > 0)
  await sleep(WARM_UP_MS)
  const pids = [agent.pid!, ...childrenOf(agent.pid!)]
  const used = () => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0)
  const [sentBefore, usedBefore] = [await sent(), used()]
  await sleep(SECONDS * 1000)
  const share = (used() - usedBefore) / SECONDS
  const perSecond = ((await sent()) - sentBefore) / SECONDS
  const [own, ...children] = pids.map(memoryMb)
  const childrenMb = children.map(({ rss }) => rss.toFixed(0)).join(' + ')
  const pssMb = [own!, ...children].reduce((sum, { pss }) => sum + pss, 0)
  const verdict = (isReached: boolean) => (isReached ? 'reached' : 'missed')
  process.stdout.write(
    `agent ${way}, ${GPUS} GPUs, ${perSecond.toFixed(1)} samples/s sent: ` +
      `${(share * 100).toFixed(2)} % of a core (target ${MAX_SHARE * 100} %: ${verdict(share <= MAX_SHARE)}), ` +
      `${own!.rss.toFixed(0)} MB (target ${MAX_MB}: ${verdict(own!.rss <= MAX_MB)}), the driver's child ${childrenMb} MB; ` +
      `both without counting shared pages twice ${pssMb.toFixed(0)} MB\n`,
  )
  await stop(agent)
}

function start(words: readonly string[], env: NodeJS.ProcessEnv): ChildProcess {
  const own = { PATH: process.env['PATH'], HOME: directory, LOG_LEVEL: 'warn' }
  const child = spawn(process.execPath, [pertoken.bin, ...words], {
    env: { ...own, ...env },
    cwd: directory,
    stdio: 'ignore',
  })
  running.push(child)
  return child
}

async function stop(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  await ended
}
