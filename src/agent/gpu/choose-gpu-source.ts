// Chooses the source of GPU figures of this host, and reports why the others cannot be used. NVML first: it starts no
// process per reading and has energy; nvidia-smi where NVML cannot be called; a DCGM exporter where neither can, as in
// a pod without GPUs; the seed only where one is configured, as its figures are invented. The choice is made once: a
// source that fails later reports it and stays, and is never replaced by the seed.

import { type GpuReading, type GpuSource, GpuSourceError, type GpuSourceName } from './gpu-source.ts'
import { NvidiaSmiSource } from './nvidia-smi-source.ts'
import { NvmlSource, NvmlStillReading } from './nvml/nvml-source.ts'

export interface GpuChoiceOptions {
  want: 'auto' | GpuSourceName
  /** NVML's library; the driver's when absent. */
  nvmlLibrary?: string | undefined
  /** The nvidia-smi command; that on the PATH when absent. */
  nvidiaSmiPath?: string | undefined
  /** The DCGM exporter's page; that of port 9400 of this host when absent. */
  dcgmUrl?: URL | undefined
  /** A JSON array of GPUs; null: no seed. */
  seedPath: string | null
  /** This host, for a seed or a DCGM page with several. */
  hostname?: string | undefined
  /** A reading succeeds or fails within this; 5 s when absent. */
  timeoutMs?: number | undefined
}

/** A source that was tried: what it has, or why it cannot be used and what to do. */
export interface TriedGpuSource {
  name: GpuSourceName
  ok: boolean
  message: string
}

export interface GpuChoice {
  /** Null: none can be used. The caller closes it. */
  source: GpuSource | null
  /** In the order tried; the last one is the source's where there is one. */
  tried: TriedGpuSource[]
}

const ALL: readonly GpuSourceName[] = ['nvml', 'nvidia-smi', 'dcgm', 'seed']

/** The wanted source, or with `auto` the first that returns a reading. */
export async function chooseGpuSource(options: GpuChoiceOptions): Promise<GpuChoice> {
  const tried: TriedGpuSource[] = []
  for (const name of options.want === 'auto' ? ALL : [options.want]) {
    const { source, ...result } = await trySource(name, options)
    tried.push(result)
    if (source !== null) return { source, tried }
  }
  return { source: null, tried }
}

/** Whether each of the sources can be used here, or why not. */
export async function probeGpuSources(options: Omit<GpuChoiceOptions, 'want'>): Promise<TriedGpuSource[]> {
  const tried: TriedGpuSource[] = []
  for (const name of ALL) {
    const { source, ...result } = await trySource(name, options)
    await source?.close()
    tried.push(result)
  }
  return tried
}

async function trySource(
  name: GpuSourceName,
  options: Omit<GpuChoiceOptions, 'want'>,
): Promise<TriedGpuSource & { source: GpuSource | null }> {
  let source: GpuSource | null = null
  try {
    source = await openSource(name, options)
    return { name, ok: true, message: describe(await firstReading(source), source), source }
  } catch (error) {
    if (!(error instanceof GpuSourceError)) throw error
    await source?.close()
    return { name, ok: false, message: error.message, source: null }
  }
}

async function openSource(name: GpuSourceName, options: Omit<GpuChoiceOptions, 'want'>): Promise<GpuSource> {
  const { nvmlLibrary, nvidiaSmiPath, dcgmUrl, seedPath, hostname, timeoutMs } = options
  const limit = timeoutMs === undefined ? {} : { timeoutMs }
  if (name === 'nvml')
    return new NvmlSource({ ...limit, ...(nvmlLibrary === undefined ? {} : { library: nvmlLibrary }) })
  if (name === 'nvidia-smi') {
    return new NvidiaSmiSource({ ...limit, ...(nvidiaSmiPath === undefined ? {} : { path: nvidiaSmiPath }) })
  }
  // Loaded on demand, as the seed is, whose schema library takes 24 MB: an agent with GPUs need not have them.
  if (name === 'dcgm') {
    const { DcgmSource } = await import('./dcgm/dcgm-source.ts')
    return new DcgmSource({ ...limit, hostname, ...(dcgmUrl === undefined ? {} : { url: dcgmUrl }) })
  }
  if (seedPath === null) {
    throw new GpuSourceError(
      'No seed file is named: set GPU_SEED to a JSON array of GPUs where made-up figures are wanted',
    )
  }
  const { openSeedSource } = await import('./seed-source.ts')
  return openSeedSource(seedPath, hostname === undefined ? {} : { hostname })
}

/** Waits for a driver that has to initialise its GPUs first; the source has a limit for one that hangs. */
async function firstReading(source: GpuSource): Promise<GpuReading[]> {
  for (;;) {
    try {
      return await source.read()
    } catch (error) {
      if (!(error instanceof NvmlStillReading)) throw error
    }
  }
}

/** For example `8 GPUs (8 × NVIDIA H100 80GB HBM3)`. */
function describe(readings: readonly GpuReading[], { faults, notices = [] }: GpuSource): string {
  const counts = new Map<string, number>()
  for (const { name } of readings) counts.set(name ?? 'without name', (counts.get(name ?? 'without name') ?? 0) + 1)
  const names = [...counts].map(([name, count]) => (count === 1 ? name : `${count} × ${name}`)).join(', ')
  const count = `${readings.length} GPU${readings.length === 1 ? '' : 's'} (${names})`
  return [count, ...faults, ...notices.map((notice) => `note: ${notice}`)].join('; ')
}
