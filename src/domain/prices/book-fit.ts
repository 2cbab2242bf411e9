// Whether the rules of a price book fit the GPUs that were seen. A rule that fits none is most often a slip: a name
// as a label has it (`NVIDIA-L40S`) where the driver reports `NVIDIA L40S`; its GPUs then cost the default, and no
// total shows it. Each such rule is listed with the nearest name that was seen. That a rule is not effective yet, has
// ended, or names one GPU that has not reported is no slip, and is stated as what it is.

import type { PriceBook } from './price-book.ts'
import type { PriceMatch } from './price-book-schema.ts'
import type { PricedSlot, PriceRule } from './price-rule.ts'

/** Why a rule fits no GPU: none has such a name; its one GPU has not reported; its time has not come, or is over. */
export type UnmatchedState = (typeof STATES)[number]

const STATES = ['never_seen', 'not_reported', 'future', 'past'] as const

/** A rule that fits no GPU that was seen. */
export interface UnmatchedRule {
  id: string
  match: PriceMatch
  state: UnmatchedState
  /** The name, host or uuid that was seen and looks most like the rule's; null where none does. */
  nearest: string | null
  /** All of it as a sentence, with what was seen. */
  message: string
}

/** Most rules that are listed; the others are counted. */
const MAX_LISTED = 20
/** Most names that a message lists where none is near. */
const MAX_NAMES = 3
/** Share of equal pairs of letters from which on two names are near. */
const NEAR = 0.6

/** What was seen, looked up by what a rule may name. */
interface Seen {
  uuids: Set<string>
  names: Set<string>
  indexesByHost: Map<string, Set<number>>
  /** Slot and uuid together. */
  places: Set<string>
}

/**
 * The rules of a book that fit none of these GPUs, slips first, at most `MAX_LISTED` of them, and how many there are;
 * none where no GPU was seen at all. A rule fits whatever its time: one that is not effective at `nowMs`, but fits,
 * is not listed.
 */
export function unmatchedRules(
  book: PriceBook,
  gpus: readonly PricedSlot[],
  nowMs: number,
): { rules: UnmatchedRule[]; count: number } {
  if (gpus.length === 0) return { rules: [], count: 0 }
  const seen = lookUps(gpus.map((gpu) => ({ ...gpu, host: book.hosts.nameOf(gpu.host) })))
  const unmatched = book.rules
    .filter((rule) => !fits(rule, seen))
    .map((rule) => ({ rule, state: stateOf(rule, nowMs) }))
    .sort((a, b) => STATES.indexOf(a.state) - STATES.indexOf(b.state))
  const rules = unmatched.slice(0, MAX_LISTED).map(({ rule, state }) => {
    const nearest = nearestOf(rule, seen)
    const { id, match } = rule
    return { id, match, state, nearest, message: messageOf(rule, state, nearest, seen) }
  })
  return { rules, count: unmatched.length }
}

function lookUps(gpus: readonly PricedSlot[]): Seen {
  const seen: Seen = { uuids: new Set(), names: new Set(), indexesByHost: new Map(), places: new Set() }
  for (const { uuid, host, gpuIndex, name } of gpus) {
    if (uuid !== null) seen.uuids.add(uuid)
    if (name !== null) seen.names.add(name)
    if (host === null) continue
    seen.indexesByHost.set(host, (seen.indexesByHost.get(host) ?? new Set()).add(gpuIndex))
    seen.places.add(JSON.stringify([uuid, host, gpuIndex]))
  }
  return seen
}

function fits({ match, pattern }: PriceRule, seen: Seen): boolean {
  const { uuid, host, gpu_index: index } = match
  if (pattern !== null) return [...seen.names].some((name) => pattern.matches(name))
  if (host === undefined) return seen.uuids.has(uuid!)
  if (index === undefined) return seen.indexesByHost.has(host)
  if (uuid === undefined) return seen.indexesByHost.get(host)?.has(index) ?? false
  return seen.places.has(JSON.stringify([uuid, host, index]))
}

function stateOf(rule: PriceRule, nowMs: number): UnmatchedState {
  if (rule.fromMs > nowMs) return 'future'
  if (rule.toMs <= nowMs) return 'past'
  return rule.level <= 2 ? 'not_reported' : 'never_seen'
}

function nearestOf({ match, pattern }: PriceRule, seen: Seen): string | null {
  if (pattern !== null) return nearestName(pattern.text.replaceAll('*', ' '), seen.names)
  if (match.host !== undefined && !seen.indexesByHost.has(match.host)) {
    return nearestName(match.host, seen.indexesByHost.keys())
  }
  return match.uuid === undefined ? null : ([...seen.uuids].find((uuid) => plain(uuid) === plain(match.uuid!)) ?? null)
}

function messageOf(rule: PriceRule, state: UnmatchedState, nearest: string | null, seen: Seen): string {
  const { id, match, pattern } = rule
  const gpu = match.gpu_index === undefined ? '' : `GPU ${match.gpu_index} of `
  const parts = [
    pattern === null ? [] : [`name "${pattern.text}"`],
    match.uuid === undefined ? [] : [`uuid "${match.uuid}"`],
    match.host === undefined ? [] : [`${gpu}host "${match.host}"`],
  ].flat()
  const candidates = pattern !== null ? [...seen.names] : match.host !== undefined ? [...seen.indexesByHost.keys()] : []
  const found = `Rule "${id}" matches ${parts.join(', ')}, ${WHY[state](rule)}`
  if (nearest !== null) return `${found}; seen: "${nearest}"`
  const known = match.host === undefined ? undefined : seen.indexesByHost.get(match.host)
  if (known !== undefined) return `${found}; seen of that host: GPU ${listed([...known].sort((a, b) => a - b))}`
  return candidates.length === 0 ? found : `${found}; seen: ${listed(candidates.sort().map((name) => `"${name}"`))}`
}

const WHY: Record<UnmatchedState, (rule: PriceRule) => string> = {
  never_seen: () => 'which no GPU has that was seen',
  not_reported: (rule) =>
    rule.isCommitment && rule.match.host !== undefined
      ? 'which has not reported: it is paid for as not monitored'
      : 'which has not reported',
  future: ({ fromMs }) => `which no GPU has that was seen; it counts from ${new Date(fromMs).toISOString()} on`,
  past: ({ toMs }) => `which no GPU has that was seen; it ended at ${new Date(toMs).toISOString()}`,
}

/** The name that looks most like a text, without case and signs; null where none is near. */
function nearestName(text: string, names: Iterable<string>): string | null {
  let nearest: { name: string; score: number } | null = null
  for (const name of [...names].sort()) {
    const score = likeness(plain(text), plain(name))
    if (score >= NEAR && score > (nearest?.score ?? 0)) nearest = { name, score }
  }
  return nearest?.name ?? null
}

/** 2: equal; 1: one is a part of the other; else the share of equal pairs of letters (Dice's coefficient). */
function likeness(a: string, b: string): number {
  if (a === b) return 2
  if (a.length > 2 && b.length > 2 && (a.includes(b) || b.includes(a))) return 1
  const [pairs, others] = [pairsOf(a), pairsOf(b)]
  const common = [...pairs].filter((pair) => others.has(pair)).length
  return (2 * common) / (pairs.size + others.size || 1)
}

function pairsOf(letters: string): Set<string> {
  return new Set(Array.from({ length: Math.max(0, letters.length - 1) }, (_, i) => letters.slice(i, i + 2)))
}

function plain(text: string): string {
  return text.toLowerCase().replace(/[^\p{L}\p{N}]/gu, '')
}

function listed(names: readonly (string | number)[]): string {
  const more = names.length > MAX_NAMES ? ` and ${names.length - MAX_NAMES} more` : ''
  return `${names.slice(0, MAX_NAMES).join(', ')}${more}`
}
