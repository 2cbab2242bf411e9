// The agent's promise, with real processes: the other side is away while eight GPUs are sampled ten times a second, and
// the agent is killed -9 in between. Every sample that was spooled arrives, and is one document. Over Kafka with the
// broker killed, over HTTP with the server killed. AGENT_SECONDS=600 makes it a soak of ten minutes each.

import assert from 'node:assert/strict'
import { appendFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../../servers/managed-server.ts'
import { kafkaForTests, uniqueName } from '../../servers/servers-for-tests.ts'
import { onSmallDisk } from '../../small-disk.ts'
import { type Env, pertoken, type Service, startService, temporaryDirectory, until } from '../harness.ts'
import { idsInSpool, metricsOf, startAt, storedSamples } from './agent-process.ts'

const SECONDS = Number(process.env['AGENT_SECONDS'] ?? 0)
const GPUS = 8

/** What agents over a seed of eight GPUs are given; they share a spool. */
function agentEnv(directory: string): { env: Env; spool: string } {
  const seed = join(directory, 'seed.json')
  const gpus = Array.from({ length: GPUS }, (_, i) => ({ gpu_index: i, name: 'Seed', utilization: 0.5, power_w: 300 }))
  writeFileSync(seed, JSON.stringify(gpus))
  const data = join(directory, 'agent')
  const env = { DATA_DIR: data, GPU_METRICS_SOURCE: 'seed', GPU_SEED: seed, HOSTNAME: 'box' }
  return { env, spool: join(data, 'spool.sqlite') }
}

/** What is wrong, as the agent's own /health says. */
async function problemsOf(agent: Service): Promise<{ part: string; message: string }[]> {
  return (await agent.json<{ problems: { part: string; message: string }[] }>('/health')).problems
}

async function isAway(agent: Service): Promise<boolean> {
  return (await problemsOf(agent)).some(({ part }) => part === 'sink')
}

function says(agent: Service, what: string, check: () => Promise<boolean>): Promise<boolean> {
  return until(`the agent says that ${what}`, check, 60, () => agent.output)
}

function has(agent: Service, name: string, least: number): Promise<boolean> {
  return says(agent, `${name} is ${least}`, async () => {
    assert.equal(agent.child.exitCode, null)
    return (await metricsOf(agent))[name]! >= least
  })
}

/**
 * Runs agents one after the other over the same spool. In each round the other side goes, the agent is killed -9 while
 * it is away, another starts, the other side comes back, and that one is killed while it sends. Answers the ids of all
 * samples that were ever spooled.
 */
async function runAgents(
  t: TestContext,
  start: () => Promise<Service>,
  spool: string,
  other: { goes: () => Promise<void>; comes: () => Promise<void> },
): Promise<string[]> {
  const spooled: string[] = []
  const untilMs = performance.now() + SECONDS * 1000
  let agent = await start()
  let [failures, kills] = [0, 0]
  const kill = async () => {
    assert.equal(await agent.stop('SIGKILL'), -1)
    kills += 1
    spooled.push(...idsOfRun(idsInSpool(spool)))
    agent = await start()
  }
  do {
    await has(agent, 'samples_sent_total', 10 * GPUS)
    await other.goes()
    await says(agent, 'the other side is away', () => isAway(agent))
    await has(agent, 'samples_spooled_total', (await metricsOf(agent))['samples_spooled_total']! + 5 * GPUS)
    failures += (await metricsOf(agent))['send_failures_total']!
    await kill()
    await has(agent, 'samples_spooled_total', 5 * GPUS)
    await other.comes()
    await has(agent, 'samples_sent_total', 5 * GPUS)
    await kill()
    if (SECONDS > 0) await sleep(10_000)
    await has(agent, 'samples_sent_total', 5 * GPUS)
    await says(agent, 'all is sent', async () => {
      return (await metricsOf(agent))['spool_records']! <= 2 * GPUS && !(await isAway(agent))
    })
  } while (performance.now() < untilMs)
  const last = await metricsOf(agent)
  const lost = ['samples_unspooled_total', 'samples_dropped_total', 'samples_refused_total'].map((name) => last[name])
  assert.deepEqual(lost, [0, 0, 0])
  assert.equal(await agent.stop(), 0, agent.output)
  assert.doesNotMatch(agent.output, /wait in the spool/, 'a drain with the other side there leaves nothing')
  spooled.push(...idsOfRun(idsInSpool(spool)))
  assert.ok(failures > 0, 'the other side was really away')
  t.diagnostic(`${spooled.length} samples spooled, ${kills} kills -9, ${failures} failed sends`)
  return spooled
}

/** All ids of the newest run: its counter has no gaps, and the spool holds its last one. */
function idsOfRun(ids: readonly string[]): string[] {
  const [, run, last] = /^(.*)-(\d+)$/.exec(ids.at(-1)!)!
  const all = Array.from({ length: Number(last) + 1 }, (_, n) => `${run}-${n}`)
  const held = ids.filter((id) => id.startsWith(`${run}-`))
  assert.deepEqual(held, all.slice(-held.length), 'no gap and no order but the counter’s')
  return all
}

/** Exactly one document a sample, every GPU's. */
async function checkStored(server: Service, spooled: readonly string[], token = ''): Promise<void> {
  let stored: Record<string, unknown>[] = []
  const areStored = async () => {
    stored = await storedSamples(server, token)
    const ids = new Set(stored.map((sample) => sample['event_id']))
    return spooled.every((id) => ids.has(id))
  }
  const state = () => `${stored.length} of ${spooled.length}; ${server.output}`
  await until('all samples are stored', areStored, 60, state)
  assert.deepEqual(stored.map((sample) => sample['event_id']).sort(), [...spooled].sort())
  assert.equal(new Set(stored.map((sample) => sample['gpu_index'])).size, GPUS)
  assert.ok(stored.every((sample) => sample['source'] === 'seed' && sample['host'] === 'box'))
}

/** A token of a new name in the file. */
function addToken(file: string, scope: string): string {
  const added = pertoken(['tokens', 'add', '--name', scope, '--scope', scope], { API_TOKENS_FILE: file })
  assert.equal(added.status, 0, added.stderr)
  return added.stdout.trim()
}

test('to Kafka: broker killed, agent killed -9 while it is away: every spooled sample is one document', async (t) => {
  const kafka = await kafkaForTests({ owned: true })
  if (kafka.skip !== false) return t.skip(kafka.skip)
  const directory = temporaryDirectory(t)
  const topics = { TOPIC_METRIC: uniqueName('gpu'), TOPIC_TOKEN: uniqueName('token'), TOPIC_DEAD: uniqueName('dead') }
  const env = { ...topics, KAFKA_BOOTSTRAP: kafka.bootstrap, KAFKA_GROUP: uniqueName('g') }
  const processorEnv = { ...env, DATA_DIR: join(directory, 'processor') }
  const processor = await (await startService(t, ['processor', '--host', '127.0.0.1'], processorEnv)).ready()
  const own = agentEnv(directory)
  const start = async () => startAt(t, await freePort(), ['agent', '--interval', '0.1'], { ...env, ...own.env })
  const spooled = await runAgents(t, start, own.spool, {
    goes: () => kafka.server!.kill(),
    comes: () => kafka.server!.start(),
  })
  await checkStored(processor, spooled)
  assert.equal(await processor.stop(), 0, processor.output)
})

test('over HTTP with a token: server killed, agent killed -9: every spooled sample is one document', async (t) => {
  const directory = temporaryDirectory(t)
  const tokens = join(directory, 'tokens')
  const [read, ingest] = [addToken(tokens, 'read'), addToken(tokens, 'ingest')]
  const port = await freePort()
  const serverEnv = { DATA_DIR: join(directory, 'server'), API_TOKENS_FILE: tokens }
  const serve = async () => startAt(t, port, ['up'], serverEnv).ready()
  let server = await serve()
  const own = agentEnv(directory)
  const words = ['agent', '--interval', '0.1', '--to', `http://127.0.0.1:${port}`]
  const start = async () => startAt(t, await freePort(), words, { ...own.env, API_TOKEN: ingest })
  const spooled = await runAgents(t, start, own.spool, {
    goes: async () => void (await server.stop('SIGKILL')),
    comes: async () => {
      server = await serve()
    },
  })
  await checkStored(server, spooled, read)
  assert.equal(await server.stop(), 0, server.output)
})

test('a full disk: samples are lost, said and counted, and all others arrive when there is room again', async (t) => {
  const directory = temporaryDirectory(t)
  const own = agentEnv(directory)
  const disk = own.env['DATA_DIR']!
  mkdirSync(disk)
  const smallDisk = onSmallDisk(t, disk, 4)
  if (smallDisk === null) return
  const port = await freePort()
  const words = ['agent', '--interval', '0.1', '--to', `http://127.0.0.1:${port}`]
  const agent = startAt(t, await freePort(), words, own.env, smallDisk)
  const isFull = async () =>
    (await problemsOf(agent)).some(({ part, message }) => part === 'spool' && /lost.*(no space|full)/.test(message))
  await has(agent, 'samples_spooled_total', 5 * GPUS)

  const filler = `/proc/${agent.child.pid}/root${disk}/filler`
  assert.throws(() => {
    for (;;) appendFileSync(filler, Buffer.alloc(4096))
  }, /ENOSPC/)
  await says(agent, 'its disk is full', isFull)
  await has(agent, 'samples_unspooled_total', 5 * GPUS)
  rmSync(filler)
  await says(agent, 'there is room again', async () => !(await isFull()))
  const { samples_unspooled_total: lost, samples_spooled_total: spooled } = await metricsOf(agent)
  await has(agent, 'samples_spooled_total', spooled! + 5 * GPUS)

  const server = await startAt(t, port, ['up'], { DATA_DIR: join(directory, 'server') }).ready()
  await has(agent, 'samples_sent_total', spooled! + 5 * GPUS)
  assert.equal((await metricsOf(agent))['samples_unspooled_total'], lost)
  assert.equal(await agent.stop(), 0, agent.output)
  assert.doesNotMatch(agent.output, /wait in the spool/)
  let numbers: number[] = []
  await until('all that was sent is stored', async () => {
    const ids = (await storedSamples(server)).map((sample) => String(sample['event_id']))
    numbers = ids.map((id) => Number(id.split('-').at(-1))).sort((a, b) => a - b)
    return numbers.length + lost! === numbers.at(-1)! + 1
  })
  assert.equal(new Set(numbers).size, numbers.length)
  assert.equal(await server.stop(), 0, server.output)
})

test('a wrong token is said loudly and loses nothing: the right one in its file is taken without a restart', async (t) => {
  const directory = temporaryDirectory(t)
  const [tokens, tokenFile] = [join(directory, 'tokens'), join(directory, 'token')]
  const [read, ingest] = [addToken(tokens, 'read'), addToken(tokens, 'ingest')]
  const serverEnv = { DATA_DIR: join(directory, 'server'), API_TOKENS_FILE: tokens }
  const server = await startAt(t, await freePort(), ['up'], serverEnv).ready()
  const own = agentEnv(directory)
  const words = ['agent', '--interval', '0.1', '--to', `http://127.0.0.1:${server.port}`, '--token-file', tokenFile]
  for (const [token, said] of [
    ['pt_wrong', /"level":50.*Answered 401: the token is missing, wrong or no longer valid/],
    [read, /"level":50.*Answered 403: not allowed: it needs a token of scope ingest/],
  ] as const) {
    writeFileSync(tokenFile, `${token}\n`)
    const agent = startAt(t, await freePort(), words, own.env)
    await until('the agent says what is wrong', async () => said.test(agent.output) && (await isAway(agent)))
    await until('samples wait', async () => (await metricsOf(agent))['spool_records']! >= GPUS)
    const shown = agent.output + (await (await fetch(`http://127.0.0.1:${agent.port}/health`)).text())
    assert.ok(!shown.includes(token), 'no token in what it says')
    // A drain tries once more, with what the file says then.
    if (token === read) writeFileSync(tokenFile, `${ingest}\n`)
    assert.equal(await agent.stop(), 0, agent.output)
    assert.equal(/samples wait in the spool/.test(agent.output), token !== read, agent.output)
  }
  await checkStored(server, idsInSpool(own.spool), read)
  assert.equal(await server.stop(), 0)
})

test('SIGTERM with the other side away ends with 0 within 7 s, and the next start sends what waited', async (t) => {
  const directory = temporaryDirectory(t)
  const own = agentEnv(directory)
  const port = await freePort()
  const start = async () => startAt(t, await freePort(), ['agent', '--to', `http://127.0.0.1:${port}`], own.env)
  const agent = await start()
  await until('samples wait', async () => (await metricsOf(agent))['spool_records']! >= GPUS)
  const startedMs = performance.now()
  assert.equal(await agent.stop(), 0)
  assert.ok(performance.now() - startedMs < 7000, `${performance.now() - startedMs} ms`)
  assert.match(agent.output, /Stopped: \d+ samples wait in the spool for the next start/)
  const server = await startAt(t, port, ['up'], { DATA_DIR: join(directory, 'server') }).ready()
  const next = await start()
  await until('nothing waits', async () => {
    const { spool_records: waiting, samples_sent_total: sent } = await metricsOf(next)
    return waiting === 0 && sent! > GPUS
  })
  assert.equal(await next.stop(), 0)
  await checkStored(server, idsInSpool(own.spool))
})
