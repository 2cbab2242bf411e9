// A server on a fixed port with a data directory, which tests start, stop, kill, pause and start again.
// What differs between Kafka, ZooKeeper and mongod is the command line and the question "are you ready?"; that is
// handed in. Readiness is always an answer over the network, polled, never a fixed sleep. A start that fails shows the
// end of the server's log. Worst case: a start or a stop takes 60 s and then throws, with the process killed.

import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { removeAtEnd, removedAlready, ServerProcess } from './server-process.ts'

const START_TIMEOUT_MS = 60_000
const STOP_TIMEOUT_MS = 60_000
const POLL_MS = 50
const ATTEMPTS = 4

export type ServerControls = {
  /** Of the process that runs now (or ran last). */
  readonly pid: number
  /** Starts again after stop or kill: same data, same port. Resolves when the server answers. */
  start(): Promise<void>
  stop(): Promise<void>
  /** SIGKILL: nothing is flushed, nobody is told. */
  kill(): Promise<void>
  /** SIGSTOP: the port still takes connections, nothing answers. */
  pause(): Promise<void>
  resume(): void
  /** Stops, and deletes the data unless the directory was given by the caller. */
  close(): Promise<void>
}

export type ManagedServerOptions = {
  name: string
  dataDirectory: DataDirectory
  command: string
  args: readonly string[]
  port: number
  /** Asks once; rejects while the server is not ready. */
  ask: () => Promise<void>
}

export class ManagedServer implements ServerControls {
  readonly #options: ManagedServerOptions
  #process: ServerProcess | undefined

  constructor(options: ManagedServerOptions) {
    this.#options = options
  }

  get pid(): number {
    if (!this.#process) throw new Error(`Cannot tell the process id of ${this.#options.name}: never started`)
    return this.#process.pid
  }

  async start(): Promise<void> {
    const { name, dataDirectory, command, args, port } = this.#options
    if (this.#process?.running) throw new Error(`Cannot start ${name}: it runs as process ${this.#process.pid}`)
    await bindOnce(port).catch((error: NodeJS.ErrnoException) => {
      // Otherwise whoever has the port would answer in this server's place, until it has found out by itself.
      throw new Error(
        `Cannot start ${name}: port ${port} is ${error.code === 'EADDRINUSE' ? 'already in use' : error.code}`,
      )
    })
    const server = new ServerProcess(command, args, {
      logFile: join(dataDirectory.path, `${name}.log`),
      scratchDirectory: dataDirectory.own ? dataDirectory.path : '',
    })
    this.#process = server
    const ask = async () => {
      if (!server.running) return
      await connectOnce(port)
      await this.#options.ask()
    }
    const answered = await untilAnswered(ask, START_TIMEOUT_MS).then(
      () => true,
      () => false,
    )
    if (answered && server.running) return
    const state = server.running ? `no answer after ${START_TIMEOUT_MS} ms` : `ended with ${await server.ended}`
    await server.kill()
    throw new Error(`Cannot start ${name}: ${state}\n${server.logTail()}`)
  }

  async stop(): Promise<void> {
    await this.#process?.stop(STOP_TIMEOUT_MS)
  }

  async kill(): Promise<void> {
    await this.#process?.kill()
  }

  async pause(): Promise<void> {
    await this.#process?.pause()
  }

  resume(): void {
    this.#process?.signal('SIGCONT')
  }

  /** Without ceremony when the data goes as well, in good order when the data stays. */
  async end(): Promise<void> {
    if (this.#options.dataDirectory.own) await this.kill()
    else await this.stop()
  }

  async close(): Promise<void> {
    await this.end()
    await this.#options.dataDirectory.remove()
  }
}

/** Asks until it is answered; rejects with the last refusal after `timeoutMs`. */
export async function untilAnswered(ask: () => Promise<void>, timeoutMs: number): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (performance.now() > deadlineMs) throw error
    }
    await sleep(POLL_MS)
  }
}

/** Clients take their time over a refused connection (mongodb's half a second), so that is found out first. */
function connectOnce(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1' }, () => {
      socket.destroy()
      resolve()
    })
    socket.once('error', reject)
  })
}

export type DataDirectory = { readonly path: string; readonly own: boolean; remove(): Promise<void> }

/** The directory that the caller gave (kept), or a new one of our own (removed at the end). */
export async function makeDataDirectory(prefix: string, given: string | undefined): Promise<DataDirectory> {
  if (given !== undefined) {
    await mkdir(given, { recursive: true })
    return { path: given, own: false, remove: async () => {} }
  }
  const path = await mkdtemp(join(tmpdir(), `pertoken-${prefix}-`))
  removeAtEnd(path)
  const remove = async () => {
    if (existsSync(path)) await rm(path, { recursive: true, force: true, maxRetries: 5 })
    removedAlready(path)
  }
  return { path, own: true, remove }
}

/** A loopback port that was free a moment ago. Somebody may take it before the server does: see `onFreePorts`. */
export function freePort(): Promise<number> {
  return bindOnce(0)
}

async function bindOnce(port: number): Promise<number> {
  const server = createServer().listen(port, '127.0.0.1')
  await once(server, 'listening')
  const bound = (server.address() as AddressInfo).port
  server.close()
  await once(server, 'close')
  return bound
}

/** Runs `start`, and again with other free ports when the server could not bind the ones it was given. */
export async function onFreePorts<T>(start: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start()
    } catch (error) {
      const taken = /already in use|BindException|Failed to bind|SocketServer failed/i.test(String(error))
      if (!taken || attempt === ATTEMPTS) throw error
    }
  }
}
