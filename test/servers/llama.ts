// A real inference engine for tests: llama.cpp's server with a model of 135 million parameters, without a GPU. It
// starts in two seconds, takes 250 MB, and makes some 60 tokens a second on one thread: keep prompts short.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { untilAnswered } from './managed-server.ts'
import { llamaDirectory, verifyOnce } from './server-cache.ts'
import { LLAMA_RELEASE } from './versions.ts'

const SCRIPT = new URL('./llama.py', import.meta.url).pathname
const START_MS = 60_000

export type LlamaServer = {
  readonly port: number
  kill(signal: NodeJS.Signals): Promise<void>
}

/** Rejects with NotInstalled unless it lies in the cache as it was installed. */
export async function requireLlama(): Promise<void> {
  await verifyOnce(llamaDirectory(), LLAMA_RELEASE.sha256)
}

/** Resolves once it answers; the caller kills it, and the end of this process does. */
export async function startLlama(port: number): Promise<LlamaServer> {
  await requireLlama()
  const child: ChildProcess = spawn('python3', [SCRIPT, llamaDirectory(), String(port)], { stdio: 'ignore' })
  child.unref()
  process.once('exit', () => child.kill('SIGKILL'))
  const ended = once(child, 'exit')
  await untilAnswered(async () => {
    if (child.exitCode !== null) throw new Error(`llama.cpp ended with ${child.exitCode}`)
    const response = await fetch(`http://127.0.0.1:${port}/health`, { headers: { connection: 'close' } })
    if (!response.ok) throw new Error(`llama.cpp answers ${response.status}`)
  }, START_MS)
  return {
    port,
    async kill(signal) {
      child.kill(signal)
      await ended
    },
  }
}
