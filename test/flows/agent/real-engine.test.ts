// A real engine (llama.cpp's server) under a driver that knows what each request used, with the engine killed -9 under
// load three times and the agent twice in between: what the other side stored is what was done, less at most what the
// bound on /health covers, and no token twice. ENGINE_REQUESTS=500 makes it a soak.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type LlamaServer, startLlama } from '../../servers/llama.ts'
import { freePort } from '../../servers/managed-server.ts'
import { skipWithoutLlama } from '../../servers/servers-for-tests.ts'
import { type Service, temporaryDirectory, until } from '../harness.ts'
import { metricsOf, startAt } from './agent-process.ts'

const skip = await skipWithoutLlama()
const REQUESTS = Number(process.env['ENGINE_REQUESTS'] ?? 96)
const PARALLEL = 6
const MAX_TOKENS = 3
const LOOK_MS = 500
/** Most that one request can use: the longest prompt with its template, and its answer. */
const MOST = 45

interface Health {
  engines: {
    state: string
    last_look: string | null
    restarts: number
    unseen_before_restarts_s: number
    models: string[]
    tokens: number
  }[]
}

interface Done {
  endMs: number
  tokens: number
}

/** Sends requests, a third streamed and each tenth aborted, with prefixes that repeat, until there were so many. */
class Driver {
  readonly done: Done[] = []
  /** Requests whose use is not known: aborted, or lost with the engine. */
  uncertain = 0
  #sent = 0
  readonly #url: string

  constructor(port: number) {
    this.#url = `http://127.0.0.1:${port}/v1/chat/completions`
  }

  /** `onHalf` is called under load, once half of them are sent. */
  async drive(requests: number, onHalf: () => void = () => {}): Promise<void> {
    const end = this.#sent + requests
    const half = this.#sent + Math.ceil(requests / 2)
    const work = async () => {
      while (this.#sent < end) {
        this.#sent += 1
        if (this.#sent === half) onHalf()
        await this.#request(this.#sent)
      }
    }
    await Promise.all(Array.from({ length: PARALLEL }, work))
  }

  async #request(n: number): Promise<void> {
    const stream = n % 3 === 0
    const isAborted = n % 10 === 9
    const content = `Name a colour of set ${n % 4}`
    const body = {
      messages: [{ role: 'user', content }],
      max_tokens: MAX_TOKENS,
      temperature: 0,
      stream: stream || isAborted,
      stream_options: stream || isAborted ? { include_usage: true } : undefined,
    }
    const stopping = new AbortController()
    try {
      const response = await fetch(this.#url, { method: 'POST', body: JSON.stringify(body), signal: stopping.signal })
      // It loads its model.
      if (response.status === 503) return await this.#again(n)
      assert.equal(response.status, 200)
      let text = ''
      for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
        text += chunk
        if (isAborted) stopping.abort()
      }
      const json = body.stream ? text.match(/data: (\{.*"usage":\{.*\})/)![1]! : text
      const { usage } = JSON.parse(json) as { usage: { total_tokens: number } }
      assert.ok(usage.total_tokens <= MOST)
      this.done.push({ endMs: Date.now(), tokens: usage.total_tokens })
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error
      // Nothing listened, so nothing was done.
      if (((error as Error).cause as NodeJS.ErrnoException | undefined)?.code === 'ECONNREFUSED') {
        await this.#again(n)
      } else this.uncertain += 1
    }
  }

  async #again(n: number): Promise<void> {
    await sleep(100)
    await this.#request(n)
  }
}

async function engineOf(agent: Service): Promise<Health['engines'][number]> {
  return (await agent.json<Health>('/health')).engines[0]!
}

interface Usage {
  ts: string
  event_id: string
  prompt_tokens: number
  completion_tokens: number
  model: string
  gpus: number[]
  engine: string
}

async function storedUsage({ port }: Service): Promise<Usage[]> {
  const stored: Usage[] = []
  const url = new URL(`http://127.0.0.1:${port}/api/v1/events?collection=token_usage&limit=1000`)
  for (;;) {
    const response = await fetch(url, { headers: { connection: 'close' } })
    const { items, cursor } = (await response.json()) as { items: Usage[]; cursor: string | null }
    stored.push(...items)
    if (cursor === null) return stored
    url.searchParams.set('cursor', cursor)
  }
}

const sumOf = (events: readonly Usage[]) =>
  events.reduce((sum, { prompt_tokens, completion_tokens }) => sum + prompt_tokens + completion_tokens, 0)

/** What the engine itself has counted since its start. */
async function countersOf(port: number): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
  const names = ['prompt_tokens_total', 'prompt_tokens_cached_total', 'tokens_predicted_total']
  return names.reduce((sum, name) => sum + Number(new RegExp(`^llamacpp:${name} (\\S+)$`, 'm').exec(text)![1]), 0)
}

test('engine and agent are killed under load: no token twice, and none lost beyond the bound', { skip }, async (t) => {
  const directory = temporaryDirectory(t)
  const server = await startAt(t, await freePort(), ['up'], { DATA_DIR: join(directory, 'server') }).ready()
  const seed = join(directory, 'seed.json')
  writeFileSync(seed, JSON.stringify([{ gpu_index: 0, name: 'Seed', utilization: 0.5, power_w: 300 }]))
  const enginePort = await freePort()
  const env = {
    DATA_DIR: join(directory, 'agent'),
    GPU_METRICS_SOURCE: 'seed',
    GPU_SEED: seed,
    HOSTNAME: 'box',
    AGENT_ENGINE: `http://127.0.0.1:${enginePort}`,
    AGENT_GPUS: '0',
    AGENT_ENGINE_INTERVAL_SEC: String(LOOK_MS / 1000),
  }
  const words = ['agent', '--to', `http://127.0.0.1:${server.port}`]
  const start = async () => startAt(t, await freePort(), words, env)
  let agent = await start()
  const is = (what: string, check: (engine: Health['engines'][number]) => boolean) =>
    until(
      what,
      async () => check(await engineOf(agent)),
      60,
      () => agent.output,
    )
  const isLookedAt = () => {
    const nowMs = Date.now()
    return is('there was another look', ({ last_look }) => Date.parse(last_look ?? '') > nowMs)
  }
  await is('nothing is there yet', ({ state }) => state === 'failing')

  let engine: LlamaServer = await startLlama(enginePort)
  t.after(() => engine.kill('SIGKILL'))
  const driver = new Driver(enginePort)
  const windows: { fromMs: number; toMs: number }[] = []
  let killMs = 0
  for (let round = 0; round < 3; round += 1) {
    // So much was seen that the next engine has counted less at its first look: it states no start time.
    await driver.drive(REQUESTS / 4)
    await isLookedAt()
    const killed = Promise.withResolvers<void>()
    await driver.drive(PARALLEL * 2, () => {
      killMs = Date.now()
      const again = engine.kill('SIGKILL').then(() => startLlama(enginePort))
      again.then((started) => {
        engine = started
        killed.resolve()
      }, killed.reject)
    })
    await killed.promise
    await driver.drive(3)
    await is('the restart is seen', ({ restarts }) => restarts === 1)
    const { last_look, unseen_before_restarts_s: unseen } = await engineOf(agent)
    // From the last look before the kill; another look may have been stored between.
    windows.push({ fromMs: Date.parse(last_look!) - unseen * 1000 - LOOK_MS, toMs: killMs })
    if (round === 2) break
    assert.equal(await agent.stop('SIGKILL'), -1)
    await driver.drive(6)
    agent = await start()
  }

  // Of the last engine each token is there, by its own counters, though the agent is killed under load.
  const stopped = Promise.withResolvers<number | null>()
  await driver.drive(REQUESTS / 4, () => void agent.stop('SIGKILL').then(stopped.resolve, stopped.reject))
  assert.equal(await stopped.promise, -1)
  agent = await start()
  const made = await countersOf(enginePort)
  await isLookedAt()
  assert.deepEqual((await engineOf(agent)).models, ['smollm2-135m'])
  await until('all is sent', async () => (await metricsOf(agent))['spool_records'] === 0)
  assert.equal(await agent.stop(), 0, agent.output)
  let events: Usage[] = []
  await until('all is stored', async () => {
    const before = events.length
    events = await storedUsage(server)
    return events.length === before && before > 0
  })

  assert.equal(new Set(events.map(({ event_id }) => event_id)).size, events.length)
  for (const { model, gpus, engine: name } of events)
    assert.deepEqual([model, gpus, name], ['smollm2-135m', [0], 'llama.cpp'])
  const known = driver.done.reduce((sum, { tokens }) => sum + tokens, 0)
  const unseen = driver.done.filter(({ endMs }) => windows.some(({ fromMs, toMs }) => endMs >= fromMs && endMs <= toMs))
  const lostAtMost = unseen.reduce((sum, { tokens }) => sum + tokens, 0)
  const counted = sumOf(events)
  t.diagnostic(`${driver.done.length} requests known with ${known} tokens, ${driver.uncertain} not; ${counted} counted`)
  t.diagnostic(`lost at most ${lostAtMost}; the last engine made ${made}`)
  assert.ok(counted <= known + driver.uncertain * MOST, `${counted} counted of ${known}`)
  assert.ok(counted >= known - lostAtMost, `${counted} counted of ${known}, ${lostAtMost} may be lost`)
  const ofLast = events.filter(({ ts }) => Date.parse(ts) > killMs)
  assert.equal(sumOf(ofLast), made)
  assert.equal(await server.stop(), 0, server.output)
})
