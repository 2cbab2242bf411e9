// Readings through the process that calls NVML (nvml-process.ts), one at a time, aborted when the driver falls silent.
// A hanging call cannot be cancelled, only its process be killed; and no other process is started before that one has
// exited, so that there is never a second call into a driver that hangs. The process also isolates the agent from a
// driver that crashes; it does not keep the agent alive, and never outlives it. A pass never rejects: a failure is part
// of its result.

import { type ChildProcess, fork } from 'node:child_process'
import type { Socket } from 'node:net'
import { settlesWithin } from '../../../runtime/waiting.ts'
import type { NvmlMessage, ReadRequest } from './nvml-process.ts'
import type { GpuResult } from './nvml-reading.ts'

export interface PassResult {
  /** GPUs that were to be read, in this order; empty when it failed before. */
  order: readonly number[]
  gpus: readonly GpuResult[]
  /** Why it ended early: the driver hung, or the process crashed. */
  aborted: string | null
  /** Why no GPU can be read. */
  failed: string | null
}

export interface NvmlChild {
  send(request: ReadRequest): void
  /** Resolves with how it ended, once it has exited. */
  readonly exited: Promise<string>
  /** Makes it shut NVML down and exit. */
  disconnect(): void
  kill(): void
}

export interface NvmlSessionOptions {
  /** The driver may be silent for this long. */
  silenceMs: number
  /** The same in a pass that opens NVML: without a persistence daemon the driver then initialises the GPUs. */
  openingSilenceMs: number
  start: typeof startNvmlChild
}

/** How long the process has to exit when asked, and again when killed, when the session is closed. */
const EXIT_MS = 500
const STDERR_CHARS = 500
/** The process runs TypeScript in the repository, JavaScript in the package. */
const IS_SOURCE = import.meta.url.endsWith('.ts')
/**
 * A small nursery: the process makes little garbage, and need not grow to collect it. No compiler: 13 MB less, at no
 * cost for a few calls a second (measured); Node needs it to run TypeScript.
 */
const FLAGS = ['--max-semi-space-size=1', ...(IS_SOURCE ? [] : ['--jitless'])]

interface Pass {
  order: readonly number[]
  gpus: GpuResult[]
  end(result: Partial<PassResult>): void
}

export class NvmlSession {
  readonly #options: NvmlSessionOptions
  #child: NvmlChild | null = null
  /** The process that is to exit and has not yet. */
  #leaving: NvmlChild | null = null
  #pass: Pass | null = null
  #isOpening = true
  #isClosed = false
  #silence: NodeJS.Timeout | undefined

  constructor(options: NvmlSessionOptions) {
    this.#options = options
  }

  /** True while a killed process still exists: the kernel ends none that is in an uninterruptible call. */
  get isStuck(): boolean {
    return this.#leaving !== null
  }

  /** Reads the GPUs once; to be called again only after it has resolved. */
  async pass(request: ReadRequest): Promise<PassResult> {
    await this.#leaving?.exited
    if (this.#isClosed) return { order: [], gpus: [], aborted: null, failed: 'Cannot read GPUs by NVML: it is closed' }
    this.#child ??= this.#start()
    const ended = Promise.withResolvers<PassResult>()
    const pass: Pass = {
      order: [],
      gpus: [],
      end: (result) => {
        clearTimeout(this.#silence)
        this.#pass = null
        ended.resolve({ order: pass.order, gpus: pass.gpus, aborted: null, failed: null, ...result })
      },
    }
    this.#pass = pass
    if (request.reopen) this.#isOpening = true
    this.#child.send(request)
    this.#watch(this.#child)
    return ended.promise
  }

  /** Ends the process; a pass under way ends with what it has. Takes a second at most. */
  async close(): Promise<void> {
    this.#isClosed = true
    const child = this.#child ?? this.#leaving
    if (child === null) return
    if (this.#pass === null) child.disconnect()
    else this.#abort(child, 'the source was closed')
    if (await settlesWithin(EXIT_MS, child.exited)) return
    child.kill()
    await settlesWithin(EXIT_MS, child.exited)
  }

  #start(): NvmlChild {
    const child = this.#options.start((message) => this.#child === child && this.#receive(message))
    this.#isOpening = true
    void child.exited.then((how) => {
      if (this.#leaving === child) this.#leaving = null
      if (this.#child !== child) return
      this.#child = null
      this.#pass?.end({ aborted: `the process that calls NVML ${how}` })
    })
    return child
  }

  #receive(message: NvmlMessage): void {
    const pass = this.#pass
    if (pass === null) return
    this.#watch(this.#child!)
    if ('order' in message) {
      // Once more after a re-initialisation.
      pass.order = message.order
      pass.gpus = []
    } else if ('gpu' in message) {
      pass.gpus.push(message.gpu)
    } else if ('failed' in message) {
      this.#leave()
      pass.end({ failed: message.failed })
    } else {
      this.#isOpening = false
      pass.end({})
    }
  }

  #watch(child: NvmlChild): void {
    const ms = this.#isOpening ? this.#options.openingSilenceMs : this.#options.silenceMs
    clearTimeout(this.#silence)
    this.#silence = setTimeout(() => this.#abort(child, `the driver has not answered for ${ms / 1000} s`), ms)
    // A caller waits no longer than a reading may take; the process need not stay for this timer.
    this.#silence.unref()
  }

  #abort(child: NvmlChild, why: string): void {
    child.kill()
    this.#leave()
    this.#pass?.end({ aborted: why })
  }

  #leave(): void {
    this.#leaving = this.#child
    this.#child = null
  }
}

/** Starts the process that calls NVML. */
export function startNvmlChild(onMessage: (message: NvmlMessage) => void): NvmlChild {
  const file = new URL(`./nvml-process.${IS_SOURCE ? 'ts' : 'js'}`, import.meta.url)
  const child = fork(file, [], { execArgv: FLAGS, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
  const kill = () => void child.kill('SIGKILL')
  process.once('exit', kill)
  const exited = exitOf(child).finally(() => process.off('exit', kill))
  child.on('message', onMessage)
  child.unref()
  child.channel?.unref()
  ;(child.stderr as Socket | null)?.unref()
  return {
    exited,
    // A send that fails (the process has just exited) is reported by `exited`.
    send: (request) => void child.send(request, () => {}),
    disconnect: () => child.connected && child.disconnect(),
    kill,
  }
}

/** How it ended: `ended by SIGSEGV`, or `ended with 1: …` and the end of its stderr. */
function exitOf(child: ChildProcess): Promise<string> {
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
