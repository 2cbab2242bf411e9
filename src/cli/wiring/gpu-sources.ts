// What the settings say about GPUs, for agent, `processor --publish-gpu` and doctor: the source, and what all samples have
// in common. The source is chosen once: one that measured never turns into the seed while the program runs.

import { existsSync } from 'node:fs'
import type { GpuChoice, TriedGpuSource } from '../../agent/gpu/choose-gpu-source.ts'
import type { SampleSettings } from '../../agent/gpu-sample.ts'
import { parseModelNames } from '../../agent/model-names.ts'
import { UsageError } from '../command.ts'
import type { Config, OptionName } from '../options.ts'

/** Settings of whatever reads GPUs. */
export const GPU_OPTIONS: readonly OptionName[] = ['GPU_METRICS_SOURCE', 'NVML_LIBRARY', 'NVIDIA_SMI']

/** The seed file that the settings name; null when they name none. */
export function seedPathOf(config: Config): string | null {
  const { GPU_SEED: path, GPU_SEED_LOCAL: localPath } = config
  return localPath !== null && existsSync(localPath) ? localPath : path
}

/** What all samples of this host have in common. */
export function sampleSettings(config: Config): Omit<SampleSettings, 'source'> {
  try {
    const models = config.AGENT_MODEL === null ? () => null : parseModelNames(config.AGENT_MODEL)
    return { host: config.HOSTNAME, models, pricePerHourUsd: config.AGENT_PRICE }
  } catch (error) {
    throw new UsageError(`AGENT_MODEL is wrong: ${(error as Error).message}`)
  }
}

/** Tries the sources that may be used, in order; `seedPath` null: never made-up figures. */
export async function findGpuSource(config: Config, seedPath: string | null): Promise<GpuChoice> {
  const { chooseGpuSource } = await import('../../agent/gpu/choose-gpu-source.ts')
  return chooseGpuSource({ want: config.GPU_METRICS_SOURCE, ...placesOf(config), seedPath })
}

/** All sources, whether each can be used here and why not. */
export async function tryGpuSources(config: Config): Promise<TriedGpuSource[]> {
  const { probeGpuSources } = await import('../../agent/gpu/choose-gpu-source.ts')
  return probeGpuSources({ ...placesOf(config), seedPath: seedPathOf(config) })
}

function placesOf({ NVML_LIBRARY: nvmlLibrary, NVIDIA_SMI: nvidiaSmiPath, HOSTNAME: hostname }: Config) {
  return { nvmlLibrary, nvidiaSmiPath, hostname }
}

/** Why no source can be used, in one line; each reason says what to do. */
export function noGpuLine(tried: readonly TriedGpuSource[]): string {
  return `No GPU can be read: ${tried.map(({ name, message }) => `${name}: ${message}`).join('; ')}`
}
