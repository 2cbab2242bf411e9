// GPU figures by the nvidia-smi command, for hosts where NVML cannot be called. Each reading is a run of the command:
// that costs far more than NVML, and without a persistence daemon the driver initialises the GPUs in each run. A run
// has a time limit, and one that no signal ends prevents the next. An older nvidia-smi that rejects a field is queried
// for the few that every version knows. Its output is parsed in nvidia-smi-csv.ts, its words and exit codes are weighed
// in nvidia-smi-remedies.ts.

import { settlesWithin } from '../../runtime/waiting.ts'
import { type GpuReading, type GpuSource, GpuSourceError } from './gpu-source.ts'
import { KnownGpus } from './known-gpus.ts'
import { parseMigProfiles, parseNvidiaSmi, quote, type SmiReadings } from './nvidia-smi-csv.ts'
import { remedyFor, weighNoise } from './nvidia-smi-remedies.ts'
import { type RunResult, runBounded } from './run-bounded.ts'

export interface NvidiaSmiOptions {
  /** The command: a name on the PATH, or a path. */
  path?: string
  /** A reading succeeds or fails within this. */
  timeoutMs?: number
  /** How long the profiles of MIG instances, which change rarely, are cached. */
  migMs?: number
}

const MINIMAL_FIELDS = ['index', 'uuid', 'name', 'utilization.gpu', 'memory.used', 'memory.total', 'power.draw']
const FIELDS = [...MINIMAL_FIELDS, 'mig.mode.current']
/** A thousand GPUs are 150 KB. */
const MAX_BYTES = 1024 * 1024

/** Profiles by GPU, or why they are unknown. */
interface MigList {
  profiles: ReadonlyMap<number, string>
  faults: string[]
  untilMs: number
}

export class NvidiaSmiSource implements GpuSource {
  readonly name = 'nvidia-smi'
  faults: readonly string[] = []
  notices: readonly string[] = []
  readonly #options: Required<NvidiaSmiOptions>
  readonly #known = new KnownGpus()
  readonly #closing = new AbortController()
  #reading: Promise<GpuReading[]> | null = null
  #fields: readonly string[] = FIELDS
  #mig: MigList | null = null
  /** Resolves when the process of the last run has exited. */
  #exited: Promise<void> = Promise.resolve()

  constructor(options: NvidiaSmiOptions = {}) {
    this.#options = { path: 'nvidia-smi', timeoutMs: 5_000, migMs: 60_000, ...options }
  }

  read(): Promise<GpuReading[]> {
    this.#reading ??= this.#readAndReport().finally(() => {
      this.#reading = null
    })
    return this.#reading
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#reading?.catch(() => {})
  }

  async #readAndReport(): Promise<GpuReading[]> {
    try {
      return await this.#readOnce()
    } catch (error) {
      this.faults = [(error as Error).message]
      this.notices = []
      throw error
    }
  }

  async #readOnce(): Promise<GpuReading[]> {
    const endMs = performance.now() + this.#options.timeoutMs
    const { readings, faults, notices, splitGpus } = await this.#query(endMs)
    const mig = splitGpus.length === 0 ? null : await this.#migProfiles(endMs)
    for (const reading of readings) {
      if (splitGpus.includes(reading.gpuIndex)) reading.migProfile = mig?.profiles.get(reading.gpuIndex) ?? null
    }
    this.#known.add(readings)
    this.faults = [...faults, ...(mig?.faults ?? []), ...this.#known.missingFrom(readings)]
    this.notices = notices
    return readings.sort((a, b) => a.gpuIndex - b.gpuIndex)
  }

  async #query(endMs: number): Promise<SmiReadings & { notices: string[] }> {
    const result = await this.#run([`--query-gpu=${this.#fields.join(',')}`, '--format=csv'], endMs)
    if (this.#fields === FIELDS && /is not a valid field to query/i.test(result.stdout + result.stderr)) {
      this.#fields = MINIMAL_FIELDS
      return this.#query(endMs)
    }
    const read = result.end === 'exit' ? readingsIn(result.stdout) : null
    if (read === null || read.readings.length === 0) {
      const reasons = [this.#explain(result), ...(read?.faults ?? [])]
      throw new GpuSourceError(`Cannot read GPUs by nvidia-smi: ${reasons.join('; ')}`)
    }
    // The readings are valid all the same.
    const { faults, notices } = weighNoise(read.strays, result.stderr, result.code)
    return { ...read, faults: [...read.faults, ...faults], notices }
  }

  async #migProfiles(endMs: number): Promise<MigList> {
    if (this.#mig === null || performance.now() >= this.#mig.untilMs) {
      const result = await this.#run(['-L'], endMs)
      const profiles = parseMigProfiles(result.end === 'exit' ? result.stdout : '')
      // An advisory exit code, as for a corrupted infoROM, comes with a whole list.
      const isGood = result.end === 'exit' && (result.code === 0 || profiles.size > 0)
      this.#mig = {
        profiles,
        faults: isGood ? [] : [`MIG profiles are not known: ${this.#explain(result)}`],
        untilMs: performance.now() + this.#options.migMs,
      }
    }
    return this.#mig
  }

  async #run(args: readonly string[], endMs: number): Promise<RunResult> {
    const { path } = this.#options
    if (this.#closing.signal.aborted) throw new GpuSourceError('Cannot run nvidia-smi: the source is closed')
    if (!(await settlesWithin(timeLeftMs(endMs), this.#exited))) {
      throw new GpuSourceError(
        'Cannot run nvidia-smi again: the last run hangs inside the driver and cannot be ended; look for NVRM and Xid in dmesg, and restart the machine',
      )
    }
    const limits = { timeoutMs: timeLeftMs(endMs), maxBytes: MAX_BYTES, signal: this.#closing.signal }
    const result = await runBounded(path, args, limits)
    this.#exited = result.exited
    return result
  }

  /** Why a run failed, and what to do. */
  #explain({ end, code, signal, errorCode, stdout, stderr }: RunResult): string {
    const { path, timeoutMs } = this.#options
    const complaint = stderr.trim()
    const output = complaint === '' ? stdout.trim() : complaint
    const quoted = output === '' ? '' : `: ${quote(output)}`
    const fault = code !== 0 ? `exited with ${code}` : complaint === '' ? 'gave no GPU' : 'complained'
    const explained: Record<RunResult['end'], string> = {
      exit: `nvidia-smi ${fault}${quoted}; ${remedyFor(stdout + stderr, code)}`,
      signal: `nvidia-smi was killed by ${signal}${quoted}; see whether memory ran out (dmesg)`,
      timeout: `nvidia-smi has not answered within ${timeoutMs / 1000} s and was ended${quoted}; the driver may hang: look for NVRM and Xid in dmesg`,
      flood: `nvidia-smi wrote over ${MAX_BYTES} bytes and was ended, expected one row for each GPU; see what "${path}" is`,
      aborted: 'nvidia-smi was ended: the source is closed',
      'not-started':
        errorCode === 'ENOENT'
          ? `"${path}" was not found; install the NVIDIA driver, or say where nvidia-smi is with NVIDIA_SMI`
          : `"${path}" cannot be run (${errorCode}); see that it is nvidia-smi and that this user may run it`,
    }
    return explained[end]
  }
}

/** Null when the text is not a table. */
function readingsIn(text: string): SmiReadings | null {
  try {
    return parseNvidiaSmi(text)
  } catch (error) {
    if (error instanceof GpuSourceError) return null
    throw error
  }
}

function timeLeftMs(endMs: number): number {
  return Math.max(1, endMs - performance.now())
}
