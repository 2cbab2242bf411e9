// GPU figures by NVML, and the state that outlives a reading: that the driver failed as a whole (it is not called for a
// while), that it hung at one GPU (which is left out for a while, so that the others are read), and that a GPU has
// disappeared (NVML is re-initialised now and then, to find it again). NVML stays initialised between readings:
// otherwise the driver would initialise idle GPUs every second where no persistence daemon keeps them so, and an open
// GPU clocks down all the same. A process of its own makes the calls, as a call may never return, and a process cannot
// exit while one of its threads hangs (tried with koffi's asynchronous calls and with a worker thread). Measured with 8
// GPUs at 1 Hz, both processes: 0.4 % of a core; the second one adds 11 MB of its own to what it shares with the
// agent's Node.

import { settlesWithin } from '../../../runtime/waiting.ts'
import { type GpuReading, type GpuSource, GpuSourceError } from '../gpu-source.ts'
import { KnownGpus } from '../known-gpus.ts'
import { NvmlSession, type PassResult, startNvmlChild } from './nvml-session.ts'

export interface NvmlOptions {
  /** The driver's library: a name that the loader finds, or a path. */
  library?: string
  /** A reading succeeds or fails within this. */
  timeoutMs?: number
  /** A driver that failed as a whole is tried again after this. */
  driverRetryMs?: number
  /** A GPU at which the driver hung or crashed is tried again after this. */
  gpuRetryMs?: number
  /** How often the processes on each GPU are listed. */
  holdersMs?: number
  /** While a GPU is missing, NVML is re-initialised this often. */
  reopenMs?: number
  /** Starts the process; for tests of what cannot be provoked: a process that no signal ends. */
  start?: typeof startNvmlChild
}

/** The driver is slow, as when it initialises GPUs: the pass under way continues, and the next `read` waits for it. */
export class NvmlStillReading extends GpuSourceError {
  override name = 'NvmlStillReading'
}

/**
 * Share of timeoutMs in which the driver may be silent: below 1, so that a reading can still return the GPUs before.
 */
const SILENCE_SHARE = 0.8
/** Initialising one GPU takes seconds. */
const OPENING_FACTOR = 6
const RESTART_REMEDY = 'look for NVRM and Xid in dmesg, and restart the machine'

export class NvmlSource implements GpuSource {
  readonly name = 'nvml'
  faults: readonly string[] = []
  readonly #options: Required<Omit<NvmlOptions, 'start'>>
  readonly #session: NvmlSession
  #reading: Promise<GpuReading[]> | null = null
  #pass: Promise<PassResult> | null = null
  #isClosed = false
  #driverFault: { error: GpuSourceError; untilMs: number } | null = null
  /** GPUs at which the driver hung, by index. */
  readonly #leftOut = new Map<number, { fault: string; untilMs: number }>()
  readonly #known = new KnownGpus()
  /** When NVML was last initialised to find GPUs that are missing; null while none is. */
  #missingSinceMs: number | null = null
  #holders: Map<number, readonly number[]> | null = null
  #holdersMs = Number.NEGATIVE_INFINITY

  constructor({ start = startNvmlChild, ...options }: NvmlOptions = {}) {
    const defaults = { library: 'libnvidia-ml.so.1', timeoutMs: 5_000, driverRetryMs: 30_000 }
    this.#options = { ...defaults, gpuRetryMs: 60_000, reopenMs: 60_000, holdersMs: 5_000, ...options }
    const { timeoutMs } = this.#options
    this.#session = new NvmlSession({
      silenceMs: timeoutMs * SILENCE_SHARE,
      openingSilenceMs: timeoutMs * OPENING_FACTOR,
      start,
    })
  }

  read(): Promise<GpuReading[]> {
    this.#reading ??= this.#readAndReport().finally(() => {
      this.#reading = null
    })
    return this.#reading
  }

  get holders(): ReadonlyMap<number, readonly number[]> | null {
    return this.#holders
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await this.#session.close()
  }

  async #readAndReport(): Promise<GpuReading[]> {
    try {
      const { readings, faults } = await this.#readOnce()
      if (readings.length === 0 && faults.length > 0) {
        throw new GpuSourceError(`Cannot read any GPU by NVML: ${faults.join('; ')}`)
      }
      this.faults = faults
      return readings
    } catch (error) {
      this.faults = [(error as Error).message]
      throw error
    }
  }

  async #readOnce(): Promise<{ readings: GpuReading[]; faults: string[] }> {
    if (this.#isClosed) throw new GpuSourceError('Cannot read GPUs by NVML: the source is closed')
    const nowMs = performance.now()
    if (this.#driverFault !== null && nowMs < this.#driverFault.untilMs) throw this.#driverFault.error
    this.#pass ??= this.#startPass(nowMs)
    if (!(await settlesWithin(this.#options.timeoutMs, this.#pass))) throw this.#timeoutError()
    const result = await this.#pass
    this.#pass = null
    return this.#evaluate(result)
  }

  #startPass(nowMs: number): Promise<PassResult> {
    const { library, reopenMs, holdersMs } = this.#options
    const withProcesses = nowMs - this.#holdersMs >= holdersMs
    if (withProcesses) this.#holdersMs = nowMs
    const reopen = this.#missingSinceMs !== null && nowMs - this.#missingSinceMs >= reopenMs
    if (reopen) this.#missingSinceMs = nowMs
    const leftOut = [...this.#leftOut]
    return this.#session.pass({
      library,
      reopen,
      leaveOut: leftOut.filter(([, { untilMs }]) => nowMs < untilMs).map(([index]) => index),
      last: leftOut.map(([index]) => index),
      withProcesses,
    })
  }

  /** The readings and faults of a pass; remembers what the next pass depends on. */
  #evaluate({ order, gpus, aborted, failed }: PassResult): { readings: GpuReading[]; faults: string[] } {
    const nowMs = performance.now()
    for (const { gpuIndex } of gpus) this.#leftOut.delete(gpuIndex)
    const unread = order.slice(gpus.length)
    if (aborted !== null && unread.length > 0) this.#leaveOut(unread[0]!, aborted, nowMs)
    if (failed !== null || (aborted !== null && order.length === 0)) {
      const error = new GpuSourceError(failed ?? `Cannot read GPUs by NVML: ${aborted}; ${RESTART_REMEDY}`)
      this.#driverFault = { error, untilMs: nowMs + this.#options.driverRetryMs }
      throw error
    }
    const listed = gpus.flatMap(({ gpuIndex, pids }) => (pids === undefined ? [] : [[gpuIndex, pids] as const]))
    if (listed.length > 0) {
      const isPartial = gpus.some(({ reading, pids }) => reading !== null && pids === undefined)
      this.#holders = isPartial ? null : new Map(listed)
    }
    const readings = gpus.flatMap(({ reading }) => reading ?? [])
    this.#known.add(readings)
    const faults = [
      ...gpus.flatMap((gpu) => gpu.faults),
      ...[...this.#leftOut.values()].map(({ fault }) => fault),
      ...(unread.length > 1
        ? [`GPU ${unread.slice(1).join(', ')}: not read this time, as the driver failed before`]
        : []),
    ]
    const unidentified = gpus.filter(({ reading }) => reading === null || reading.uuid === null)
    const explained = [...this.#leftOut.keys(), ...unread, ...unidentified.map(({ gpuIndex }) => gpuIndex)]
    const missing = this.#known.missingFrom(readings, new Set(explained))
    const isMissing = missing.length > 0 || gpus.some(({ reading }) => reading === null)
    this.#missingSinceMs = isMissing ? (this.#missingSinceMs ?? nowMs) : null
    return { readings: readings.sort((a, b) => a.gpuIndex - b.gpuIndex), faults: [...faults, ...missing] }
  }

  #leaveOut(gpuIndex: number, why: string, nowMs: number): void {
    const { gpuRetryMs } = this.#options
    const fault = `GPU ${gpuIndex}: ${why}; left out and tried again every ${gpuRetryMs / 1000} s; ${RESTART_REMEDY}`
    this.#leftOut.set(gpuIndex, { fault, untilMs: nowMs + gpuRetryMs })
  }

  #timeoutError(): GpuSourceError {
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
