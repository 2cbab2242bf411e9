// One running server process that cannot outlive the process that started it. It is started through a few lines of sh
// that leave a watcher behind and then become the server, so the pid is the server's own. The watcher reads a pipe
// whose other end we hold: "keep" means that the server ended in good order, an end of file without it means that we
// died, by whatever cause (SIGKILL included); then it kills the server and removes its data. Exit, an uncaught error,
// SIGINT and SIGTERM are handled here as well, for they can be handled sooner.

import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

// The watcher is in the server's process group, so that number cannot be given to another process while the watcher
// lives: its kill can hit nothing else. It waits (at most 5 s) for the server's end, then removes the directory.
const WRAPPER = `
server=$$ directory=$1
shift
(
  if read -r word <&3; then exit 0; fi
  kill -KILL "$server" 2>/dev/null
  [ -n "$directory" ] || exit 0
  tries=0
  while kill -0 "$server" 2>/dev/null && [ "$tries" -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
  rm -rf "$directory"
) >/dev/null 2>&1 &
exec "$@" 3<&-
`
const TAIL_CHARACTERS = 3_000

export type ServerProcessOptions = {
  logFile: string
  /** Removed by the watcher when this process dies without having stopped the server; empty: nothing is removed. */
  scratchDirectory: string
  env?: Record<string, string>
}

export class ServerProcess {
  readonly pid: number
  /** Resolves with the exit code or the signal's name. */
  readonly ended: Promise<number | string>
  readonly #logFile: string
  #running = true

  constructor(command: string, args: readonly string[], options: ServerProcessOptions) {
    this.#logFile = options.logFile
    const log = openSync(options.logFile, 'a')
    const child = spawn('sh', ['-c', WRAPPER, 'sh', options.scratchDirectory, command, ...args], {
      detached: true,
      // A pipe of its own and not standard input, which Node closes before we could say "keep".
      stdio: ['ignore', log, log, 'pipe'],
      env: { ...process.env, ...options.env },
    })
    closeSync(log)
    if (child.pid === undefined) throw new Error(`Cannot start "${command}": sh was not started`)
    this.pid = child.pid
    const pipe = child.stdio[3] as Socket
    pipe.on('error', () => {})
    // Neither the process nor its pipe keeps a test process alive that has nothing else to do.
    child.unref()
    pipe.unref()
    live.set(this.pid, options.scratchDirectory)
    watchOwnEnd()
    this.ended = endOf(child).then((end) => {
      this.#running = false
      live.delete(this.pid)
      pipe.end('keep\n')
      return end
    })
  }

  get running(): boolean {
    return this.#running
  }

  signal(name: NodeJS.Signals): void {
    if (this.#running) process.kill(this.pid, name)
  }

  /** SIGSTOP is delivered thread by thread; done means that Linux reports the process as stopped. */
  async pause(): Promise<void> {
    this.signal('SIGSTOP')
    while (this.#running && process.platform === 'linux' && this.#state() !== 'T') await sleep(5)
  }

  /** Ends the server; what has not ended after `graceMs` is killed, and that is an error. */
  async stop(graceMs: number): Promise<void> {
    this.signal('SIGCONT')
    this.signal('SIGTERM')
    if (await this.endsWithin(graceMs)) return
    await this.kill()
    throw new Error(`Cannot stop process ${this.pid}: still running after ${graceMs} ms, killed\n${this.logTail()}`)
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL')
    if (!(await this.endsWithin(10_000))) throw new Error(`Cannot kill process ${this.pid}: still running after 10 s`)
  }

  /** Waits on a timer of its own, because the unreferenced child alone would let this process end meanwhile. */
  async endsWithin(timeoutMs: number): Promise<boolean> {
    const timer = new AbortController()
    const timeout = sleep(timeoutMs, undefined, { signal: timer.signal }).catch(() => undefined)
    await Promise.race([this.ended, timeout])
    timer.abort()
    return !this.#running
  }

  logTail(): string {
    try {
      return readFileSync(this.#logFile, 'utf8').slice(-TAIL_CHARACTERS).trim()
    } catch (error) {
      return `(no log: ${(error as Error).message})`
    }
  }

  #state(): string | undefined {
    try {
      // pid (name) state …: the name may hold spaces and brackets, so the last bracket counts.
      return /.*\) (\w)/s.exec(readFileSync(`/proc/${this.pid}/stat`, 'utf8'))?.[1]
    } catch {
      return undefined
    }
  }
}

/** Process id of each server that runs, and the directory to remove if we have to go without stopping it. */
const live = new Map<number, string>()
const scratch = new Set<string>()
let watching = false

/** A directory that is removed when this process ends, however far it got. */
export function removeAtEnd(directory: string): void {
  scratch.add(directory)
  watchOwnEnd()
}

export function removedAlready(directory: string): void {
  scratch.delete(directory)
}

function watchOwnEnd(): void {
  if (watching) return
  watching = true
  process.on('exit', killAll)
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    const handler = () => {
      killAll()
      process.off(name, handler)
      // Others that listen (the program under test, node:test) end the process themselves; else we die of the signal.
      if (process.listenerCount(name) === 0) process.kill(process.pid, name)
    }
    process.on(name, handler)
  }
}

function killAll(): void {
  for (const pid of live.keys()) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It ended by itself a moment ago.
    }
  }
  for (const directory of [...live.values(), ...scratch]) {
    if (directory === '') continue
    try {
      rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 })
    } catch {
      // The server is not quite dead and still writes; its watcher removes the directory after it.
    }
  }
}

function endOf(child: ChildProcess): Promise<number | string> {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve(code ?? signal ?? 'unknown'))
    child.once('error', () => resolve('not started'))
  })
}
