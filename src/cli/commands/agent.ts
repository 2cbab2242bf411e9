// `pertoken agent`: samples the GPUs of this host, counts the tokens of its engines, and sends both, through a spool on
// disk, to Kafka (or the embedded log) or by HTTP to another pertoken. Loads only what it uses, because it shares the
// machine with a model.

import type { Server } from 'node:http'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runAgent } from '../../agent/agent.ts'
import { type AgentView, startAgentServer } from '../../agent/agent-server.ts'
import { type AgentState, createState } from '../../agent/agent-state.ts'
import type { GpuSource } from '../../agent/gpu/gpu-source.ts'
import type { AgentSample, SampleSettings } from '../../agent/gpu-sample.ts'
import { sampleMaker } from '../../agent/sampler.ts'
import { DROPPED_TOPICS, openSpool, type Spool } from '../../agent/spool.ts'
import { type Command, type CommandContext, UsageError } from '../command.ts'
import type { Config } from '../options.ts'
import { version } from '../version.ts'
import { openSink, tokenReader } from '../wiring/agent-sink.ts'
import { type EngineSettings, engineSettings, makeEngineWatch } from '../wiring/engine-watch.ts'
import { findGpuSource, GPU_FLAGS, GPU_OPTIONS, noGpuLine, sampleSettings, seedPathOf } from '../wiring/gpu-sources.ts'
import { makeLogger } from '../wiring/wire.ts'

/** Sent records beyond this size are deleted, so that the spool stays small while its sink responds. */
const KEEP_BYTES = 1024 * 1024
/** How long an agent waits for the spool of one that was killed. */
const SPOOL_LEASE_MS = 2000
/** How long a hung driver may delay the exit. */
const CLOSE_SOURCE_MS = 1000

export const agent: Command = {
  usage: '[--to URL] [--model NAME] [--once]',
  details:
    'Without --to it sends to KAFKA_BOOTSTRAP, else into the embedded log in DATA_DIR. The token for --to is read from\n' +
    'API_TOKEN, API_TOKEN_FILE or --token-file. What waits to be sent is in DATA_DIR/spool.sqlite.',
  flags: {
    to: { option: 'AGENT_TO', value: 'URL', help: 'Address of the pertoken to send to' },
    'token-file': { value: 'FILE', help: 'File with the token for --to; read again when it changes' },
    ca: { option: 'AGENT_CA', value: 'FILE', help: 'PEM file of the authority to trust for --to' },
    model: { option: 'AGENT_MODEL', value: 'NAME', help: 'Model that the GPUs hold: NAME, or 0=NAME,1=NAME' },
    ...GPU_FLAGS,
    engine: {
      option: 'AGENT_ENGINE',
      value: 'WHICH',
      help: 'Engines whose tokens are counted: auto, off, or URL[,URL]',
    },
    gpus: { option: 'AGENT_GPUS', value: 'LIST', help: 'GPUs of the engines that --engine names: 0,1' },
    price: { option: 'AGENT_PRICE', value: 'USD', help: 'What one GPU of this host costs an hour' },
    interval: { option: 'AGENT_INTERVAL_SEC', value: 'SECONDS', help: 'Time between two samples' },
    port: { option: 'AGENT_PORT', value: 'PORT', help: 'Loopback port of its own /health and /metrics' },
    'spool-mb': { option: 'AGENT_SPOOL_MB', value: 'MIB', help: 'Bound of the spool' },
    once: { help: 'Reads the GPUs once, prints what it would send, sends nothing' },
    json: { help: 'With --once: prints the events as JSON' },
  },
  options: [
    ...GPU_OPTIONS,
    'KAFKA_BOOTSTRAP',
    'DATA_DIR',
    'TOPIC_METRIC',
    'HOSTNAME',
    'GPU_SEED',
    'GPU_SEED_LOCAL',
    'LOG_LEVEL',
  ],
  async run(context) {
    const { config, flags, words } = context
    // A young generation that does not grow: with the Kafka client 22 MB less were measured, at no cost in time.
    setFlagsFromString('--semi-space-growth-factor=1')
    if (words.length > 0) throw new UsageError(`Unexpected word "${words[0]}"\nSee: pertoken agent --help`)
    const settings = sampleSettings(config)
    const engines = engineSettings(config)
    const token = tokenReader(context)
    const { source, tried } = await findGpuSource(config, seedPathOf(config))
    if (source === null) throw new Error(noGpuLine(tried))
    try {
      return flags['once'] === true
        ? await once(context, source, settings)
        : await sample(context, source, { settings, engines, token, tried })
    } finally {
      await closeInTime(source)
    }
  },
}

async function once(
  { flags, print, say }: CommandContext,
  source: GpuSource,
  settings: Omit<SampleSettings, 'source'>,
): Promise<number> {
  const events = sampleMaker({ ...settings, source: source.name })(await source.read(), Date.now())
  for (const line of [...source.faults, ...(source.notices ?? [])]) say(`${line}\n`)
  if (flags['json'] === true) print(`${JSON.stringify(events, null, 2)}\n`)
  else for (const event of events) print(`${lineOf(event)}\n`)
  return 0
}

async function sample(
  { config, env, signal, say }: CommandContext,
  source: GpuSource,
  {
    settings,
    engines,
    token,
    tried,
  }: {
    settings: Omit<SampleSettings, 'source'>
    engines: EngineSettings | null
    token: () => string | null
    tried: { name: string; ok: boolean; message: string }[]
  },
): Promise<number> {
  const logger = makeLogger(config)
  const state = createState(logger)
  const { sink, close } = await openSink({ config, env }, token, logger)
  let spool: Spool | undefined
  let server: Server | undefined
  try {
    spool = await openAgentSpool(config, state)
    const maxSpoolBytes = config.AGENT_SPOOL_MB * 1024 * 1024
    const { models } = settings
    const parts = { config, source, spool, state, models, ownPorts: [config.AGENT_PORT] }
    const watch = engines === null ? null : makeEngineWatch(engines, parts)
    const shown = { state, source: source.name, sink: sink.description, spool, maxSpoolBytes, version: version() }
    server = await listen({ ...shown, engines: watch === null ? undefined : () => watch.health() }, config)
    const { port } = server.address() as { port: number }
    for (const { name, ok, message } of tried) say(`${ok ? 'GPUs by' : 'Not by'} ${name}: ${message}\n`)
    say(
      `pertoken agent ${version()}: sends a sample every ${config.AGENT_INTERVAL_SEC} s as host ${settings.host} to ${sink.description}, look at http://127.0.0.1:${port}/health\n`,
    )
    await runAgent({
      source,
      // What the operator names goes before what an engine states.
      settings: { ...settings, models: (gpu) => models(gpu) ?? watch?.modelOn(gpu) ?? null },
      watch,
      intervalMs: config.AGENT_INTERVAL_SEC * 1000,
      state,
      spool,
      sink,
      logger,
      signal,
    })
    const left = await spool.status().catch(() => null)
    if (left !== null && left.records > 0)
      say(`Stopped: ${left.records} samples wait in the spool for the next start\n`)
    return 0
  } finally {
    server?.close()
    server?.closeAllConnections()
    await Promise.allSettled([close(), spool?.close()])
  }
}

async function openAgentSpool(config: Config, state: AgentState): Promise<Spool> {
  const { SqliteLog } = await import('../../log/sqlite/sqlite-log.ts')
  return openSpool(
    new SqliteLog({
      path: join(config.DATA_DIR, 'spool.sqlite'),
      maxBytes: config.AGENT_SPOOL_MB * 1024 * 1024,
      keepBytes: KEEP_BYTES,
      leaseMs: SPOOL_LEASE_MS,
      dropOldest: {
        topics: DROPPED_TOPICS,
        onDropped: (_topic, records) => {
          state.counters.dropped += records
          state.report(
            'spool-full',
            ['The spool is full: the oldest GPU samples are dropped until the other side takes some'],
            'error',
          )
        },
      },
    }),
  )
}

async function listen(view: AgentView, { AGENT_PORT: port }: Config): Promise<Server> {
  try {
    return await startAgentServer(view, port)
  } catch (error) {
    const at = `Cannot listen on 127.0.0.1:${port}`
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EADDRINUSE') throw new Error(`${at}: something else does, an agent perhaps; set --port to a free one`)
    if (code === 'EACCES')
      throw new Error(`${at}: it is not permitted (EACCES); set AGENT_PORT (or --port) to 1024 or above`)
    throw error
  }
}

function lineOf(event: AgentSample): string {
  const { gpu_index, name, utilization, mem_used_mb, mem_total_mb, power_w, model_loaded } = event
  const figures = [
    name ?? 'unknown GPU',
    utilization === undefined ? 'utilisation unknown' : `${Math.round(utilization * 100)} % busy`,
    mem_used_mb === undefined ? 'memory unknown' : `${mem_used_mb} of ${mem_total_mb ?? '?'} MiB`,
    power_w === undefined ? 'power unknown' : `${power_w} W`,
  ]
  if (model_loaded !== undefined) figures.push(model_loaded)
  return `GPU ${gpu_index}: ${figures.join(', ')} (${event.source})`
}

async function closeInTime(source: GpuSource): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const timeUp = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, CLOSE_SOURCE_MS)
  })
  await Promise.race([source.close().catch(() => {}), timeUp])
  clearTimeout(timer)
}
