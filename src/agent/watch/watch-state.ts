// What the watch of engines must know after a restart of the agent: each engine as of the last events that were stored.
// One JSON text, bounded: engines that were not seen for a month are forgotten, and the oldest of too many.

import type { EngineState } from '../engine/engine-deltas.ts'

export interface KnownEngine {
  state: EngineState
  /** Cached tokens by model, of prompts that a later look will show: they are counted before their prompt is. */
  owedCached: Record<string, number>
}

/** By the engine's address. */
export type WatchState = ReadonlyMap<string, KnownEngine>

const VERSION = 1
const MAX_ENGINES = 1000
const MAX_AGE_MS = 31 * 86_400_000

export function encodeWatchState(engines: WatchState, nowMs: number): Buffer {
  const kept = [...engines]
    .filter(([, { state }]) => nowMs - state.lookMs <= MAX_AGE_MS)
    .sort(([, a], [, b]) => b.state.lookMs - a.state.lookMs)
    .slice(0, MAX_ENGINES)
  return Buffer.from(JSON.stringify({ version: VERSION, engines: Object.fromEntries(kept) }))
}

/** Null: it is of another version or no state at all; then every engine's next look is a first one. */
export function decodeWatchState(text: Buffer): Map<string, KnownEngine> | null {
  try {
    const { version, engines } = JSON.parse(text.toString('utf8')) as { version: number; engines: object }
    return version === VERSION ? new Map(Object.entries(engines) as [string, KnownEngine][]) : null
  } catch {
    return null
  }
}
