// One engine under watch: its page is fetched and read at each look, its model is asked for where its counters name
// none, and what the last looks showed is kept for /health and for the model that its GPUs hold.

import { type EnginePage, readEnginePage } from '../engine/engine-page.ts'
import { type fetchPage, PageError, shownUrl } from '../exposition/fetch-page.ts'
import { ExpositionError } from '../exposition/parse-exposition.ts'
import type { EngineTarget } from './engine-targets.ts'
import { modelOfEngine } from './model-of-engine.ts'

/** One engine on /health. */
export interface EngineHealth {
  url: string
  engine: string | null
  models: readonly string[]
  gpus: readonly number[] | null
  why: string
  state: 'ok' | 'starting' | 'failing'
  /** What is wrong, and what to do; null: nothing. */
  problem: string | null
  notes: readonly string[]
  last_look: string | null
  /** What an engine that dies now loses at most: what it did in these seconds, since the last look. */
  unseen_s: number | null
  /** Restarts that were seen, and the seconds before them that no look has seen: what was done then is lost. */
  restarts: number
  unseen_before_restarts_s: number
  tokens: number
}

const NAME_MS = 60_000

export class WatchedEngine {
  readonly key: string
  target: EngineTarget
  isLooking = false
  problem: string | null = null
  /** What was odd at the last look. */
  notes: readonly string[] = []
  lastLookMs: number | null = null
  /** On a monotonic clock. */
  lastLookTick: number | null = null
  /** When nothing listened at its address, wall clock. */
  absentMs: number | null = null
  restarts = 0
  unseenMs = 0
  tokens = 0
  #page: EnginePage | null = null
  #name: string | null = null
  #namedMs = Number.NEGATIVE_INFINITY

  constructor(target: EngineTarget) {
    this.target = target
    this.key = keyOf(target.url)
  }

  /** The page; null with a problem. Never rejects but for a bug. */
  async read(atMs: number, fetch: typeof fetchPage, signal: AbortSignal): Promise<EnginePage | null> {
    try {
      const page = readEnginePage(await fetch(this.target.url, { signal }))
      const at = shownUrl(this.target.url)
      if (page === null) this.problem = `What answers at ${at} is no page of an engine that is known here`
      else if (page.isCut) this.problem = `The page at ${at} ends within a line: it is not read`
      else {
        this.#page = page
        return page
      }
    } catch (error) {
      if (signal.aborted) return null
      if (!(error instanceof PageError || error instanceof ExpositionError)) throw error
      this.problem = error.message
      if (error.message.includes('ECONNREFUSED')) this.absentMs = atMs
      if (error instanceof PageError && error.code === 'unreachable') this.#page = null
    }
    return null
  }

  /** The name of the one model of an engine whose counters name none. */
  async nameOf(atMs: number, isNew: boolean, fetch: typeof fetchPage, signal: AbortSignal): Promise<string | null> {
    if (isNew || this.#name === null || Math.abs(atMs - this.#namedMs) >= NAME_MS) {
      const name = await modelOfEngine(this.target.url, fetch, signal)
      // An engine that is busy keeps its name.
      this.#name = isNew ? name : (name ?? this.#name)
      this.#namedMs = atMs
    }
    return this.#name
  }

  /** Models that it serves, those that adapters stand on first. */
  get models(): string[] {
    if (this.#page === null) return []
    const { series, gauges } = this.#page
    const names = [...series.map(({ base }) => base), ...series.map(({ model }) => model), ...gauges.keys()]
    const known = new Set(names.filter((name) => name !== null))
    return known.size > 0 || this.#name === null ? [...known] : [this.#name]
  }

  health(nowMs: number): EngineHealth {
    const { url, gpus, why } = this.target
    return {
      url: shownUrl(url),
      engine: this.#page?.engine ?? null,
      models: this.models,
      gpus,
      why,
      state: this.problem !== null ? 'failing' : this.lastLookMs === null ? 'starting' : 'ok',
      problem: this.problem,
      notes: this.notes,
      last_look: this.lastLookMs === null ? null : new Date(this.lastLookMs).toISOString(),
      unseen_s: this.lastLookMs === null ? null : Math.max(0, nowMs - this.lastLookMs) / 1000,
      restarts: this.restarts,
      unseen_before_restarts_s: this.unseenMs / 1000,
      tokens: this.tokens,
    }
  }
}

/** Identity of an engine: its address without name and password. */
export function keyOf(url: URL): string {
  return `${shownUrl(url)}${url.search}`
}
