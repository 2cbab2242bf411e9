// Which engines are watched: those that are named, or those that are found on this host, looked for again and again.

import { setTimeout as sleep } from 'node:timers/promises'
import type { EngineFinder } from '../finding/engine-finder.ts'

/** An engine to be watched. */
export interface EngineTarget {
  /** Its page of metrics. */
  url: URL
  /** Indexes of its GPUs; null: not known. */
  gpus: readonly number[] | null
  /** For /health: how it came to be watched. */
  why: string
}

export interface EngineTargets {
  /** As of now. */
  current(): readonly EngineTarget[]
  /** What was seen and is not watched, one line each. */
  readonly notes: readonly string[]
  /** Looks for engines until the signal aborts. */
  run(signal: AbortSignal): Promise<void>
}

const FIND_MS = 10_000
const MAX_ENGINES = 64

/** Engines of a configuration. */
export function namedTargets(urls: readonly URL[], gpus: () => readonly number[] | null): EngineTargets {
  return {
    current: () => urls.map((url) => ({ url, gpus: gpus(), why: 'named by --engine' })),
    notes: [],
    run: async () => {},
  }
}

/** Engines of this host; `gpus` are those of an engine for which none are found. */
export function foundTargets(finder: EngineFinder, gpus: readonly number[] | null): EngineTargets {
  let found: EngineTarget[] = []
  let notes: string[] = []
  return {
    current: () => found,
    get notes() {
      return notes
    },
    async run(signal) {
      while (!signal.aborted) {
        const finding = await finder.find(signal)
        found = finding.engines.slice(0, MAX_ENGINES).map((engine) => ({
          url: new URL(engine.url),
          gpus: engine.gpus === null || engine.gpus.length === 0 ? (gpus ?? engine.gpus) : engine.gpus,
          why: engine.why,
        }))
        const more = finding.engines.length - found.length
        notes =
          more > 0 ? [...finding.notes, `${more} more engines are not watched: at most ${MAX_ENGINES}`] : finding.notes
        await sleep(FIND_MS, undefined, { signal }).catch(() => {})
      }
    },
  }
}
