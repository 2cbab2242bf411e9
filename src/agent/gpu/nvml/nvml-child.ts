// Starts nvml-process.ts and talks with it: a request down, words up. The process buys what threads cannot give: a
// hanging or crashing driver takes nobody with it. It does not keep the agent alive, and never outlives it.

import { type ChildProcess, fork } from 'node:child_process'
import type { Socket } from 'node:net'
import type { GpuPart } from './nvml-reading.ts'

export interface Request {
  library: string
  /** Shuts NVML down first, so that it looks for GPUs anew. */
  reopen: boolean
  /** GPUs that are not touched. */
  leaveOut: number[]
  /** GPUs that are read after the others. */
  last: number[]
}

/** What the process says: which GPUs it will read, in this order; one that was read; the end; or why nothing can be read. */
export type Word = { reading: number[] } | { gpu: GpuPart } | { done: true } | { failed: string }

export interface NvmlChild {
  ask(request: Request): void
  /** Resolves with how it ended, once it has. */
  readonly gone: Promise<string>
  /** Asks it to shut NVML down and end. */
  leave(): void
  kill(): void
}

const STDERR_CHARS = 500

/** The sources run as they are in the repository, compiled in the package. */
const IS_SOURCE = import.meta.url.endsWith('.ts')
/**
 * A small nursery: the process makes little garbage, and need not grow to collect it. No compiler: 13 MB less, at no cost
 * for a few calls a second (measured); Node needs it to run TypeScript.
 */
const FLAGS = ['--max-semi-space-size=1', ...(IS_SOURCE ? [] : ['--jitless'])]

export function startNvmlChild(hear: (word: Word) => void): NvmlChild {
  const file = new URL(`./nvml-process.${IS_SOURCE ? 'ts' : 'js'}`, import.meta.url)
  const child = fork(file, [], { execArgv: FLAGS, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
  const kill = () => void child.kill('SIGKILL')
  process.once('exit', kill)
  const gone = ending(child).finally(() => process.off('exit', kill))
  child.on('message', (word: Word) => hear(word))
  child.unref()
  child.channel?.unref()
  ;(child.stderr as Socket | null)?.unref()
  return {
    gone,
    // A send that fails (the process has just ended) is told by `gone`.
    ask: (request) => void child.send(request, () => {}),
    leave: () => child.connected && child.disconnect(),
    kill,
  }
}

/** How it ended: `ended by SIGSEGV`, `ended with 1: …` and the end of what it wrote. */
function ending(child: ChildProcess): Promise<string> {
  let written = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    written = (written + text).slice(-STDERR_CHARS)
  })
  return new Promise((resolve) => {
    child.on('error', (error) => {
      if (child.pid === undefined) resolve(`cannot be started: ${error.message}`)
    })
    child.once('exit', (code, signal) => {
      const how = signal === null ? `ended with ${code}` : `ended by ${signal}`
      resolve(written.trim() === '' ? how : `${how}: ${written.trim().replaceAll(/\s+/g, ' ')}`)
    })
  })
}
