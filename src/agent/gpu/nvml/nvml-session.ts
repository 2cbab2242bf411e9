// Readings through the process that calls NVML, one at a time, cut off when the driver falls silent. A hanging call cannot
// be taken back, only its process be killed; and no other process is started before that one has gone, so that there is
// never a second call into a driver that hangs. A pass never rejects: what went wrong is part of its result.

import { settlesWithin } from '../../../runtime/waiting.ts'
import type { NvmlChild, Request, startNvmlChild, Word } from './nvml-child.ts'
import type { GpuPart } from './nvml-reading.ts'

export interface PassResult {
  /** GPUs that were to be read, in this order; empty when it did not get as far. */
  order: readonly number[]
  parts: readonly GpuPart[]
  /** Why it ended early: the driver hung, or the process crashed. */
  cut: string | null
  /** Why no GPU can be read. */
  failed: string | null
}

export interface NvmlSessionOptions {
  /** The driver may be silent for this long. */
  silenceMs: number
  /** The same in a pass that opens NVML: the driver initialises the GPUs then, where it does not keep them so. */
  openingSilenceMs: number
  start: typeof startNvmlChild
}

/** How long a process has to end by itself, and then by force, when the session is closed. */
const LEAVE_MS = 500

interface Pass {
  order: readonly number[]
  parts: GpuPart[]
  end(result: Partial<PassResult>): void
}

export class NvmlSession {
  readonly #options: NvmlSessionOptions
  #child: NvmlChild | null = null
  /** The process that was told to end and has not yet. */
  #leaving: NvmlChild | null = null
  #pass: Pass | null = null
  #isOpening = true
  #isClosed = false
  #silence: NodeJS.Timeout | undefined

  constructor(options: NvmlSessionOptions) {
    this.#options = options
  }

  /** True while a killed process is still there: the kernel ends none that is in an uninterruptible call. */
  get isStuck(): boolean {
    return this.#leaving !== null
  }

  /** Call it again only when it has resolved. */
  async pass(request: Request): Promise<PassResult> {
    await this.#leaving?.gone
    if (this.#isClosed) return { order: [], parts: [], cut: null, failed: 'Cannot read GPUs by NVML: it is closed' }
    this.#child ??= this.#start()
    const ended = Promise.withResolvers<PassResult>()
    const pass: Pass = {
      order: [],
      parts: [],
      end: (result) => {
        clearTimeout(this.#silence)
        this.#pass = null
        ended.resolve({ order: pass.order, parts: pass.parts, cut: null, failed: null, ...result })
      },
    }
    this.#pass = pass
    if (request.reopen) this.#isOpening = true
    this.#child.ask(request)
    this.#watch(this.#child)
    return ended.promise
  }

  /** Ends the process; a pass under way ends with what it has. Takes a second at most. */
  async close(): Promise<void> {
    this.#isClosed = true
    const child = this.#child ?? this.#leaving
    if (child === null) return
    if (this.#pass === null) child.leave()
    else this.#cutOff(child, 'the source was closed')
    if (await settlesWithin(LEAVE_MS, child.gone)) return
    child.kill()
    await settlesWithin(LEAVE_MS, child.gone)
  }

  #start(): NvmlChild {
    const child = this.#options.start((word) => this.#child === child && this.#hear(word))
    this.#isOpening = true
    void child.gone.then((how) => {
      if (this.#leaving === child) this.#leaving = null
      if (this.#child !== child) return
      this.#child = null
      this.#pass?.end({ cut: `the process that calls NVML ${how}` })
    })
    return child
  }

  #hear(word: Word): void {
    const pass = this.#pass
    if (pass === null) return
    this.#watch(this.#child!)
    if ('reading' in word) {
      // After a re-initialisation it begins anew.
      pass.order = word.reading
      pass.parts = []
    } else if ('gpu' in word) {
      pass.parts.push(word.gpu)
    } else if ('failed' in word) {
      this.#leave()
      pass.end({ failed: word.failed })
    } else {
      this.#isOpening = false
      pass.end({})
    }
  }

  #watch(child: NvmlChild): void {
    const ms = this.#isOpening ? this.#options.openingSilenceMs : this.#options.silenceMs
    clearTimeout(this.#silence)
    this.#silence = setTimeout(() => this.#cutOff(child, `the driver has not answered for ${ms / 1000} s`), ms)
    // Who waits for the pass waits no longer than a reading may take; a process that is done need not stay for this.
    this.#silence.unref()
  }

  #cutOff(child: NvmlChild, why: string): void {
    child.kill()
    this.#leave()
    this.#pass?.end({ cut: why })
  }

  #leave(): void {
    this.#leaving = this.#child
    this.#child = null
  }
}
