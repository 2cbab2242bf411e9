// An engine's page of metrics, read: which engine it is, and the counters that state its tokens, each series alone,
// as differences must be taken before anything is summed. Pure. The page itself names the engine. What is no number of
// tokens (NaN, infinite, negative, of another type, twice on the page) is left out and named, never guessed.

import { type ExpositionSample, parseExposition } from '../exposition/parse-exposition.ts'
import { ENGINE_PROFILES, type EngineProfile, type Family, type GaugeName, type Meaning } from './engine-profiles.ts'

/** One series of a counter. */
export interface EngineSeries {
  meaning: Meaning
  /** Identity among all of this page: family and labels, without the rank of a process that repeats the count. */
  key: string
  /** Name of the family on the page. */
  family: string
  /** The adapter, where the series names one; null: the engine does not name its model. */
  model: string | null
  /** The model that the adapter stands on; null: it is no adapter. */
  base: string | null
  value: number
}

/** Summed over ranks (KV use: the fullest); null: the page does not state it. */
export type EngineGauges = Record<GaugeName, number | null>

export interface EnginePage {
  engine: string
  /** When its process started, epoch milliseconds; null: not on the page. */
  startMs: number | null
  series: EngineSeries[]
  /** Keys of series that are there without a usable value. */
  unusable: string[]
  /** By model. */
  gauges: Map<string | null, EngineGauges>
  /** The page ends within a line: counters may be missing, so it must not be compared with another. */
  isCut: boolean
  /** What was left out, and why, one line each; the first ten. */
  faults: string[]
}

const START = 'process_start_time_seconds'
/** Ranks of one engine count the same tokens; data-parallel ones (`engine`, `dp_rank`) count their own. */
const REPEATING_RANKS = new Set(['tp_rank', 'pp_rank', 'moe_ep_rank'])
const ADAPTER_LABEL = 'lora_name'
const MAX_FAULTS = 10
const MAX_LENGTH = 256

/** Names of all profiles, with each of their prefixes. */
const WANTED: ReadonlySet<string> = new Set(
  ENGINE_PROFILES.flatMap((profile) => {
    const names = [...familiesOf(profile).map(({ name }) => name), ...Object.values(profile.gauges).flat()]
    return profile.prefixes.flatMap((prefix) => names.map((name) => prefix + name))
  }),
)

/**
 * The engine's counters; null: it is no engine's page.
 * @throws ExpositionError when the page exceeds a limit.
 */
export function readEnginePage(text: string): EnginePage | null {
  const samples = new Map<string, ExpositionSample[]>()
  let startMs: number | null = null
  const isWanted = (name: string) => name === START || WANTED.has(name)
  const { types, isCut, faults } = parseExposition(text, isWanted, (sample) => {
    if (sample.name === START) startMs = sample.value > 0 ? finite(sample.value * 1000) : null
    else {
      const sameName = samples.get(sample.name)
      if (sameName === undefined) samples.set(sample.name, [sample])
      else sameName.push(sample)
    }
  })
  const found = speaker(samples, types)
  if (found === null) return null
  const reader = new ProfileReader(found, samples)
  const page = reader.read()
  return { ...page, startMs, isCut, faults: [...faults, ...reader.faults].slice(0, MAX_FAULTS) }
}

/** The name of the engine whose page it is, though it may have served nothing yet; null: it is no engine's. */
export function engineOf(text: string): string | null {
  try {
    return readEnginePage(text)?.engine ?? null
  } catch {
    return null
  }
}

/** The profile one of whose families of tokens is on the page, as samples or as a mere type. */
function speaker(
  samples: ReadonlyMap<string, unknown>,
  types: ReadonlyMap<string, string>,
): { profile: EngineProfile; prefix: string } | null {
  for (const profile of ENGINE_PROFILES) {
    const tokens = [...(profile.counters.prompt ?? []), ...(profile.counters.completion ?? [])].flat()
    for (const prefix of profile.prefixes) {
      const isThere = ({ name }: Family) => {
        const full = prefix + name
        return samples.has(full) || types.has(full) || types.has(full.replace(/_(?:total|sum)$/, ''))
      }
      if (tokens.some(isThere)) return { profile, prefix }
    }
  }
  return null
}

class ProfileReader {
  readonly faults: string[] = []
  readonly #unusable: string[] = []
  readonly #profile: EngineProfile
  readonly #prefix: string
  readonly #samples: ReadonlyMap<string, readonly ExpositionSample[]>
  readonly #named = new Set<string>()

  constructor(
    { profile, prefix }: { profile: EngineProfile; prefix: string },
    samples: ReadonlyMap<string, readonly ExpositionSample[]>,
  ) {
    this.#profile = profile
    this.#prefix = prefix
    this.#samples = samples
  }

  read(): Pick<EnginePage, 'engine' | 'series' | 'unusable' | 'gauges'> {
    const meanings = Object.keys(this.#profile.counters) as Meaning[]
    const skipped = this.#skippedBySplit()
    const series = meanings.filter((meaning) => !skipped.includes(meaning)).flatMap((one) => this.#seriesOf(one))
    return { engine: this.#profile.engine, series, unusable: this.#unusable, gauges: this.#gauges() }
  }

  #seriesOf(meaning: Meaning): EngineSeries[] {
    const chosen = this.#profile.counters[meaning]!.find(([first]) => this.#of(first!.name).length > 0) ?? []
    return chosen.flatMap((family) => this.#seriesIn(meaning, family))
  }

  #seriesIn(meaning: Meaning, { name, type, except }: Family): EngineSeries[] {
    const found = new Map<string, EngineSeries>()
    const exact = new Set<string>()
    for (const sample of this.#of(name)) {
      if (except !== undefined && sample.labels.get(except[0]) === except[1]) continue
      const key = `${meaning} ${name}${labelText(sample.labels, REPEATING_RANKS)}`
      if (!this.#isUsable(sample, type)) {
        this.#unusable.push(key)
        continue
      }
      const whole = labelText(sample.labels, new Set())
      if (exact.has(whole)) {
        this.#report(`${sample.name}${whole} stands on the page more than once: the first is used`)
        continue
      }
      exact.add(whole)
      const before = found.get(key)
      if (before !== undefined) before.value = Math.max(before.value, sample.value)
      else found.set(key, { meaning, key, family: name, ...this.#modelOf(sample), value: sample.value })
    }
    return [...found.values()]
  }

  #gauges(): Map<string | null, EngineGauges> {
    const result = new Map<string | null, EngineGauges>()
    for (const [gauge, names] of Object.entries(this.#profile.gauges) as [GaugeName, readonly string[]][]) {
      const name = names.find((one) => this.#of(one).length > 0)
      const ranks = new Map<string, number>()
      for (const sample of name === undefined ? [] : this.#of(name)) {
        if (!Number.isFinite(sample.value) || sample.value < 0) continue
        const { model } = this.#modelOf(sample)
        const gauges = result.get(model) ?? { running: null, waiting: null, kvUse: null }
        result.set(model, gauges)
        const key = labelText(sample.labels, REPEATING_RANKS)
        const before = ranks.get(key)
        ranks.set(key, Math.max(before ?? 0, sample.value))
        // Of ranks that repeat each other the largest, then the sum.
        if (gauge === 'kvUse') gauges[gauge] = Math.max(gauges[gauge] ?? 0, sample.value)
        else gauges[gauge] = (gauges[gauge] ?? 0) - (before ?? 0) + ranks.get(key)!
      }
    }
    return result
  }

  /**
   * Where prefill and decode are servers of their own, both count the whole request: the prompt is the first's, the
   * completion the second's.
   */
  #skippedBySplit(): Meaning[] {
    const role = [...this.#samples.values()].flat().find(({ labels }) => labels.has('engine_type'))?.labels
    if (role?.get('engine_type') === 'prefill') return ['completion', 'decodeSeconds', 'requests']
    return role?.get('engine_type') === 'decode' ? ['prompt', 'cached', 'prefillSeconds'] : []
  }

  #of(name: string): readonly ExpositionSample[] {
    return this.#samples.get(this.#prefix + name) ?? []
  }

  #isUsable({ name, type, value, valueText }: ExpositionSample, expected: Family['type']): boolean {
    const isType =
      type === null || type === expected || type === 'untyped' || type === 'unknown' || expectsSummary(type, expected)
    if (!isType) this.#report(`${name} is a ${type}, expected a ${expected}: it is not read`)
    else if (!Number.isFinite(value) || value < 0) this.#report(`${name} has the value ${valueText}: it is not read`)
    else return true
    return false
  }

  #modelOf({ labels }: ExpositionSample): { model: string | null; base: string | null } {
    const label = this.#profile.modelLabel
    const model = named(label === null ? undefined : labels.get(label))
    const adapter = named(labels.get(ADAPTER_LABEL))
    return adapter === null || adapter === model ? { model, base: null } : { model: adapter, base: model }
  }

  #report(fault: string): void {
    if (this.#named.has(fault)) return
    this.#named.add(fault)
    this.faults.push(fault)
  }
}

function familiesOf({ counters }: EngineProfile): Family[] {
  return Object.values(counters).flat(2)
}

function expectsSummary(type: string, expected: Family['type']): boolean {
  return expected === 'histogram' && type === 'summary'
}

/** Labels in the order of their names, so that a page that changes their order has the same series. */
function labelText(labels: ReadonlyMap<string, string>, without: ReadonlySet<string>): string {
  const parts = [...labels].filter(([name]) => !without.has(name)).sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${parts.map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(',')}}`
}

function named(text: string | undefined): string | null {
  return text === undefined || text === '' || text === 'None' ? null : text.slice(0, MAX_LENGTH)
}

function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null
}
