// The agent's watch of engines according to the settings: none, those that are named, or those that are found.

import type { AgentState } from '../../agent/agent-state.ts'
import { engineOf } from '../../agent/engine/engine-page.ts'
import { parsePageUrl } from '../../agent/exposition/page-url.ts'
import { EngineFinder } from '../../agent/finding/engine-finder.ts'
import type { GpuSource } from '../../agent/gpu/gpu-source.ts'
import type { ModelNames } from '../../agent/model-names.ts'
import type { Spool } from '../../agent/spool.ts'
import { type EngineTargets, foundTargets, namedTargets } from '../../agent/watch/engine-targets.ts'
import { EngineWatch } from '../../agent/watch/engine-watch.ts'
import { UsageError } from '../command.ts'
import type { Config } from '../options.ts'

const MAX_GPU_INDEX = 1023
const MAX_ENGINES = 64

/** What `AGENT_ENGINE` and `AGENT_GPUS` ask for. */
export interface EngineSettings {
  /** Pages of engines; null: they are found. */
  urls: URL[] | null
  gpus: number[] | null
}

/** Null: no engine is watched. Throws a UsageError. */
export function engineSettings({ AGENT_ENGINE: engine, AGENT_GPUS: indexes }: Config): EngineSettings | null {
  const gpus = indexes === null ? null : gpusOf(indexes)
  if (engine === 'off') return null
  if (engine === null || engine === 'auto') return { urls: null, gpus }
  const urls = engine.split(',').map((text) => {
    const url = parsePageUrl(text.trim())
    if (url !== null) return url
    const shown = JSON.stringify(
      text
        .trim()
        .replace(/\/\/.*@/, '//***@')
        .slice(0, 100),
    )
    throw new UsageError(`AGENT_ENGINE has ${shown}: expected auto, off, or http[s]://host:port[/metrics][,…]`)
  })
  if (urls.length > MAX_ENGINES)
    throw new UsageError(`AGENT_ENGINE names ${urls.length} engines: at most ${MAX_ENGINES}`)
  return { urls, gpus }
}

export function makeEngineWatch(
  { urls, gpus }: EngineSettings,
  parts: { config: Config; source: GpuSource; spool: Spool; state: AgentState; models: ModelNames; ownPorts: number[] },
): EngineWatch {
  const { config, source, spool, state, models, ownPorts } = parts
  const onlyGpu = () => (state.gpuIndexes.length === 1 ? state.gpuIndexes : null)
  const targets: EngineTargets =
    urls !== null
      ? namedTargets(urls, () => gpus ?? onlyGpu())
      : foundTargets(
          new EngineFinder({
            speaksEngine: engineOf,
            holders: () => ({ indexes: state.gpuIndexes, pids: source.holders ?? null }),
            ownPorts,
          }),
          gpus,
        )
  const intervalMs = config.AGENT_ENGINE_INTERVAL_SEC * 1000
  return new EngineWatch({ targets, spool, state, host: config.HOSTNAME, models, intervalMs })
}

function gpusOf(text: string): number[] {
  const indexes = text.split(',').map((one) => (/^\s*\d{1,4}\s*$/.test(one) ? Number(one) : Number.NaN))
  if (indexes.every((index) => index <= MAX_GPU_INDEX)) return [...new Set(indexes)].sort((a, b) => a - b)
  throw new UsageError(`AGENT_GPUS is ${JSON.stringify(text)}: expected indexes of GPUs, as in 0,1`)
}
