// Runs one command-line tool to its end and gives its output, for the installer and for one-off Java programs.
// A tool that is not there (or that lacks a shared library) is an error of its own class, because only that one can be
// mended by installing a package. Any other failure carries the end of what the tool said. Worst case: ten minutes.

import { spawn } from 'node:child_process'

const TIMEOUT_MS = 600_000
const TAIL_CHARACTERS = 2_000

export class ToolMissing extends Error {
  override readonly name = 'ToolMissing'
}

export type ToolOptions = { cwd?: string; env?: Record<string, string> }

export async function runTool(command: string, args: readonly string[], options: ToolOptions = {}): Promise<string> {
  const child = spawn(command, args, {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
  })
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk))
  child.stderr.on('data', (chunk: Buffer) => (output += chunk))
  const code = await new Promise<number | string>((resolve, reject) => {
    child.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') reject(new ToolMissing(`Cannot run "${command}": not found`))
      else reject(error)
    })
    child.once('close', (exitCode, signal) => resolve(exitCode ?? signal ?? 'unknown'))
  })
  if (code === 0) return output
  const tail = output.slice(-TAIL_CHARACTERS).trim()
  if (code === 127 || tail.includes('error while loading shared libraries') || tail.includes('No module named pip')) {
    throw new ToolMissing(`Cannot run "${command}": ${tail}`)
  }
  throw new Error(`Cannot run "${command} ${args.join(' ')}": exit ${code}\n${tail}`)
}
