// Invented GPU figures from a seed file, for a trial on a machine without a GPU: each reading varies by a few per cent
// around the file's figures (see src/producers/seed.ts); a figure that the file lacks stays unknown.

import { readFileSync } from 'node:fs'
import type { GpuSample } from '../../domain/events/event.ts'
import { pairs, parseSeed, SeedError, type SeedGpu } from '../../producers/seed.ts'
import { type GpuReading, type GpuSource, GpuSourceError } from './gpu-source.ts'

/**
 * Reads the file once. Of a file with several hosts only the GPUs of `hostname` and those without a host are used.
 * @throws GpuSourceError when the file cannot be read or used, or has no GPU of this host.
 */
export function openSeedSource(path: string, { hostname }: { hostname?: string } = {}): GpuSource {
  const gpus = gpusOfHost(readSeed(path), hostname, path)
  const stream = pairs(gpus, {
    startMs: Date.now(),
    seedNumber: Date.now() % 2 ** 31,
    hostname: hostname ?? 'localhost',
  })
  return {
    name: 'seed',
    faults: [],
    read: async () => gpus.map(() => readingOf(stream.next().value.gpu)).sort((a, b) => a.gpuIndex - b.gpuIndex),
    close: async () => {},
  }
}

function readSeed(path: string): SeedGpu[] {
  try {
    return parseSeed(readFileSync(path, 'utf8'), path)
  } catch (error) {
    const { message } = error as Error
    throw new GpuSourceError(error instanceof SeedError ? message : `Cannot read seed file "${path}": ${message}`)
  }
}

function gpusOfHost(all: readonly SeedGpu[], hostname: string | undefined, path: string): SeedGpu[] {
  const hosts = [...new Set(all.flatMap(({ host }) => host ?? []))]
  const own = hosts.length <= 1 ? [...all] : all.filter(({ host }) => host === undefined || host === hostname)
  if (own.length === 0) {
    throw new GpuSourceError(
      `Cannot use seed "${path}": it has GPUs of ${hosts.slice(0, 5).join(', ')}, and none of this host, ${hostname ?? 'which has no name'}; set HOSTNAME to one of them`,
    )
  }
  const twice = own.find(({ gpu_index }, i) => own.findIndex((gpu) => gpu.gpu_index === gpu_index) !== i)
  if (twice === undefined) return own
  throw new GpuSourceError(
    `Cannot use seed "${path}": GPU ${twice.gpu_index} is there twice for one host, expected different values of gpu_index`,
  )
}

function readingOf(sample: GpuSample): GpuReading {
  return {
    gpuIndex: sample.gpu_index,
    uuid: sample.uuid ?? null,
    name: sample.name ?? null,
    utilization: sample.utilization ?? null,
    memUsedMb: sample.mem_used_mb ?? null,
    memTotalMb: sample.mem_total_mb ?? null,
    powerW: sample.power_w ?? null,
    energyJ: null,
    migProfile: null,
    pricePerHourUsd: sample.price_per_hour_usd ?? null,
  }
}
