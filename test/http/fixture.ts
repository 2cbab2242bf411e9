// A server for tests: real embedded log and store in a folder of its own, and a processor whose state the test sets.
// What the log is given is kept as well, so that a test sees exactly which bytes were appended.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { FastifyInstance } from 'fastify'
import type { LiveModel, LiveSlot } from '../../src/domain/live/live-figures.ts'
import { liveTotals } from '../../src/domain/live/live-totals.ts'
import type { HttpDependencies } from '../../src/http/dependencies.ts'
import { buildServer } from '../../src/http/server.ts'
import type { NewRecord } from '../../src/log/event-log.ts'
import { SqliteLog } from '../../src/log/sqlite/sqlite-log.ts'
import type { Health } from '../../src/processor/ingest/health.ts'
import { Outcomes } from '../../src/processor/ingest/outcomes.ts'
import { SqliteStore } from '../../src/store/sqlite/sqlite-store.ts'

/** The clock of these tests. */
export const NOW_MS = Date.UTC(2026, 5, 1, 12)
export const TOPICS = { metric: 'gpu.metrics.v1', token: 'token.usage.v1' }

export interface Fixture {
  app: FastifyInstance
  store: SqliteStore
  log: SqliteLog
  /** Set these to change what the processor says. */
  state: { health: Health; live: { stale: boolean; models: LiveModel[]; slots: LiveSlot[] } }
  /** What the server appended, in order. */
  appended: { topic: string; record: NewRecord }[]
  /** What the server logged, at any level. */
  logged: { level: string; fields: object; message: string }[]
}

/** Opens a server; `change` replaces parts. All is closed and removed when the test ends. */
export async function openServer(
  t: TestContext,
  change: (parts: HttpDependencies) => Partial<HttpDependencies> = () => ({}),
) {
  const folder = await mkdtemp(join(tmpdir(), 'pertoken-http-'))
  const log = new SqliteLog({ path: join(folder, 'log.db') })
  const store = new SqliteStore({ path: join(folder, 'store.db') })
  await store.prepare()
  await log.ensureTopics([TOPICS.metric, TOPICS.token].map((name) => ({ name, partitions: 1 })))
  const appended: Fixture['appended'] = []
  const logged: Fixture['logged'] = []
  const state: Fixture['state'] = { health: healthyHealth(), live: { stale: false, models: [], slots: [] } }
  const write = (level: string) => (fields: object, message: string) => void logged.push({ level, fields, message })
  const parts: HttpDependencies = {
    processor: {
      outcomes: new Outcomes(),
      health: () => state.health,
      live: () => ({
        as_of: new Date(NOW_MS).toISOString(),
        window_s: 30,
        totals: liveTotals(state.live.slots, 30),
        ...state.live,
      }),
    },
    store,
    log: recording(log, appended),
    topics: TOPICS,
    version: '1.2.3',
    logger: { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') },
    now: () => NOW_MS,
  }
  const app = await buildServer({ ...parts, ...change(parts) })
  t.after(async () => {
    await app.close()
    await log.close()
    await store.close()
    await rm(folder, { recursive: true, force: true })
  })
  return { app, store, log, state, appended, logged } satisfies Fixture
}

/** A view on an object in which some members are replaced; the rest stays with its owner. */
export function replacing<T extends object>(target: T, members: Partial<T>): T {
  return new Proxy(target, {
    get(owner, name) {
      const value = Reflect.get(Object.hasOwn(members, name) ? members : owner, name)
      return typeof value === 'function' ? value.bind(owner) : value
    },
  })
}

function recording(log: SqliteLog, appended: Fixture['appended']): SqliteLog {
  return replacing(log, {
    append: async (topic, records) => {
      await log.append(topic, records)
      for (const record of records) appended.push({ topic, record })
    },
  })
}

export function healthyHealth(): Health {
  const outcomes = { read: 0, stored: 0, duplicate: 0, late: 0, rejected: 0, rejected_by_reason: {} }
  return { status: 'ok', problems: [], lag: 0, last_event: null, outcomes, open_steps: 0, slots: 0 }
}

export function liveModel(model: string, tokensPerSecond: number, usdPerMillion: number | null): LiveModel {
  return {
    model,
    tokens_per_second: tokensPerSecond,
    prompt_tokens_per_second: tokensPerSecond * 0.75,
    completion_tokens_per_second: tokensPerSecond * 0.25,
    cost_per_token: usdPerMillion === null ? null : usdPerMillion / 1e6,
    usd_per_million_tokens: usdPerMillion,
    too_few_tokens: false,
  }
}

export function liveSlot(host: string | null, gpuIndex: number, change: Partial<LiveSlot> = {}): LiveSlot {
  return {
    host,
    gpu_index: gpuIndex,
    gpu_uuid: null,
    name: 'NVIDIA L4',
    utilization: 0.5,
    price_per_hour_usd: 0.8,
    price_basis: 'default',
    tokens_per_second: 10,
    cost_per_token: 2e-5,
    too_few_tokens: false,
    last_sample: new Date(NOW_MS).toISOString(),
    monitored: true,
    ...change,
  }
}
