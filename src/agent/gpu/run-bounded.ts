// Runs a command that may hang, flood or be killed: no shell, no input, output bounded, ended by force when its time is
// up, together with what it started. One that no signal ends (it hangs inside the driver) is left behind; `gone` tells
// when it has ended after all, so that nobody starts a second one beside it.

import { spawn } from 'node:child_process'

export interface RunLimits {
  timeoutMs: number
  /** The command is ended once it has written more than this. */
  maxBytes: number
  /** Ends the command early. */
  signal: AbortSignal
}

export interface RunResult {
  /** `exit`: by itself, with `code` · `signal`: killed by somebody, with `signal` · else by us, or not even started. */
  end: 'exit' | 'signal' | 'timeout' | 'flood' | 'aborted' | 'not-started'
  code: number | null
  signal: string | null
  stdout: string
  stderr: string
  /** Why it was not started, as ENOENT; null when it was. */
  errorCode: string | null
  /** Resolves when the process is there no more. */
  gone: Promise<void>
}

/** In a group of its own, so that what it starts ends with it. */
function start(path: string, args: readonly string[]) {
  return spawn(path, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true })
}

/** Never rejects, and resolves within `timeoutMs`. */
export function runBounded(path: string, args: readonly string[], limits: RunLimits): Promise<RunResult> {
  const { timeoutMs, maxBytes, signal } = limits
  const ended = Promise.withResolvers<RunResult>()
  const gone = Promise.withResolvers<void>()
  const output = { stdout: [] as Buffer[], stderr: [] as Buffer[], bytes: 0 }
  let child: ReturnType<typeof start>
  try {
    child = start(path, args)
  } catch (error) {
    // A path that no file can have, as an empty one.
    gone.resolve()
    const nothing = { code: null, signal: null, stdout: '', stderr: '', gone: gone.promise }
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
    ended.resolve({ end, code: null, signal: null, errorCode: null, stdout, stderr, gone: gone.promise, ...how })
  }
  const kill = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
    } catch {
      // It has ended in this moment.
    }
  }
  const cutOff = (end: RunResult['end']): void => {
    kill()
    child.unref()
    finish(end)
  }
  const abort = (): void => cutOff('aborted')
  const timer = setTimeout(cutOff, timeoutMs, 'timeout')
  signal.addEventListener('abort', abort, { once: true })
  process.once('exit', kill)

  for (const name of ['stdout', 'stderr'] as const) {
    child[name].on('data', (chunk: Buffer) => {
      output.bytes += chunk.length
      if (output.bytes > maxBytes) cutOff('flood')
      else output[name].push(chunk)
    })
  }
  child.once('error', (error: NodeJS.ErrnoException) => {
    gone.resolve()
    finish('not-started', { errorCode: error.code ?? error.message })
  })
  child.once('exit', () => gone.resolve())
  // `close` comes once all output has been read; what the command started may hold it open, within the time limit.
  child.once('close', (code, killedBy) => finish(killedBy === null ? 'exit' : 'signal', { code, signal: killedBy }))
  return ended.promise
}
