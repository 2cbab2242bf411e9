// Real processes for the agent's flows: an agent that is asked by its own /metrics, a server that comes back at the
// same port after a kill, and what a spool holds, read with the bare driver.

import { spawn } from 'node:child_process'
import { tmpdir } from 'node:os'
import { DatabaseSync } from 'node:sqlite'
import type { TestContext } from 'node:test'
import { type Env, Service } from '../harness.ts'

const BIN = new URL('../../../bin/pertoken.js', import.meta.url).pathname

/**
 * Starts `pertoken ...words` as a service at a port that the test chose; `PORT` and `AGENT_PORT` both say it. `wrapper`
 * is a command that becomes the one in its last arguments.
 */
export function startAt(
  t: TestContext,
  port: number,
  words: readonly string[],
  env: Env,
  wrapper: readonly string[] = [],
): Service {
  const own = {
    PATH: process.env['PATH'] ?? '',
    HOME: tmpdir(),
    LOG_LEVEL: 'warn',
    PORT: `${port}`,
    AGENT_PORT: `${port}`,
    // Other tests' engines may listen on this machine.
    AGENT_ENGINE: 'off',
  }
  const [command, ...rest] = [...wrapper, process.execPath, BIN, ...words]
  const child = spawn(command!, rest, {
    env: { ...own, ...env },
    cwd: tmpdir(),
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  t.after(() => void child.kill('SIGKILL'))
  return new Service(port, child)
}

/** The figures of an agent's /metrics, by name without `pertoken_agent_`. */
export async function metricsOf({ port }: Pick<Service, 'port'>): Promise<Record<string, number>> {
  const headers = { connection: 'close' }
  const response = await fetch(`http://127.0.0.1:${port}/metrics`, { headers, signal: AbortSignal.timeout(5000) })
  const lines = (await response.text()).matchAll(/^pertoken_agent_(\w+)(?:\{.*\})? (\S+)$/gm)
  return Object.fromEntries([...lines].map(([, name, value]) => [name!, Number(value)]))
}

/** Ids of all samples that a spool holds, those that were sent and not cleared away included. */
export function idsInSpool(path: string): string[] {
  const database = new DatabaseSync(path, { readOnly: true })
  try {
    const rows = database.prepare('SELECT value FROM records_1 ORDER BY offset').all() as { value: Uint8Array }[]
    return rows.map(({ value }) => (JSON.parse(Buffer.from(value).toString()) as { event_id: string }).event_id)
  } finally {
    database.close()
  }
}

/** All GPU samples that a server has stored, page by page. */
export async function storedSamples({ port }: Service, token = ''): Promise<Record<string, unknown>[]> {
  const stored: Record<string, unknown>[] = []
  const headers = { connection: 'close', ...(token === '' ? {} : { authorization: `Bearer ${token}` }) }
  const url = new URL(`http://127.0.0.1:${port}/api/v1/events?collection=gpu_metrics&limit=1000`)
  for (;;) {
    const response = await fetch(url, { headers, signal: AbortSignal.timeout(5000) })
    const { items, cursor } = (await response.json()) as { items: Record<string, unknown>[]; cursor: string | null }
    stored.push(...items)
    if (cursor === null) return stored
    url.searchParams.set('cursor', cursor)
  }
}
