// The agent's watch of engines: looks at each one's counters at aligned times and puts what was done since into the
// spool, together with the counters that were seen. A look counts only once both are stored, so an agent that is
// killed, or away, goes on from there: nothing is lost, nothing is counted twice. A slow engine has one look at a time
// and delays no other. Where tokens cannot be placed (no GPU, no name) the look does not count, so they come later.

import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AgentState } from '../agent-state.ts'
import { type EngineDeltas, engineDeltas } from '../engine/engine-deltas.ts'
import type { EnginePage } from '../engine/engine-page.ts'
import { type EngineUsage, usageByModel } from '../engine/engine-usage.ts'
import { fetchPage } from '../exposition/fetch-page.ts'
import type { ModelNames } from '../model-names.ts'
import type { Spool } from '../spool.ts'
import type { EngineTargets } from './engine-targets.ts'
import { type EngineEvent, isUsed, tokenEvents } from './token-events.ts'
import { decodeWatchState, encodeWatchState, type KnownEngine } from './watch-state.ts'
import { type EngineHealth, keyOf, WatchedEngine } from './watched-engine.ts'

export interface EngineWatchOptions {
  targets: EngineTargets
  spool: Pick<Spool, 'addTokens' | 'lastState'>
  state: AgentState
  host: string
  /** Models by GPU as configured: they name what an engine does not name. */
  models: ModelNames
  intervalMs: number
  fetch?: typeof fetchPage
}

/** Without tokens the state is stored so often: it bounds the gap that the agent's next start sees. */
const STORE_MS = 60_000
/** How far the wall clock may differ from the time that has passed. */
const STEP_MS = 1000

export class EngineWatch {
  readonly #options: EngineWatchOptions
  readonly #fetch: typeof fetchPage
  readonly #engines = new Map<string, WatchedEngine>()
  readonly #sinceMs = Date.now()
  readonly #run = randomBytes(8).toString('hex')
  /** As it is stored; null: it has to be read. */
  #known: Map<string, KnownEngine> | null = null
  readonly #storedMs = new Map<string, number>()
  #events = 0
  #notes: readonly string[] = []
  /** Looks are stored one after the other: each store holds all engines. */
  #storing: Promise<void> = Promise.resolve()

  constructor(options: EngineWatchOptions) {
    this.#options = options
    this.#fetch = options.fetch ?? fetchPage
  }

  /** Watches until the signal aborts; a fault of an engine or the spool never makes it reject. */
  async run(signal: AbortSignal): Promise<void> {
    const { targets, intervalMs } = this.#options
    const finding = targets.run(signal)
    const looks = new Set<Promise<void>>()
    while (!signal.aborted) {
      const waitMs = intervalMs - (Date.now() % intervalMs)
      await sleep(waitMs, undefined, { signal }).catch(() => {})
      if (signal.aborted) break
      this.#follow()
      const atMs = Math.round(Date.now() / intervalMs) * intervalMs
      for (const engine of this.#engines.values()) {
        if (engine.isLooking) continue
        const look = this.#look(engine, atMs, signal).finally(() => looks.delete(look))
        looks.add(look)
      }
      this.#report()
    }
    await Promise.all([finding, ...looks])
  }

  health(): EngineHealth[] {
    const nowMs = Date.now()
    return [...this.#engines.values()].map((engine) => engine.health(nowMs))
  }

  /** The model that an engine serves from this GPU; of several the first. */
  modelOn(gpuIndex: number): string | null {
    for (const { target, models } of this.#engines.values())
      if (target.gpus?.includes(gpuIndex) === true && models.length > 0) return models[0]!
    return null
  }

  /** Takes up engines that are new and lets those go that are gone. */
  #follow(): void {
    const targets = new Map(this.#options.targets.current().map((target) => [keyOf(target.url), target]))
    for (const key of this.#engines.keys()) if (!targets.has(key)) this.#engines.delete(key)
    for (const [key, target] of targets) {
      const engine = this.#engines.get(key)
      if (engine === undefined) this.#engines.set(key, new WatchedEngine(target))
      else engine.target = target
    }
  }

  async #look(engine: WatchedEngine, atMs: number, signal: AbortSignal): Promise<void> {
    engine.isLooking = true
    try {
      const tick = performance.now()
      const page = await engine.read(atMs, this.#fetch, signal)
      if (page === null) return
      const name = await this.#nameFor(engine, page, { atMs, signal })
      const stored = this.#storing.then(() => this.#store(engine, page, { atMs, tick, name }))
      this.#storing = stored.catch(() => {})
      await stored
    } catch (error) {
      // Of the spool: what it holds is then uncertain, so it is read again.
      this.#known = null
      engine.problem = `Its tokens wait, the spool does not take them: ${(error as Error).message}`
    } finally {
      engine.isLooking = false
    }
  }

  async #nameFor(
    engine: WatchedEngine,
    page: EnginePage,
    { atMs, signal }: { atMs: number; signal: AbortSignal },
  ): Promise<string | null> {
    if (page.series.every(({ model }) => model !== null)) return null
    const configured = this.#options.models(engine.target.gpus?.[0] ?? 0)
    if (configured !== null) return configured
    const known = (await this.#load()).get(engine.key)?.state ?? null
    const isNew = known !== null && engineDeltas(known, page, { atMs }).hasRestarted
    return engine.nameOf(atMs, isNew, this.#fetch, signal)
  }

  async #load(): Promise<Map<string, KnownEngine>> {
    if (this.#known === null) {
      const stored = await this.#options.spool.lastState()
      const known = stored === null ? new Map<string, KnownEngine>() : decodeWatchState(stored)
      if (known === null)
        this.#notes = ['The stored state of engines cannot be read: each engine is counted from its next look']
      this.#known = known ?? new Map()
    }
    return this.#known
  }

  async #store(
    engine: WatchedEngine,
    page: EnginePage,
    { atMs, tick, name }: { atMs: number; tick: number; name: string | null },
  ): Promise<void> {
    const known = await this.#load()
    const before = known.get(engine.key)
    const deltas = engineDeltas(before?.state ?? null, page, {
      atMs,
      sinceMs: this.#sinceMs,
      absentMs: engine.absentMs,
    })
    const usages = usageByModel(deltas.series).filter(isUsed)
    engine.problem = this.#unplaced(engine, usages, name)
    if (engine.problem !== null) return
    const owedCached = { ...(deltas.hasRestarted ? {} : before?.owedCached) }
    const fromMs = sinceLook(engine, deltas, { atMs, tick })
    const events = usages.flatMap((usage) => {
      const model = usage.model ?? name!
      const gauges = page.gauges.get(usage.model)
      const context = { host: this.#options.host, gpus: engine.target.gpus!, engine: page.engine, fromMs, atMs, gauges }
      return tokenEvents({ ...withinPrompt(usage, owedCached), model }, { ...context, nextId: () => this.#nextId() })
    })
    const after = new Map(known).set(engine.key, { state: deltas.state, owedCached })
    const isDue = before === undefined || deltas.hasRestarted || !(atMs - this.#storedAt(engine.key) < STORE_MS)
    if (events.length > 0 || isDue) {
      const records = events.map((event) => ({ key: this.#options.host, value: Buffer.from(JSON.stringify(event)) }))
      await this.#options.spool.addTokens(records, encodeWatchState(after, atMs))
      this.#storedMs.set(engine.key, atMs)
    }
    this.#known = after
    this.#noted(engine, { before, deltas, events, atMs, tick })
  }

  #storedAt(key: string): number {
    return this.#storedMs.get(key) ?? Number.NEGATIVE_INFINITY
  }

  #noted(
    engine: WatchedEngine,
    look: { before: KnownEngine | undefined; deltas: EngineDeltas; events: EngineEvent[]; atMs: number; tick: number },
  ): void {
    const { before, deltas, events, atMs, tick } = look
    if (before !== undefined && deltas.hasRestarted) {
      engine.restarts += 1
      engine.unseenMs += Math.max(0, Math.min(deltas.state.startMs ?? atMs, atMs) - before.state.lookMs)
    }
    engine.notes = deltas.notes
    engine.lastLookMs = atMs
    engine.lastLookTick = tick
    engine.tokens += events.reduce((sum, { prompt_tokens: p, completion_tokens: c }) => sum + p + c, 0)
    this.#options.state.counters.tokenEventsSpooled += events.length
  }

  /** Why tokens cannot be placed yet; null: they can. */
  #unplaced({ target }: WatchedEngine, usages: readonly EngineUsage[], name: string | null): string | null {
    if (usages.length === 0) return null
    if (target.gpus === null || target.gpus.length === 0) {
      const state = target.gpus === null ? 'it is not known which GPUs it has' : 'it has no GPU'
      return `Its tokens wait: ${state}; name them with --gpus, as in --gpus 0,1`
    }
    if (name !== null || usages.every(({ model }) => model !== null)) return null
    return 'Its tokens wait: it names no model, or several; name it with --model'
  }

  #nextId(): string {
    this.#events += 1
    return `engine-${this.#run}-${this.#events}`
  }

  #report(): void {
    const { state, targets } = this.#options
    const problems = [...this.#engines.values()].flatMap(({ problem, target }) =>
      problem === null ? [] : [`${keyOf(target.url)}: ${problem}`],
    )
    state.report('engine', problems)
    const notes = [...this.#engines.values()].flatMap(({ key, notes: own }) => own.map((note) => `${key}: ${note}`))
    state.note([...targets.notes, ...this.#notes, ...notes], 'engine')
  }
}

/** Since when: a clock that jumped forward between two looks of one agent makes no long time of a short one. */
function sinceLook(
  { lastLookTick }: WatchedEngine,
  { fromMs }: EngineDeltas,
  { atMs, tick }: { atMs: number; tick: number },
): number {
  const passedMs = lastLookTick === null ? Number.POSITIVE_INFINITY : Math.max(0, tick - lastLookTick)
  return atMs - fromMs > passedMs + STEP_MS ? Math.round(atMs - passedMs) : fromMs
}

/** At most as many cached tokens as the prompt has: others are of a prompt that a later look shows. */
function withinPrompt(usage: EngineUsage, owed: Record<string, number>): EngineUsage {
  if (usage.cached === null) return usage
  const key = JSON.stringify([usage.model, usage.base])
  const all = usage.cached + (owed[key] ?? 0)
  const cached = Math.min(all, usage.prompt ?? 0)
  if (all > cached) owed[key] = all - cached
  else delete owed[key]
  return { ...usage, cached }
}
