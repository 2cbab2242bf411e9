// The watch of engines over a real spool and a real server that serves an engine's page and knows what it made: what
// lies in the spool is what was made, whatever is killed, slow, away or full.

import assert from 'node:assert/strict'
import { createServer, type Server } from 'node:http'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createState } from '../../../src/agent/agent-state.ts'
import { openSpool, type Spool } from '../../../src/agent/spool.ts'
import { type EngineTarget, namedTargets } from '../../../src/agent/watch/engine-targets.ts'
import { EngineWatch } from '../../../src/agent/watch/engine-watch.ts'
import type { EngineEvent } from '../../../src/agent/watch/token-events.ts'
import { SqliteLog } from '../../../src/log/sqlite/sqlite-log.ts'
import { quietLogger, temporaryDirectory, until } from '../agent-fixture.ts'

const INTERVAL_MS = 50

/** An engine's page over HTTP; `restart` is what a killed process leaves. */
class FakeEngine {
  readonly made = { prompt: 0, completion: 0 }
  prompt = 0
  completion = 0
  /** Tokens that the last page showed. */
  shown = 0
  lost = 0
  looks = 0
  asked = 0
  cached: number | null = null
  startMs = Date.now()
  delayMs = 0
  status = 200
  llama = false
  model = 'otter'
  readonly #server: Server
  port = 0

  constructor() {
    this.#server = createServer(async ({ url }, response) => {
      this.asked += 1
      if (this.delayMs > 0) await sleep(this.delayMs, undefined, { ref: false })
      response.writeHead(this.status)
      if (url === '/v1/models') return response.end(JSON.stringify({ data: [{ id: this.model }] }))
      response.end(this.#page())
      this.shown = this.prompt + this.completion
      this.looks += 1
    })
  }

  async listen(t: TestContext): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(this.port, '127.0.0.1', resolve))
    this.port = (this.#server.address() as { port: number }).port
    t.after(() => this.stop())
    return this
  }

  stop(): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }

  work(prompt: number, completion: number): void {
    this.prompt += prompt
    this.completion += completion
    this.made.prompt += prompt
    this.made.completion += completion
  }

  restart(): void {
    this.lost += this.prompt + this.completion - this.shown
    this.prompt = this.completion = this.shown = 0
    this.startMs = Math.max(Date.now(), this.startMs + 2000)
  }

  get url(): URL {
    return new URL(`http://127.0.0.1:${this.port}/metrics`)
  }

  #page(): string {
    if (this.llama)
      return `llamacpp:prompt_tokens_total ${this.prompt}\nllamacpp:tokens_predicted_total ${this.completion}\n`
    return [
      `process_start_time_seconds ${this.startMs / 1000}`,
      `vllm:prompt_tokens_total{model_name="${this.model}"} ${this.prompt}`,
      `vllm:generation_tokens_total{model_name="${this.model}"} ${this.completion}`,
      ...(this.cached === null ? [] : [`vllm:prompt_tokens_cached_total{model_name="${this.model}"} ${this.cached}`]),
      `vllm:num_requests_running{model_name="${this.model}"} 1`,
      '',
    ].join('\n')
  }
}

async function spoolAt(path: string): Promise<Spool> {
  return openSpool(new SqliteLog({ path, leaseMs: 300 }))
}

interface Running {
  watch: EngineWatch
  state: ReturnType<typeof createState>
  stop(): Promise<void>
}

function start(
  spool: Spool,
  targets: readonly EngineTarget[] | readonly FakeEngine[],
  gpus: number[] | null = [0],
): Running {
  const state = createState(quietLogger().logger)
  const urls = targets.map(({ url }) => url)
  const options = { targets: namedTargets(urls, () => gpus), spool, state, host: 'box', models: () => null }
  const watch = new EngineWatch({ ...options, intervalMs: INTERVAL_MS })
  const stopping = new AbortController()
  const running = watch.run(stopping.signal)
  return {
    watch,
    state,
    async stop() {
      stopping.abort()
      await running
    },
  }
}

/** All token events that a spool holds, and takes them out. */
async function taken(spool: Spool): Promise<EngineEvent[]> {
  const events: EngineEvent[] = []
  const none = AbortSignal.timeout(5000)
  for (let run = await spool.next(none); run !== null; run = await spool.next(none)) {
    events.push(...run.records.map(({ value }) => JSON.parse(String(value)) as EngineEvent))
    await spool.done(run, run.nextOffset)
    if ((await spool.status()).records === 0) break
  }
  return events
}

const total = (events: readonly EngineEvent[]) =>
  events.reduce((sum, event) => sum + event.prompt_tokens + event.completion_tokens, 0)

/** Waits until a look that began after now was stored. */
async function looked({ watch }: Running, engine: FakeEngine): Promise<void> {
  const { looks } = engine
  await until('the engine was looked at twice', () => engine.looks >= looks + 2)
  const madeAt = Date.now()
  await until('the look is stored', () => Date.parse(watch.health()[0]!.last_look ?? '1970') >= madeAt)
}

test('over kills of engine and agent the events are what was made, less what no look saw before a kill', async (t) => {
  const path = join(temporaryDirectory(t), 'spool.sqlite')
  const engine = await new FakeEngine().listen(t)
  let spool = await spoolAt(path)
  let running = start(spool, [engine])
  await looked(running, engine)
  const working = setInterval(() => engine.work(7, 3), 4)
  t.after(() => clearInterval(working))
  for (let round = 0; round < 3; round += 1) {
    await looked(running, engine)
    engine.restart()
    await looked(running, engine)
    // As a kill: what is not stored is gone.
    await running.stop()
    await spool.close()
    engine.work(1000, 100)
    spool = await spoolAt(path)
    running = start(spool, [engine])
  }
  clearInterval(working)
  await looked(running, engine)
  const [health] = running.watch.health()
  await running.stop()
  const events = await taken(spool)
  await spool.close()
  assert.equal(total(events), engine.made.prompt + engine.made.completion - engine.lost)
  assert.equal(new Set(events.map(({ event_id }) => event_id)).size, events.length)
  for (const { host, gpus, engine: name, model, requests_running } of events)
    assert.deepEqual([host, gpus, name, model, requests_running], ['box', [0], 'vllm', 'otter', 1])
  assert.equal(health?.state, 'ok')
  assert.ok(health.unseen_s! < 5)
})

test('the tokens of a time without agent carry that time', async (t) => {
  const path = join(temporaryDirectory(t), 'spool.sqlite')
  const engine = await new FakeEngine().listen(t)
  const spool = await spoolAt(path)
  t.after(() => spool.close())
  const first = start(spool, [engine])
  engine.work(10, 1)
  await looked(first, engine)
  await first.stop()
  const state = JSON.parse(String(await spool.lastState())) as {
    engines: Record<string, { state: { lookMs: number } }>
  }
  const [known] = Object.values(state.engines)
  known!.state.lookMs -= 2 * 3_600_000
  await spool.addTokens([], Buffer.from(JSON.stringify(state)))
  engine.work(5000, 77)
  await taken(spool)
  const second = start(spool, [engine])
  await looked(second, engine)
  await second.stop()
  const events = await taken(spool)
  assert.equal(total(events), 5077)
  assert.equal(events.length, 3)
  const seconds = events.reduce((sum, { interval_s }) => sum + (interval_s ?? 0), 0)
  assert.ok(seconds >= 7200 && seconds < 7210, `${seconds} s`)
})

test('a slow engine, a dead one and one that is no engine delay no other, and each is named', async (t) => {
  const spool = await spoolAt(join(temporaryDirectory(t), 'spool.sqlite'))
  t.after(() => spool.close())
  const [fast, slow, dead, odd] = await Promise.all(Array.from({ length: 4 }, () => new FakeEngine().listen(t)))
  slow!.delayMs = 60_000
  dead!.stop()
  odd!.status = 500
  const running = start(spool, [fast!, slow!, dead!, odd!])
  await looked(running, fast!)
  fast!.work(10, 5)
  await looked(running, fast!)
  await until('the problems are reported', () => running.state.faults.length === 2)
  assert.match(running.state.faults.map(({ message }) => message).join('\n'), /ECONNREFUSED[^\n]*\n.*answered 500/)
  const states = running.watch.health().map(({ state }) => state)
  assert.deepEqual(states, ['ok', 'starting', 'failing', 'failing'])
  assert.equal(slow!.asked, 1, 'one look at a time')
  const startedMs = performance.now()
  await running.stop()
  assert.ok(performance.now() - startedMs < 2000, 'stopping waits for no engine')
  assert.equal(total(await taken(spool)), 15)
})

test('tokens without a GPU wait and come when it is known; a model that is not on the page is asked for', async (t) => {
  const spool = await spoolAt(join(temporaryDirectory(t), 'spool.sqlite'))
  t.after(() => spool.close())
  const engine = await new FakeEngine().listen(t)
  engine.llama = true
  engine.model = 'heron.gguf'
  const without = start(spool, [engine], null)
  await looked(without, engine)
  engine.work(10, 5)
  await until('the problem is reported', () => without.state.faults.length === 1)
  assert.match(without.state.faults[0]!.message, /Its tokens wait: it is not known which GPUs it has; .*--gpus/)
  assert.equal(without.watch.modelOn(0), null)
  await without.stop()
  const running = start(spool, [engine], [1])
  await looked(running, engine)
  assert.deepEqual([running.watch.modelOn(1), running.watch.modelOn(0)], ['heron.gguf', null])
  await running.stop()
  const events = await taken(spool)
  assert.deepEqual(
    events.map(({ model, gpus, prompt_tokens, requests }) => [model, gpus, prompt_tokens, requests]),
    [['heron.gguf', [1], 10, 0]],
  )
})

test('while the spool takes nothing the tokens stay with the engine, and come once it does', async (t) => {
  const real = await spoolAt(join(temporaryDirectory(t), 'spool.sqlite'))
  t.after(() => real.close())
  const engine = await new FakeEngine().listen(t)
  let isFull = false
  let refused = 0
  const spool: Spool = {
    ...real,
    async addTokens(records, state) {
      if (!isFull) return real.addTokens(records, state)
      refused += 1
      throw new Error('Log is full')
    },
  }
  const running = start(spool, [engine])
  await looked(running, engine)
  isFull = true
  engine.work(10, 5)
  await until('it was refused twice', () => refused >= 2)
  await until('it is a problem', () => running.state.faults.some(({ message }) => message.includes('Log is full')))
  engine.work(10, 5)
  isFull = false
  await looked(running, engine)
  await running.stop()
  assert.equal(total(await taken(real)), 30)
})

test('cached tokens that are counted before their prompt are reported with it', async (t) => {
  const spool = await spoolAt(join(temporaryDirectory(t), 'spool.sqlite'))
  t.after(() => spool.close())
  const engine = await new FakeEngine().listen(t)
  engine.cached = 0
  const running = start(spool, [engine])
  await looked(running, engine)
  engine.cached = 5
  engine.work(2, 1)
  await looked(running, engine)
  engine.work(10, 0)
  await looked(running, engine)
  await running.stop()
  const events = await taken(spool)
  assert.deepEqual(
    events.map(({ prompt_tokens, cached_prompt_tokens }) => [prompt_tokens, cached_prompt_tokens]),
    [
      [2, 2],
      [10, 3],
    ],
  )
})
