// What the flows have in common: pertoken's real processes (`pertoken processor`, `produce`, …) with an environment of
// their own, on free ports, in temporary directories, ended with the test. Conditions are waited for, never times.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Health } from '../../src/processor/ingest/health.ts'
import { freePort } from '../servers/managed-server.ts'

export type Env = Record<string, string>

/**
 * Environment of a child: nothing of the test's own that pertoken would read, and no `.env`: it runs in `directory`.
 */
function childEnv(env: Env): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? tmpdir(), LOG_LEVEL: 'warn', ...env }
}

const BIN = new URL('../../bin/pertoken.js', import.meta.url).pathname

/** A directory that goes with the test. */
export function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-flow-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/**
 * Waits until `check` answers something other than undefined or false; fails after `seconds` with the last error, and
 * with what `state` says then.
 */
export async function until<T>(
  what: string,
  check: () => Promise<T | undefined | false>,
  seconds = 60,
  state = () => '',
): Promise<T> {
  const deadlineMs = performance.now() + seconds * 1000
  let last: unknown = 'nothing'
  for (;;) {
    try {
      const answer = await check()
      if (answer !== undefined && answer !== false) return answer
    } catch (error) {
      last = error
    }
    if (performance.now() > deadlineMs) {
      throw new Error(`Waited ${seconds} s in vain until ${what}: ${String(last)}\n${state()}`)
    }
    await sleep(25)
  }
}

/** Runs a command of pertoken to its end. */
export function pertoken(
  words: readonly string[],
  env: Env,
  cwd = tmpdir(),
): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [BIN, ...words], {
    env: childEnv(env),
    cwd,
    encoding: 'utf8',
    timeout: 120_000,
  })
  return { status, stdout, stderr }
}

/** A running `pertoken processor` or `up`. */
export class Service {
  readonly port: number
  readonly child: ChildProcess
  /** What it wrote to standard error. */
  output = ''
  readonly #ended: Promise<number | null>

  constructor(port: number, child: ChildProcess) {
    this.port = port
    this.child = child
    child.stderr?.on('data', (data) => {
      this.output += String(data)
    })
    this.#ended = new Promise((resolve) =>
      child.once('exit', (code, signal) => resolve(code ?? (signal === null ? null : -1))),
    )
  }

  /** On a connection of its own: one that was kept may be closed by the server just as it is used again. */
  get(path: string): Promise<Response> {
    const headers = { connection: 'close' }
    return fetch(`http://127.0.0.1:${this.port}${path}`, { headers, signal: AbortSignal.timeout(5000) })
  }

  async json<T>(path: string): Promise<T> {
    return (await (await this.get(path)).json()) as T
  }

  health(): Promise<Health> {
    return this.json<Health>('/health')
  }

  /** Resolves once /health says ok. */
  async ready(): Promise<this> {
    const isReady = async () => {
      if (this.child.exitCode !== null) throw new Error(`It ended with ${this.child.exitCode}`)
      return (await this.health()).status === 'ok'
    }
    await until('the processor is ready', isReady, 60, () => this.output)
    return this
  }

  /** Waits until so many records have an outcome. */
  async settled(records: number, seconds = 60): Promise<Health> {
    return until(
      `${records} records have an outcome`,
      async () => {
        const health = await this.health()
        const { stored, duplicate, rejected } = health.outcomes
        return stored + duplicate + rejected >= records && health.open_steps === 0 ? health : undefined
      },
      seconds,
    )
  }

  /** Sends a signal and answers the exit code (-1 when a signal ended it). */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal)
    const hasEnded = async () => this.child.exitCode !== null || this.child.signalCode !== null
    await until(`it has ended after ${signal}`, hasEnded, 60, () => this.output)
    return this.ended()
  }

  ended(): Promise<number | null> {
    return this.#ended
  }
}

/** Starts `pertoken ...words` as a service; it is killed at the end of the test if it still runs. */
export async function startService(
  t: TestContext,
  words: readonly string[],
  env: Env,
  cwd = tmpdir(),
): Promise<Service> {
  return startScript(t, [BIN, ...words], env, cwd)
}

/** Starts any script of ours that serves HTTP at $PORT. */
export async function startScript(
  t: TestContext,
  words: readonly string[],
  env: Env,
  cwd = tmpdir(),
): Promise<Service> {
  const port = await freePort()
  const child = spawn(process.execPath, words, {
    env: childEnv({ ...env, PORT: String(port) }),
    cwd,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  t.after(() => {
    child.kill('SIGKILL')
  })
  return new Service(port, child)
}
