// Runs a command that may hang, write too much or be killed: no shell, no input, bounded output, killed with its
// children when its time is up. A process that no signal ends (it hangs inside the driver) is abandoned; `exited`
// resolves when it has exited after all, so that no second one is started beside it.

import { spawn } from 'node:child_process'

export interface RunLimits {
  timeoutMs: number
  /** The command is killed once it has written more than this. */
  maxBytes: number
  /** Kills the command. */
  signal: AbortSignal
}

export interface RunResult {
  /**
   * `exit`: on its own, with `code` · `signal`: killed by another process, with `signal` · else by us, or not started.
   */
  end: 'exit' | 'signal' | 'timeout' | 'flood' | 'aborted' | 'not-started'
  code: number | null
  signal: string | null
  stdout: string
  stderr: string
  /** Why it was not started, for example ENOENT; null when it was. */
  errorCode: string | null
  /** Resolves when the process has exited. */
  exited: Promise<void>
}

/** In a process group of its own, so that its children are killed with it. */
function start(path: string, args: readonly string[]) {
  return spawn(path, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true })
}

/** Never rejects, and resolves within `timeoutMs`. */
export function runBounded(path: string, args: readonly string[], limits: RunLimits): Promise<RunResult> {
  const { timeoutMs, maxBytes, signal } = limits
  const ended = Promise.withResolvers<RunResult>()
  const exited = Promise.withResolvers<void>()
  const output = { stdout: [] as Buffer[], stderr: [] as Buffer[], bytes: 0 }
  let child: ReturnType<typeof start>
  try {
    child = start(path, args)
  } catch (error) {
    // A path that no file can have, for example an empty one.
    exited.resolve()
    const nothing = { code: null, signal: null, stdout: '', stderr: '', exited: exited.promise }
    return Promise.resolve({ ...nothing, end: 'not-started', errorCode: (error as Error).message })
  }

  const finish = (end: RunResult['end'], how: Partial<RunResult> = {}): void => {
    clearTimeout(timer)
    signal.removeEventListener('abort', abort)
    process.off('exit', kill)
    child.stdout.destroy()
    child.stderr.destroy()
    const stdout = Buffer.concat(output.stdout).toString('utf8')
    const stderr = Buffer.concat(output.stderr).toString('utf8')
    ended.resolve({ end, code: null, signal: null, errorCode: null, stdout, stderr, exited: exited.promise, ...how })
  }
  const kill = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
    } catch {
      // It has just exited.
    }
  }
  const abandon = (end: RunResult['end']): void => {
    kill()
    child.unref()
    finish(end)
  }
  const abort = (): void => abandon('aborted')
  const timer = setTimeout(abandon, timeoutMs, 'timeout')
  signal.addEventListener('abort', abort, { once: true })
  process.once('exit', kill)

  for (const name of ['stdout', 'stderr'] as const) {
    child[name].on('data', (chunk: Buffer) => {
      output.bytes += chunk.length
      if (output.bytes > maxBytes) abandon('flood')
      else output[name].push(chunk)
    })
  }
  child.once('error', (error: NodeJS.ErrnoException) => {
    exited.resolve()
    finish('not-started', { errorCode: error.code ?? error.message })
  })
  child.once('exit', () => exited.resolve())
  // `close` follows when all output has been read; children of the command may delay it, within the time limit.
  child.once('close', (code, killedBy) => finish(killedBy === null ? 'exit' : 'signal', { code, signal: killedBy }))
  return ended.promise
}
