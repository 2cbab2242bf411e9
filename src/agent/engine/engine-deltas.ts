// What an engine did between two looks, exact per series: differences are taken before anything is summed. Pure; the
// state between looks is plain JSON. A restart is seen by the process' start time where the page has it, else by a
// counter that fell: then counters count from zero, and only what was made after the last look before it is lost. In
// doubt a token is rather lost, and that is named, than counted twice.

import type { EnginePage, EngineSeries } from './engine-page.ts'

/**
 * Value of a series, its model and base, the number of the look that saw it last, and whether others took its place.
 */
type SeriesState = [value: number, model: string | null, base: string | null, look: number, isReplaced?: true]

/** An engine as of its last whole look; JSON. */
export interface EngineState {
  engine: string
  /** Time of the last look, epoch milliseconds. */
  lookMs: number
  /** Looks so far. */
  looks: number
  startMs: number | null
  series: Record<string, SeriesState>
  /** The process has series that are not here: one that is not may be old, and does not count from zero. */
  isPartial?: true
}

/** A series' difference. */
export type SeriesDelta = Pick<EngineSeries, 'meaning' | 'model' | 'base' | 'value'>

export interface EngineDeltas {
  state: EngineState
  /** What was counted since; series that stood still included, baselines not. */
  series: SeriesDelta[]
  /** Since when, epoch milliseconds: before the time of the look. */
  fromMs: number
  /** The process is another one than at the last look. */
  hasRestarted: boolean
  /** What is odd, or was not counted, one line each. */
  notes: string[]
}

export interface LookTime {
  /** Of this look, epoch milliseconds. */
  atMs: number
  /** Since when engines are watched here: a process that has started since then is new; null: as of this look. */
  sinceMs?: number | null
  /** When nothing answered at this engine's address, for one without start time; null: that was never seen. */
  absentMs?: number | null
}

/** Series of one engine that are followed. */
const MAX_SERIES = 2000
const MAX_KEY_CHARS = 1024
/** Some exporters compute the start from a clock that is corrected; no engine starts again within this time. */
const START_JITTER_MS = 1500
/** By how much two machines' clocks may differ. */
const CLOCK_SKEW_MS = 60_000
const MAX_NOTES = 10

/** The first look at an engine is a baseline, unless it is known to have started while it was watched for. */
export function engineDeltas(before: EngineState | null, page: EnginePage, time: LookTime): EngineDeltas {
  const { atMs } = time
  const { series, notes, isCut } = followed(page)
  const state: EngineState = {
    engine: page.engine,
    lookMs: atMs,
    looks: (before?.looks ?? 0) + 1,
    startMs: page.startMs,
    series: {},
    ...(isCut ? { isPartial: true } : {}),
  }
  const known = before?.engine === page.engine ? before : null
  if (known === null) {
    const fromMs = newSince(before, page.startMs, time)
    const deltas = keep(state, series, () => (fromMs === null ? null : 0))
    return { state, series: deltas, fromMs: Math.min(fromMs ?? atMs, atMs), hasRestarted: before !== null, notes }
  }
  const restart = restartOf(known, page, series)
  notes.push(...restart.notes)
  // A clock that was set back has no interval: the counts are of this moment.
  const lookMs = Math.min(known.lookMs, atMs)
  const fromMs = restart.kind === 'none' ? lookMs : Math.max(lookMs, Math.min(page.startMs ?? 0, atMs))
  const isBaseline = restart.kind === 'other-process'
  const isPartial = known.isPartial === true && restart.kind === 'none'
  const left = Object.entries(known.series).filter(([, [, , , look]]) => look > restart.untilLook)
  const remaining = new Map(isBaseline ? [] : left)
  // A series that fell is the same one, from zero.
  const fresh = series.filter(({ key }) => remaining.has(key) || known.series[key] === undefined)
  const relabelled = relabelledGroups(remaining, { ...page, series: fresh }, notes)
  const deltas = keep(state, series, (one) => {
    if (isBaseline) return null
    const last = remaining.get(one.key)
    if (last === undefined && known.series[one.key] !== undefined) return 0
    if (last === undefined && isPartial) return null
    if (last === undefined || relabelled.isTakenUp(one.key)) return relabelled.takeBase(one)
    if (one.value < last[0]) {
      if (!isRounding(last[0], one.value)) {
        note(notes, `${one.key} fell from ${last[0]} to ${one.value} though its process did not start again`)
        return null
      }
      one.value = last[0]
    }
    return last[0]
  })
  for (const [key, last] of remaining) {
    state.series[key] ??= relabelled.isReplaced(key) ? [last[0], last[1], last[2], last[3], true] : last
  }
  if (bound(state, notes) || isPartial) state.isPartial = true
  return { state, series: deltas, fromMs, hasRestarted: restart.kind !== 'none', notes }
}

/** Since when a process has counted that was not seen before; null: since before anyone looked. */
function newSince(before: EngineState | null, startMs: number | null, { sinceMs, absentMs }: LookTime): number | null {
  if (startMs === null) return before === null ? (absentMs ?? null) : null
  return startMs >= (before?.lookMs ?? sinceMs ?? Number.POSITIVE_INFINITY) ? startMs : null
}

/** Notes each series in the state and returns its difference to its base; null: a baseline. */
function keep(
  state: EngineState,
  series: readonly EngineSeries[],
  baseOf: (series: EngineSeries) => number | null,
): SeriesDelta[] {
  return series.flatMap((one) => {
    const base = baseOf(one)
    state.series[one.key] = [one.value, one.model, one.base, state.looks]
    const { meaning, model, base: baseModel, value } = one
    return base === null ? [] : [{ meaning, model, base: baseModel, value: value - base }]
  })
}

interface Restart {
  kind: 'none' | 'restarted' | 'other-process'
  /** Series that no later look has seen are of the process before. */
  untilLook: number
  notes: string[]
}

function restartOf(known: EngineState, page: EnginePage, series: readonly EngineSeries[]): Restart {
  const fallen = series.filter(({ key, value }) => {
    const last = known.series[key]
    return last !== undefined && value < last[0] && !isRounding(last[0], value)
  })
  const { startMs } = page
  const movedMs = startMs === null || known.startMs === null ? null : startMs - known.startMs
  if (movedMs !== null && Math.abs(movedMs) > START_JITTER_MS) {
    if (movedMs > 0 && startMs! >= known.lookMs - CLOCK_SKEW_MS) {
      return { kind: 'restarted', untilLook: known.looks, notes: [] }
    }
    const message =
      'Another process answers than at the last look, and it is no new one: what it did since is not counted; read each engine at an address of its own'
    return { kind: 'other-process', untilLook: known.looks, notes: [message] }
  }
  if (fallen.length === 0 || movedMs === 0) return { kind: 'none', untilLook: -1, notes: [] }
  const untilLook = Math.max(...fallen.map(({ key }) => known.series[key]![3]))
  const { key, value } = fallen[0]!
  const message = `${key} fell from ${known.series[key]![0]} to ${value}: taken as a restart of the engine`
  return { kind: 'restarted', untilLook, notes: movedMs === null ? [message] : [] }
}

/**
 * Series that are new while others of the same meaning and model are gone, without a restart: the same counts under
 * other labels or another family. Their base is what the others had; without others a new series counts from zero, as
 * the last look was whole and did not have it. Those that are gone stay known, should they come back.
 */
function relabelledGroups(
  remaining: ReadonlyMap<string, SeriesState>,
  { series, unusable }: Pick<EnginePage, 'series' | 'unusable'>,
  notes: string[],
) {
  const present = new Set([...series.map(({ key }) => key), ...unusable])
  const gone = new Map<string, { keys: string[]; sum: number }>()
  for (const [key, [value, model, base, , isReplaced]] of remaining) {
    if (present.has(key) || isReplaced === true) continue
    const group = groupOf(key.slice(0, key.indexOf(' ')), model, base)
    const one = gone.get(group) ?? { keys: [], sum: 0 }
    one.keys.push(key)
    one.sum += value
    gone.set(group, one)
  }
  const fresh = new Map<string, { keys: string[]; sum: number }>()
  for (const { key, meaning, model, base, value } of series) {
    const last = remaining.get(key)
    const group = groupOf(meaning, model, base)
    if ((last !== undefined && last[4] !== true) || !gone.has(group)) continue
    const one = fresh.get(group) ?? { keys: [], sum: 0 }
    one.keys.push(key)
    one.sum += value
    fresh.set(group, one)
  }
  const lost = new Set<string>()
  for (const [group, { keys, sum }] of fresh) {
    const old = gone.get(group)!
    const names = `${old.keys[0]} is gone, ${keys[0]} takes its place`
    if (sum < old.sum) lost.add(group)
    note(notes, sum < old.sum ? `${names} with less: it is counted from here` : names)
  }
  const replaced = new Set([...fresh.keys()].flatMap((group) => gone.get(group)!.keys))
  const takenUp = new Set([...fresh.values()].flatMap(({ keys }) => keys))
  return {
    isReplaced: (key: string) => replaced.has(key),
    isTakenUp: (key: string) => takenUp.has(key),
    /** The base of a new series: the first ones of a group take up what the gone ones had. */
    takeBase({ key, meaning, model, base, value }: EngineSeries): number | null {
      const group = groupOf(meaning, model, base)
      if (lost.has(group)) return null
      const old = gone.get(group)
      if (old === undefined) return 0
      const part = Math.min(old.sum, value)
      old.sum -= part
      return Math.min(Math.max(part, remaining.get(key)?.[0] ?? 0), value)
    },
  }
}

function groupOf(meaning: string, model: string | null, base: string | null): string {
  return JSON.stringify([meaning, model, base])
}

/** Some engines print six significant digits: one step of these is no fall. */
function isRounding(before: number, value: number): boolean {
  const step = 10 ** (Math.floor(Math.log10(before)) - 5)
  return before - value <= step * 1.001
}

function followed({ series, faults }: EnginePage): { series: EngineSeries[]; notes: string[]; isCut: boolean } {
  const notes = [...faults]
  const short = series.filter(({ key }) => key.length <= MAX_KEY_CHARS)
  if (short.length < series.length) {
    note(notes, `${series.length - short.length} series have labels of over ${MAX_KEY_CHARS} characters: not counted`)
  }
  if (short.length > MAX_SERIES) {
    note(notes, `The page has ${short.length} series of tokens: the first ${MAX_SERIES} are counted`)
  }
  const kept = short.slice(0, MAX_SERIES).map((one) => ({ ...one }))
  return { series: kept, notes, isCut: kept.length < short.length }
}

/** Forgets those that were not seen for the longest time; returns whether there were any. */
function bound(state: EngineState, notes: string[]): boolean {
  const all = Object.entries(state.series)
  if (all.length <= MAX_SERIES) return false
  all.sort(([, [, , , a]], [, [, , , b]]) => b - a)
  state.series = Object.fromEntries(all.slice(0, MAX_SERIES))
  note(notes, `Over ${MAX_SERIES} series came and went: the oldest are forgotten, and none counts from zero any more`)
  return true
}

function note(notes: string[], message: string): void {
  if (notes.length < MAX_NOTES) notes.push(message)
}
