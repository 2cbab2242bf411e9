// GPU source and common fields of samples according to the settings, for agent, `processor --publish-gpu` and doctor.
// The source is chosen once: a source that measured is never replaced by the seed while the program runs.

import { existsSync } from 'node:fs'
import { parsePageUrl } from '../../agent/exposition/page-url.ts'
import type { GpuChoice, TriedGpuSource } from '../../agent/gpu/choose-gpu-source.ts'
import type { SampleSettings } from '../../agent/gpu-sample.ts'
import { parseModelNames } from '../../agent/model-names.ts'
import { type Command, UsageError } from '../command.ts'
import type { Config, OptionName } from '../options.ts'

/** Settings of every command that reads GPUs. */
export const GPU_OPTIONS: readonly OptionName[] = ['GPU_METRICS_SOURCE', 'NVML_LIBRARY', 'NVIDIA_SMI']

/** Beside them; short, as it is the one that is used by hand. */
export const GPU_FLAGS: Command['flags'] = {
  dcgm: { option: 'DCGM_URL', value: 'URL', help: 'Takes GPU figures from this DCGM exporter' },
}

/** The seed file that the settings name; null when they name none. */
export function seedPathOf(config: Config): string | null {
  const { GPU_SEED: path, GPU_SEED_LOCAL: localPath } = config
  return localPath !== null && existsSync(localPath) ? localPath : path
}

/** What all samples of this host have in common. Throws a UsageError. */
export function sampleSettings(config: Config): Omit<SampleSettings, 'source'> {
  try {
    const models = config.AGENT_MODEL === null ? () => null : parseModelNames(config.AGENT_MODEL)
    return { host: config.HOSTNAME, models, pricePerHourUsd: config.AGENT_PRICE }
  } catch (error) {
    throw new UsageError(`AGENT_MODEL is wrong: ${(error as Error).message}`)
  }
}

/** Tries the allowed sources in order; with `seedPath` null only those that measure. */
export async function findGpuSource(config: Config, seedPath: string | null): Promise<GpuChoice> {
  const { chooseGpuSource } = await import('../../agent/gpu/choose-gpu-source.ts')
  return chooseGpuSource({ want: wantedSource(config), ...locationsOf(config), seedPath })
}

/** Tries all sources: whether each can be used here, and why not. */
export async function tryGpuSources(config: Config): Promise<TriedGpuSource[]> {
  const { probeGpuSources } = await import('../../agent/gpu/choose-gpu-source.ts')
  return probeGpuSources({ ...locationsOf(config), seedPath: seedPathOf(config) })
}

/** An exporter that is named is meant, also where the driver could be called. */
export function wantedSource({ GPU_METRICS_SOURCE: want, DCGM_URL: url }: Config): Config['GPU_METRICS_SOURCE'] {
  return want === 'auto' && url !== null ? 'dcgm' : want
}

function locationsOf({ NVML_LIBRARY: nvmlLibrary, NVIDIA_SMI: nvidiaSmiPath, DCGM_URL, HOSTNAME: hostname }: Config) {
  const dcgmUrl = DCGM_URL === null ? undefined : (parsePageUrl(DCGM_URL) ?? undefined)
  return { nvmlLibrary, nvidiaSmiPath, dcgmUrl, hostname }
}

/** One line with the reason why each source cannot be used and what to do. */
export function noGpuLine(tried: readonly TriedGpuSource[]): string {
  return `No GPU can be read: ${tried.map(({ name, message }) => `${name}: ${message}`).join('; ')}`
}
