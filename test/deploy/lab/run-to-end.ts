// Runs a command to its end, whatever that is, and gives what it wrote: for tests that look at exit codes and messages.

import { spawn } from 'node:child_process'

export type Ran = { status: number | null; stdout: string; stderr: string }

export type RunOptions = { input?: string | Buffer; timeoutMs?: number; env?: NodeJS.ProcessEnv; cwd?: string }

/** `status` is null for a command that a signal ended; after `timeoutMs` (60 s) that is SIGKILL. */
export async function runToEnd(command: string, words: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const { input, timeoutMs = 60_000, env, cwd } = options
  const child = spawn(command, words, {
    // Without input: no socket either, on which bash would think that it was called over a network.
    stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
    ...(env === undefined ? {} : { env }),
    ...(cwd === undefined ? {} : { cwd }),
  })
  const ran: Ran = { status: null, stdout: '', stderr: '' }
  child.stdout!.on('data', (data) => (ran.stdout += String(data)))
  child.stderr!.on('data', (data) => (ran.stderr += String(data)))
  // It may end before it has read all.
  child.stdin?.on('error', () => {})
  child.stdin?.end(input)
  ran.status = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  return ran
}
