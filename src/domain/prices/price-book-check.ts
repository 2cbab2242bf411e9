// Checks a price book as a whole, before any of it counts: all problems at once, each with its path, the value that
// was found and what is allowed, so that ten mistakes take one round and not ten. The fields are walked along the
// schema of price-book-schema.ts (the one definition); what single fields do not show is checked after them: reversed
// validities, senseless matches, duplicate ids, salvage above purchase, overlaps, host names that stand for two
// hosts. Gaps in time are only warnings.

import { parseInstantMs } from '../events/timestamp.ts'
import { HostNames } from './host-names.ts'
import { type PriceBookDocument, PriceBookSchema, type PriceRuleData } from './price-book-schema.ts'
import { matchKey, matchLevel } from './price-rule.ts'
import { checkValue, type Problem, problem } from './schema-errors.ts'

/** What a check found; `book` is null when there are problems. */
export interface PriceBookCheck {
  book: PriceBookDocument | null
  problems: Problem[]
  /** Odd, but allowed: gaps between rules for the same GPUs. */
  warnings: Problem[]
}

interface Validity {
  rule: PriceRuleData
  index: number
  fromMs: number
  toMs: number
}

/**
 * Checks a parsed price book (from YAML, JSON or the API). Never throws, whatever the value. Problems are in the
 * order of their paths: fields of the book, then rule by rule.
 */
export function checkPriceBook(value: unknown): PriceBookCheck {
  const problems = checkValue(PriceBookSchema, value, '')
  const warnings: Problem[] = []
  if (isObject(value)) {
    if (value['defaults'] !== undefined && value['default_usd_per_hour'] !== undefined) {
      problems.push(
        problem('/default_usd_per_hour', value['default_usd_per_hour'], 'one of this and defaults, not both'),
      )
    }
    checkDefaults(value['defaults'], problems)
    const hosts = checkHosts(value['hosts'], problems)
    const rules = Array.isArray(value['rules']) ? value['rules'] : []
    checkRules(rules, { problems, warnings, hosts })
  }
  const inOrder = (found: Problem[]): Problem[] => found.toSorted((a, b) => ruleIndex(a) - ruleIndex(b))
  return {
    book: problems.length === 0 ? (value as PriceBookDocument) : null,
    problems: inOrder(problems),
    warnings: inOrder(warnings),
  }
}

/** A problem as one line of text. */
export function problemText(found: Problem): string {
  const line = found.line === null ? '' : `line ${found.line}: `
  return `${line}${found.path === '' ? 'price book' : found.path}: is ${found.value}, expected ${found.expected}`
}

function checkDefaults(defaults: unknown, problems: Problem[]): void {
  if (!Array.isArray(defaults)) return
  const seen = new Set<unknown>()
  for (const [i, entry] of defaults.entries()) {
    if (!isObject(entry)) continue
    const fromMs = entry['from_ms']
    if (seen.has(fromMs)) problems.push(problem(`/defaults/${i}/from_ms`, fromMs, 'an instant that no other entry has'))
    seen.add(fromMs)
  }
  if (defaults.length > 0 && !seen.has(null)) {
    problems.push(problem('/defaults', defaults, 'an entry with from_ms null, for all time before the others'))
  }
}

/** Each name stands for one host, once; returns the names, none where anything about them is wrong. */
function checkHosts(hosts: unknown, problems: Problem[]): HostNames {
  if (!Array.isArray(hosts)) return new HostNames(undefined)
  const names = new Map<unknown, string>()
  const add = (name: unknown, path: string, what: string) => {
    if (typeof name !== 'string') return
    const first = names.get(name)
    if (first !== undefined) problems.push(problem(path, name, `${what} (it is at ${first} already)`))
    else names.set(name, path)
  }
  for (const [i, entry] of hosts.entries()) {
    if (isObject(entry)) add(entry['name'], `/hosts/${i}/name`, 'a name that no other host has')
  }
  for (const [i, entry] of hosts.entries()) {
    const aliases = isObject(entry) && Array.isArray(entry['aliases']) ? entry['aliases'] : []
    for (const [j, alias] of aliases.entries()) {
      add(alias, `/hosts/${i}/aliases/${j}`, 'a name that stands for no other host, each once')
    }
  }
  const isWrong = problems.some(({ path }) => path.startsWith('/hosts'))
  return new HostNames(isWrong ? undefined : hosts)
}

interface RuleCheck {
  problems: Problem[]
  warnings: Problem[]
  hosts: HostNames
}

function checkRules(rules: unknown[], { problems, warnings, hosts }: RuleCheck): void {
  const wrongMatches = new Set(problems.map((found) => /^\/rules\/\d+\/match/.exec(found.path)?.[0]))
  const indexOfId = new Map<unknown, number>()
  const groups = new Map<string, Validity[]>()
  for (const [index, rule] of rules.entries()) {
    if (!isObject(rule)) continue
    const path = `/rules/${index}`
    const { id } = rule
    const first = indexOfId.get(id)
    if (id !== undefined && first !== undefined) {
      problems.push(problem(`${path}/id`, id, `an id that no other rule has (rule ${first} has it)`))
    } else indexOfId.set(id, index)
    checkMoney(rule, path, problems)
    const validity = checkValidity(rule, path, problems)
    const key = wrongMatches.has(`${path}/match`) ? null : checkMatch(rule, path, { problems, hosts })
    if (validity === null || key === null) continue
    const group = groups.get(key) ?? []
    group.push({ rule: rule as PriceRuleData, index, ...validity })
    groups.set(key, group)
  }
  for (const group of groups.values()) checkGroup(group, problems, warnings)
}

function checkMoney(rule: Record<string, unknown>, path: string, problems: Problem[]): void {
  // Of a kind that is none the fields decide, as in schema-errors.ts: its other mistakes are reported as well.
  const isRented = ['on-demand', 'spot', 'reserved'].includes(String(rule['kind']))
  if (isRented || (rule['kind'] !== 'owned' && rule['purchase_usd'] === undefined)) return
  const { purchase_usd: purchase, salvage_usd: salvage } = rule
  if (typeof purchase === 'number' && typeof salvage === 'number' && salvage > purchase) {
    problems.push(problem(`${path}/salvage_usd`, salvage, `at most purchase_usd, which is ${purchase}`))
  }
  const lives = ['life_hours', 'life_years'].filter((field) => rule[field] !== undefined)
  if (lives.length === 0) problems.push(problem(`${path}/life_hours`, undefined, 'life_hours or life_years'))
  if (lives.length === 2) {
    problems.push(problem(`${path}/life_years`, rule['life_years'], 'one of life_hours and life_years, not both'))
  }
}

/** The validity in milliseconds, null when it is invalid. */
function checkValidity(
  rule: Record<string, unknown>,
  path: string,
  problems: Problem[],
): { fromMs: number; toMs: number } | null {
  const fromMs = checkInstant(rule, 'from', path, problems) ?? Number.NEGATIVE_INFINITY
  const toMs = checkInstant(rule, 'to', path, problems) ?? Number.POSITIVE_INFINITY
  if (Number.isNaN(fromMs) || Number.isNaN(toMs)) return null
  if (fromMs >= toMs) {
    problems.push(problem(`${path}/to`, rule['to'], `an instant after from, which is ${String(rule['from'])}`))
    return null
  }
  return { fromMs, toMs }
}

/** Milliseconds of an instant, null when absent, NaN when malformed (malformed text is a problem found here). */
function checkInstant(
  rule: Record<string, unknown>,
  field: 'from' | 'to',
  path: string,
  problems: Problem[],
): number | null {
  const value = rule[field]
  if (value === undefined) return null
  if (typeof value !== 'string') return Number.NaN
  const ms = parseInstantMs(value)
  const isAlreadyFound = value.length < 1 || value.length > 40
  if (Number.isNaN(ms) && !isAlreadyFound) {
    problems.push(problem(`${path}/${field}`, value, 'ISO 8601, as 2026-01-31 or 2026-01-31T00:00:00Z'))
  }
  return ms
}

/** The key of the rule's match, null when it is invalid. */
function checkMatch(
  rule: Record<string, unknown>,
  path: string,
  { problems, hosts }: Pick<RuleCheck, 'problems' | 'hosts'>,
): string | null {
  const { match } = rule
  if (!isObject(match)) return null
  if (matchLevel(match) === null) {
    problems.push(
      problem(`${path}/match`, match, 'one of: uuid; uuid, host and gpu_index; host and gpu_index; host; name'),
    )
    return null
  }
  return matchKey(hosts.matchOf(match))
}

/** Overlaps are problems, gaps warnings; each is reported at the later of the two rules. */
function checkGroup(group: Validity[], problems: Problem[], warnings: Problem[]): void {
  group.sort((a, b) => a.fromMs - b.fromMs || a.index - b.index)
  let last = group[0]!
  for (const next of group.slice(1)) {
    const until = `${String(last.rule.to ?? 'for ever')}`
    if (next.fromMs < last.toMs) {
      const expected = `no overlap with rule "${last.rule.id}" for the same GPUs, which is in force until ${until}`
      problems.push(problem(`/rules/${next.index}/from`, next.rule.from, expected))
    } else if (next.fromMs > last.toMs) {
      const expected = `no gap after rule "${last.rule.id}" for the same GPUs, which ends at ${until}`
      warnings.push(problem(`/rules/${next.index}/from`, next.rule.from, expected))
    }
    if (next.toMs > last.toMs) last = next
  }
}

/** Index of a problem's rule in the book, -1 for the book's own fields. */
function ruleIndex(found: Problem): number {
  return Number(/^\/rules\/(\d+)/.exec(found.path)?.[1] ?? -1)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
