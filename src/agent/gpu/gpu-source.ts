// Where GPU figures come from on a GPU host. Four sources: nvml/ (the driver's library), nvidia-smi-source.ts (its
// command), dcgm/ (the page of a DCGM exporter) and seed-source.ts (invented figures, only where a seed file is
// configured). choose-gpu-source.ts picks one.

export type GpuSourceName = 'nvml' | 'nvidia-smi' | 'dcgm' | 'seed'

/** One GPU at one instant. Null: unknown to the source; never reported as 0. */
export interface GpuReading {
  /** Index of the GPU on this host, in the source's numbering. */
  gpuIndex: number
  uuid: string | null
  name: string | null
  /** Share of time that a kernel ran, 0 to 1; null on GPUs that are split by MIG. */
  utilization: number | null
  /** MiB. */
  memUsedMb: number | null
  memTotalMb: number | null
  /** Watts. */
  powerW: number | null
  /** Energy counter since the driver was loaded, joules. */
  energyJ: number | null
  /** MIG profiles of the instances, comma-separated; null when the GPU is not split. */
  migProfile: string | null
  /** USD per hour where the source itself knows it: the seed does. */
  pricePerHourUsd: number | null
  /** What only a DCGM exporter knows; absent in other sources' readings. */
  dcgm?: DcgmFigures
}

/** Shares of time, 0 to 1, of the whole GPU; and for whom it works, where the exporter knows Kubernetes' pods. */
export interface DcgmFigures {
  /** Share of time, averaged over all SMs, that an SM had work: how full the GPU was, where utilization is whether. */
  smActive: number | null
  /** Share of time that the memory was read or written. */
  dramActive: number | null
  /** Share of time that the compute engine was active: utilization's meaning, also on GPUs that are split by MIG. */
  grEngineActive: number | null
  /** Of the pod; with several pods on the GPU those of all, comma-separated, in the order of `pod`. */
  namespace: string | null
  pod: string | null
}

/** A source cannot be used at all, or has no reading now: why, and what to do. */
export class GpuSourceError extends Error {
  override name = 'GpuSourceError'
}

export interface GpuSource {
  readonly name: GpuSourceName
  /**
   * Reads every GPU once, by index. A GPU or a figure that fails is left out or null, and reported in `faults`. Throws
   * a GpuSourceError when no GPU could be read; may always be called again, and a call during another one returns the
   * same result. Bounded in time, a hanging driver included.
   */
  read(): Promise<GpuReading[]>
  /** What is wrong as of the last read, one line each, for /health and the log; empty when all is well. */
  readonly faults: readonly string[]
  /** What is odd as of the last read and costs no figure, for the log and /health, which stays ok. */
  readonly notices?: readonly string[]
  /** Processes that compute on each GPU as of a few seconds ago, by its index; null and absent: not known. */
  readonly holders?: ReadonlyMap<number, readonly number[]> | null
  /** Whether another program measures: a reading may then repeat the one before, and not be worth a sample. */
  readonly repeats?: boolean
  close(): Promise<void>
}
