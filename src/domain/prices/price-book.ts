// The price book, compiled: what a GPU costs at an instant, by which rule, and why by no other. A book is one immutable
// version. Rules for the same GPUs form a group, whose validities do not overlap; the groups that match a GPU are
// ranked (uuid with slot, uuid, slot, host, name pattern) and the first with an effective rule wins. Look-ups go
// through maps, so that ten thousand rules cost a cell no more than ten. Rules: docs/cost-model.md.

import { defaultsOf } from './book-defaults.ts'
import { HostNames } from './host-names.ts'
import { nanoUsd } from './money.ts'
import { NamePattern } from './name-pattern.ts'
import type { PriceBookDocument, PriceMatch } from './price-book-schema.ts'
import { MATCH_LEVELS, type MatchLevel, matchKey, type PricedSlot, PriceRule } from './price-rule.ts'

/** A part of a range over which rule and default stay the same; `toMs` is exclusive. */
interface PriceSegment {
  fromMs: number
  toMs: number
  /** The effective rule, null where there is none: then the sample's own price counts, then the default. */
  rule: PriceRule | null
  defaultNanoUsdPerHour: bigint
}

/** Why a rule did not price a GPU at an instant. */
type NotChosen =
  | { rule: PriceRule; reason: 'does not match'; field: keyof PriceMatch }
  | { rule: PriceRule; reason: 'not in force' }
  | { rule: PriceRule; reason: 'less specific' }

export interface Explanation {
  /** The rule that won, null when none is effective. */
  rule: PriceRule | null
  /** What the winner matches by, or why none won, as text. */
  because: string
  /** All other rules, in the order of the book. */
  others: NotChosen[]
  defaultNanoUsdPerHour: bigint
}

/** Relative weights of tokens: the smallest integers in their proportion. */
export interface TokenWeights {
  input: bigint
  cached: bigint
  output: bigint
}

/** Names that are cached with their patterns; a fleet has few. */
const MAX_CACHED_NAMES = 1000

/** Rules for the same GPUs, ordered by time. */
type RuleGroup = PriceRule[]

export class PriceBook {
  readonly version: number
  readonly data: PriceBookDocument
  readonly rules: readonly PriceRule[]
  /** Which names stand for one host. Rules and slots may use any of them. */
  readonly hosts: HostNames
  readonly weights: Readonly<TokenWeights>
  /** G: a sample covers the time back to the sample before it if that is at most this far, milliseconds. */
  readonly maxSampleGapMs: number
  readonly maxModelsPerCell: number
  readonly maxTenantsPerCell: number
  readonly #groups = new Map<string, RuleGroup>()
  readonly #patterns: { pattern: NamePattern; group: RuleGroup }[] = []
  readonly #commitmentsByHost = new Map<string, PriceRule[]>()
  readonly #commitmentsFromMs: number
  /** Groups that name a uuid and its slot, by slot, of the newest rule first. */
  readonly #uuidGroupsOfSlot = new Map<string, RuleGroup[]>()
  readonly #defaults: readonly { fromMs: number; nanoUsdPerHour: bigint }[]
  readonly #patternsOfName = new Map<string, RuleGroup[]>()
  /** Levels that rules have: a look-up at any other finds nothing. */
  readonly #levels = new Set<MatchLevel>()

  /**
   * `data` has passed the check of price-book-check.ts. Of commitments, unreported GPUs get cells from
   * `commitmentsFromMs` on at the earliest.
   */
  constructor(
    data: PriceBookDocument,
    version: number,
    { commitmentsFromMs = Number.NEGATIVE_INFINITY }: { commitmentsFromMs?: number } = {},
  ) {
    this.#commitmentsFromMs = commitmentsFromMs
    this.version = version
    this.data = data
    const { weights, limits } = data
    this.weights = inLowestTerms({
      input: nanoUsd(weights?.input ?? 1),
      cached: nanoUsd(weights?.cached ?? 1),
      output: nanoUsd(weights?.output ?? 1),
    })
    this.maxSampleGapMs = (limits?.max_sample_gap_s ?? 90) * 1000
    this.maxModelsPerCell = limits?.max_models_per_cell ?? 32
    this.maxTenantsPerCell = limits?.max_tenants_per_cell ?? 100
    this.#defaults = defaultsOf(data).map((entry) => ({
      fromMs: entry.from_ms ?? Number.NEGATIVE_INFINITY,
      nanoUsdPerHour: nanoUsd(entry.usd_per_hour),
    }))
    this.hosts = new HostNames(data.hosts)
    this.rules = data.rules.map((rule) => new PriceRule({ ...rule, match: this.hosts.matchOf(rule.match) }))
    for (const rule of this.rules) this.#index(rule)
    for (const group of this.#groups.values()) {
      group.sort((a, b) => a.fromMs - b.fromMs)
      const { level, match } = group[0]!
      if (level === 0) listOf(this.#uuidGroupsOfSlot, slotKey(match.host!, match.gpu_index!)).push(group)
    }
    for (const groups of this.#uuidGroupsOfSlot.values()) groups.sort(byNewestRule)
    this.#patterns.sort((a, b) => NamePattern.compare(a.pattern, b.pattern))
  }

  /** The rule that prices a GPU at an instant, null when none is effective. */
  ruleAt(slot: PricedSlot, atMs: number): PriceRule | null {
    return effectiveRule(this.#groupsOf(slot), atMs)
  }

  /** The book's default at an instant, 10⁻⁹ USD per hour. */
  defaultAt(atMs: number): bigint {
    return this.#defaults.findLast((entry) => entry.fromMs <= atMs)!.nanoUsdPerHour
  }

  /** Cuts [fromMs, toMs) where the rule of a GPU or the default changes; in order, without gaps, never empty parts. */
  segments(slot: PricedSlot, fromMs: number, toMs: number): PriceSegment[] {
    const groups = this.#groupsOf(slot)
    if (groups.length === 0 && this.#defaults.length === 1) {
      return [{ fromMs, toMs, rule: null, defaultNanoUsdPerHour: this.#defaults[0]!.nanoUsdPerHour }]
    }
    const cuts = new Set<number>([fromMs])
    const cut = (atMs: number) => {
      if (atMs > fromMs && atMs < toMs) cuts.add(atMs)
    }
    for (const group of groups) {
      for (let i = firstEndingAfter(group, fromMs); i < group.length && group[i]!.fromMs < toMs; i++) {
        cut(group[i]!.fromMs)
        cut(group[i]!.toMs)
      }
    }
    for (const entry of this.#defaults) cut(entry.fromMs)
    const starts = cuts.size === 1 ? [fromMs] : [...cuts].sort((a, b) => a - b)
    return starts.map((startMs, i) => ({
      fromMs: startMs,
      toMs: starts[i + 1] ?? toMs,
      rule: effectiveRule(groups, startMs),
      defaultNanoUsdPerHour: this.defaultAt(startMs),
    }))
  }

  /** Indexes of the GPUs of a host with commitments within [fromMs, toMs), samples or not; ascending. */
  committedIndexes(host: string | null, fromMs: number, toMs: number): number[] {
    const commitments = host === null ? undefined : this.#commitmentsByHost.get(host)
    if (commitments === undefined) return []
    const indexes = new Set<number>()
    for (const rule of commitments) {
      if (Math.max(rule.fromMs, this.#commitmentsFromMs) < toMs && rule.toMs > fromMs)
        indexes.add(rule.match.gpu_index!)
    }
    return [...indexes].sort((a, b) => a - b)
  }

  /** Hosts with such GPUs within [fromMs, toMs): their cells are computed even where no event marks them. */
  committedHosts(fromMs: number, toMs: number): string[] {
    return [...this.#commitmentsByHost.keys()]
      .filter((host) => this.committedIndexes(host, fromMs, toMs).length > 0)
      .sort()
  }

  /** The uuid that a silent slot is paid for under: of the first rule in [fromMs, toMs) that names both; else null. */
  silentUuid(slot: Pick<PricedSlot, 'host' | 'gpuIndex'>, fromMs: number, toMs: number): string | null {
    const { gpuIndex } = slot
    const host = this.hosts.nameOf(slot.host)
    if (host === null || !this.#uuidGroupsOfSlot.has(slotKey(host, gpuIndex))) return null
    const segments = this.segments({ uuid: null, host, gpuIndex, name: null, isSilent: true }, fromMs, toMs)
    return segments.find(({ rule }) => rule?.match.uuid !== undefined)?.rule?.match.uuid ?? null
  }

  /** Which rule prices a GPU at an instant and, for each other rule, why it does not. */
  explain(slot: PricedSlot, atMs: number): Explanation {
    const winner = this.ruleAt(slot, atMs)
    const others: NotChosen[] = []
    for (const rule of this.rules) {
      if (rule === winner) continue
      const field = rule.mismatch({ ...slot, host: this.hosts.nameOf(slot.host) })
      if (field !== null) others.push({ rule, reason: 'does not match', field })
      else others.push({ rule, reason: rule.isEffective(atMs) ? 'less specific' : 'not in force' })
    }
    const because =
      winner === null
        ? 'no rule is in force: the price of the sample counts, else the default'
        : `matches by ${MATCH_LEVELS[winner.level]}, the most specific rule in force`
    return { rule: winner, because, others, defaultNanoUsdPerHour: this.defaultAt(atMs) }
  }

  #index(rule: PriceRule): void {
    const key = matchKey(rule.match)
    this.#levels.add(rule.level)
    let group = this.#groups.get(key)
    if (group === undefined) {
      group = []
      this.#groups.set(key, group)
      if (rule.pattern !== null) this.#patterns.push({ pattern: rule.pattern, group })
    }
    group.push(rule)
    if (!rule.isCommitment || rule.match.host === undefined) return
    listOf(this.#commitmentsByHost, rule.match.host).push(rule)
  }

  /** The groups that match a GPU, most specific first. */
  #groupsOf(slot: PricedSlot): RuleGroup[] {
    if (this.rules.length === 0) return []
    const found: RuleGroup[] = []
    const add = (match: PriceMatch) => {
      const group = this.#groups.get(matchKey(match))
      if (group !== undefined) found.push(group)
    }
    const { uuid, gpuIndex, name } = slot
    const host = this.hosts.nameOf(slot.host)
    const levels = this.#levels
    if (levels.has(0) && uuid !== null && host !== null) add({ uuid, host, gpu_index: gpuIndex })
    else if (slot.isSilent && host !== null) found.push(...(this.#uuidGroupsOfSlot.get(slotKey(host, gpuIndex)) ?? []))
    if (levels.has(1) && uuid !== null) add({ uuid })
    if (levels.has(2) && host !== null) add({ host, gpu_index: gpuIndex })
    if (levels.has(3) && host !== null) add({ host })
    if (levels.has(4) && name !== null) found.push(...this.#groupsOfName(name))
    return found
  }

  #groupsOfName(name: string): RuleGroup[] {
    let groups = this.#patternsOfName.get(name)
    if (groups === undefined) {
      groups = this.#patterns.filter(({ pattern }) => pattern.matches(name)).map(({ group }) => group)
      if (this.#patternsOfName.size >= MAX_CACHED_NAMES) this.#patternsOfName.clear()
      this.#patternsOfName.set(name, groups)
    }
    return groups
  }
}

function slotKey(host: string, gpuIndex: number): string {
  return `${gpuIndex} ${host}`
}

/** The list of a key, which is made where there is none. */
function listOf<T>(lists: Map<string, T[]>, key: string): T[] {
  const list = lists.get(key) ?? []
  lists.set(key, list)
  return list
}

/** Of the GPUs that followed each other in a slot, the last one first; of equal ones the smaller uuid. */
function byNewestRule(a: RuleGroup, b: RuleGroup): number {
  const [newestA, newestB] = [a.at(-1)!, b.at(-1)!]
  if (newestA.fromMs !== newestB.fromMs) return newestA.fromMs > newestB.fromMs ? -1 : 1
  return newestA.match.uuid! < newestB.match.uuid! ? -1 : 1
}

/** The same proportion in the smallest integers: shares by weight stay the same, and their products small. */
function inLowestTerms({ input, cached, output }: TokenWeights): TokenWeights {
  let [divisor, rest] = [input, 0n]
  for (const weight of [cached, output]) {
    rest = weight
    while (rest !== 0n) [divisor, rest] = [rest, divisor % rest]
  }
  if (divisor === 0n) return { input, cached, output }
  return { input: input / divisor, cached: cached / divisor, output: output / divisor }
}

/** The first effective rule of ranked groups; null when there is none. */
function effectiveRule(groups: readonly RuleGroup[], atMs: number): PriceRule | null {
  for (const group of groups) {
    const rule = group[firstEndingAfter(group, atMs)]
    if (rule?.isEffective(atMs)) return rule
  }
  return null
}

/** Index of the first rule of a group that ends after an instant; the group's validities are in order. */
function firstEndingAfter(group: RuleGroup, atMs: number): number {
  let low = 0
  let high = group.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (group[middle]!.toMs > atMs) high = middle
    else low = middle + 1
  }
  return low
}
