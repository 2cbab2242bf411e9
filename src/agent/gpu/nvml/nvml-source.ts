// GPU figures by NVML, and what has to be remembered from one reading to the next: that the driver failed as a whole (it is
// left alone for a while), that it hung at one GPU (which is left out for a while, so that the others are read), and that a
// GPU which was here is gone (NVML is initialised anew now and then, to find it again). NVML stays initialised between readings: else the driver would initialise idle GPUs anew every second
// where no persistence daemon keeps them so, and an open GPU clocks down all the same. A process of its own makes the calls,
// as a call may never return, and a process cannot exit while one of its threads hangs (tried with koffi's asynchronous
// calls and with a worker thread). Measured with 8 GPUs at 1 Hz, both processes: 0.4 % of a core; the second one adds 11 MB
// of its own to what it shares with the agent's Node.

import { settlesWithin } from '../../../runtime/waiting.ts'
import { type GpuReading, type GpuSource, GpuSourceError } from '../gpu-source.ts'
import { KnownGpus } from '../known-gpus.ts'
import { startNvmlChild } from './nvml-child.ts'
import { NvmlSession, type PassResult } from './nvml-session.ts'

export interface NvmlOptions {
  /** The driver's library: a name that the loader finds, or a path. */
  library?: string
  /** A reading answers or fails within this. */
  timeoutMs?: number
  /** A driver that failed as a whole is tried again after this. */
  retryMs?: number
  /** A GPU at which the driver hung or crashed is tried again after this. */
  asideMs?: number
  /** While a GPU is missing, NVML is initialised anew this often. */
  reopenMs?: number
  /** Starts the process; for tests of what cannot be provoked: a process that no signal ends. */
  start?: typeof startNvmlChild
}

/** The driver is slow, as when it initialises GPUs: what is under way goes on, and the next `read` waits for the same. */
export class NvmlStillReading extends GpuSourceError {
  override name = 'NvmlStillReading'
}

/** Share of timeoutMs in which the driver may be silent: below 1, so that a reading can still tell of the GPUs before. */
const SILENCE_SHARE = 0.8
/** Initialising one GPU takes seconds. */
const OPENING_FACTOR = 6
const RESTART_REMEDY = 'look for NVRM and Xid in dmesg, and restart the machine'

export class NvmlSource implements GpuSource {
  readonly name = 'nvml'
  problems: readonly string[] = []
  readonly #options: Required<Omit<NvmlOptions, 'start'>>
  readonly #session: NvmlSession
  #reading: Promise<GpuReading[]> | null = null
  #pass: Promise<PassResult> | null = null
  #isClosed = false
  #refusal: { error: GpuSourceError; untilMs: number } | null = null
  /** GPUs at which the driver hung, by index. */
  readonly #aside = new Map<number, { problem: string; untilMs: number }>()
  readonly #known = new KnownGpus()
  /** When NVML was last initialised to find GPUs that are missing; null while none is. */
  #missingSinceMs: number | null = null

  constructor({ start = startNvmlChild, ...options }: NvmlOptions = {}) {
    const defaults = { library: 'libnvidia-ml.so.1', timeoutMs: 5_000, retryMs: 30_000 }
    this.#options = { ...defaults, asideMs: 60_000, reopenMs: 60_000, ...options }
    const { timeoutMs } = this.#options
    this.#session = new NvmlSession({
      silenceMs: timeoutMs * SILENCE_SHARE,
      openingSilenceMs: timeoutMs * OPENING_FACTOR,
      start,
    })
  }

  read(): Promise<GpuReading[]> {
    this.#reading ??= this.#readAndExplain().finally(() => {
      this.#reading = null
    })
    return this.#reading
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await this.#session.close()
  }

  async #readAndExplain(): Promise<GpuReading[]> {
    try {
      const { readings, problems } = await this.#readOnce()
      if (readings.length === 0 && problems.length > 0) {
        throw new GpuSourceError(`Cannot read any GPU by NVML: ${problems.join('; ')}`)
      }
      this.problems = problems
      return readings
    } catch (error) {
      this.problems = [(error as Error).message]
      throw error
    }
  }

  async #readOnce(): Promise<{ readings: GpuReading[]; problems: string[] }> {
    if (this.#isClosed) throw new GpuSourceError('Cannot read GPUs by NVML: the source is closed')
    const nowMs = performance.now()
    if (this.#refusal !== null && nowMs < this.#refusal.untilMs) throw this.#refusal.error
    this.#pass ??= this.#startPass(nowMs)
    if (!(await settlesWithin(this.#options.timeoutMs, this.#pass))) throw this.#slowness()
    const result = await this.#pass
    this.#pass = null
    return this.#take(result)
  }

  #startPass(nowMs: number): Promise<PassResult> {
    const { library, reopenMs } = this.#options
    const isLooking = this.#missingSinceMs !== null && nowMs - this.#missingSinceMs >= reopenMs
    if (isLooking) this.#missingSinceMs = nowMs
    const aside = [...this.#aside]
    return this.#session.pass({
      library,
      reopen: isLooking,
      leaveOut: aside.filter(([, { untilMs }]) => nowMs < untilMs).map(([index]) => index),
      last: aside.map(([index]) => index),
    })
  }

  /** What is to be told of a pass, and kept of it. */
  #take({ order, parts, cut, failed }: PassResult): { readings: GpuReading[]; problems: string[] } {
    const nowMs = performance.now()
    for (const { gpuIndex } of parts) this.#aside.delete(gpuIndex)
    const unread = order.slice(parts.length)
    if (cut !== null && unread.length > 0) this.#setAside(unread[0]!, cut, nowMs)
    if (failed !== null || (cut !== null && order.length === 0)) {
      const error = new GpuSourceError(failed ?? `Cannot read GPUs by NVML: ${cut}; ${RESTART_REMEDY}`)
      this.#refusal = { error, untilMs: nowMs + this.#options.retryMs }
      throw error
    }
    const read = parts.flatMap(({ reading }) => reading ?? [])
    this.#known.add(read)
    const problems = [
      ...parts.flatMap((part) => part.problems),
      ...[...this.#aside.values()].map(({ problem }) => problem),
      ...(unread.length > 1
        ? [`GPU ${unread.slice(1).join(', ')}: not read this time, as the driver failed before`]
        : []),
    ]
    const untold = parts.flatMap(({ gpuIndex, reading }) => (reading === null || reading.uuid === null ? gpuIndex : []))
    const gone = this.#known.missingFrom(read, new Set([...this.#aside.keys(), ...unread, ...untold]))
    const isMissing = gone.length > 0 || parts.some(({ reading }) => reading === null)
    this.#missingSinceMs = isMissing ? (this.#missingSinceMs ?? nowMs) : null
    return { readings: read.sort((a, b) => a.gpuIndex - b.gpuIndex), problems: [...problems, ...gone] }
  }

  #setAside(gpuIndex: number, why: string, nowMs: number): void {
    const { asideMs } = this.#options
    const problem = `GPU ${gpuIndex}: ${why}; left out and tried again every ${asideMs / 1000} s; ${RESTART_REMEDY}`
    this.#aside.set(gpuIndex, { problem, untilMs: nowMs + asideMs })
  }

  #slowness(): GpuSourceError {
    if (this.#session.isStuck) {
      return new GpuSourceError(
        `Cannot read GPUs by NVML: the driver holds on to a hanging call, and nothing is asked before it returns; ${RESTART_REMEDY}`,
      )
    }
    return new NvmlStillReading(
      `Cannot read GPUs by NVML yet: the driver has taken over ${this.#options.timeoutMs / 1000} s; where no persistence daemon runs it initialises each GPU first (start nvidia-persistenced)`,
    )
  }
}
