// Turns the validator's findings into issues with reason codes, in words that say what was found, what was expected and
// what to do. Runs only for rejected events.

import { MAX_GPU_INDEX, MAX_GPUS } from './event.ts'
import { MAX_INTERVAL_S } from './event-interval.ts'
import { OLDEST_MS } from './record-time.ts'
import type { Issue, ReasonCode } from './rejection.ts'
import { AlteredIntegers, checkUnknown } from './unknown-fields.ts'

/** Local time without zone is ahead of UTC by at most so much: UTC+14 is the easternmost zone. */
const MAX_LOCAL_AHEAD_MS = 14 * 3_600_000

/** What a compiled validator reports for one finding. */
interface Finding {
  keyword: string
  instancePath: string
  params: object
  message: string
}

const REASON_BY_KEYWORD: Record<string, ReasonCode> = {
  type: 'wrong_type',
  anyOf: 'wrong_type',
  minimum: 'out_of_range',
  maximum: 'out_of_range',
  minLength: 'out_of_range',
  maxLength: 'out_of_range',
  minItems: 'out_of_range',
  maxItems: 'out_of_range',
  uniqueItems: 'out_of_range',
}

/**
 * The first issue of a wrong list `gpus`, and the event with a good one in its place: the validator compares each entry
 * with each where it explains, and would take a minute for a long list.
 */
export function setListAside(event: Record<string, unknown>): { list: Issue[]; rest: Record<string, unknown> } {
  const { gpus } = event
  if (!Array.isArray(gpus)) return { list: [], rest: event }
  const issue = listIssue(gpus)
  return issue === null ? { list: [], rest: event } : { list: [issue], rest: { ...event, gpus: [0] } }
}

function listIssue(gpus: readonly unknown[]): Issue | null {
  const path = '/gpus'
  if (gpus.length === 0) return { reason: 'out_of_range', path, message: 'Is empty: expected at least one GPU index' }
  if (gpus.length > MAX_GPUS) {
    return {
      reason: 'out_of_range',
      path,
      message: `Has ${gpus.length} entries: expected at most ${MAX_GPUS} GPU indexes`,
    }
  }
  const wrong = gpus.findIndex(
    (index) => !Number.isInteger(index) || (index as number) < 0 || (index as number) > MAX_GPU_INDEX,
  )
  if (wrong >= 0) {
    const deep = checkUnknown('gpus', gpus[wrong], new AlteredIntegers(undefined))
    if (deep?.reason === 'too_deep') return deep.issues[0]!
    const reason = Number.isInteger(gpus[wrong]) ? 'out_of_range' : 'wrong_type'
    const expected = `expected an integer of 0 to ${MAX_GPU_INDEX}`
    return { reason, path: `${path}/${wrong}`, message: `Is ${show(gpus[wrong])}: ${expected}` }
  }
  if (new Set(gpus).size === gpus.length) return null
  return { reason: 'out_of_range', path, message: 'Names a GPU twice: expected each index once' }
}

/** The issues of a wrong event: one for each field that is missing or wrong; empty only where `mayBeGood`. */
export function explain(event: Record<string, unknown>, findings: readonly Finding[], mayBeGood = false): Issue[] {
  const issues = new Map<string, Issue>()
  for (const finding of findings) {
    if (finding.keyword === 'required') {
      for (const name of (finding.params as { requiredProperties: string[] }).requiredProperties) {
        if (name === 'gpus') continue
        const hint = name === 'gpu_index' && 'prompt_tokens' in event ? ' (or gpus, an array of indexes)' : ''
        issues.set(`/${name}`, {
          reason: 'missing_field',
          path: `/${name}`,
          message: `Is missing: it is required${hint}`,
        })
      }
    } else if (finding.instancePath !== '' && !issues.has(finding.instancePath)) {
      issues.set(finding.instancePath, issueOf(event, finding))
    }
  }
  if (issues.size === 0 && mayBeGood) return []
  if (issues.size === 0)
    return [{ reason: 'wrong_type', path: '', message: findings[0]?.message ?? 'Does not fit the schema' }]
  return [...issues.values()]
}

function issueOf(event: Record<string, unknown>, finding: Finding): Issue {
  const path = finding.instancePath
  const value = valueAt(event, path)
  const reason = REASON_BY_KEYWORD[finding.keyword] ?? 'wrong_type'
  const expected =
    path === '/ts' && reason === 'wrong_type' ? 'must be ISO 8601 text or epoch milliseconds' : finding.message
  return { reason, path, message: `Is ${show(value)}: ${expected}${hintFor(path, value)}` }
}

/** The issue of an event time that is none, or out of bounds; `latestMs` is the upper one. */
export function explainTime(ts: unknown, tsMs: number, latestMs: number): Issue {
  const path = '/ts'
  if (Number.isNaN(tsMs)) {
    const hint = isNumeric(ts) ? ' (a number in quotes: remove them)' : ''
    const message = `Is ${JSON.stringify(ts)}: expected ISO 8601 or epoch milliseconds${hint}`
    return { reason: 'bad_timestamp', path, message }
  }
  if (tsMs < OLDEST_MS) {
    const hint =
      typeof ts === 'number' && ts > 1e9 && ts < 1e11 ? ' (it looks like epoch seconds: send milliseconds)' : ''
    return { reason: 'too_old', path, message: `Is ${JSON.stringify(ts)}: expected 2015 or later${hint}` }
  }
  const limit = `at most ${new Date(latestMs).toISOString()}, one hour ahead`
  const message = `Is ${JSON.stringify(ts)}: expected ${limit}${aheadHint(ts, tsMs - latestMs)}`
  return { reason: 'too_far_ahead', path, message }
}

function aheadHint(ts: unknown, aheadMs: number): string {
  if (typeof ts === 'number') {
    if (ts >= 1e17) return ' (it looks like epoch nanoseconds: divide by 1,000,000)'
    return ts >= 1e14 ? ' (it looks like epoch microseconds: divide by 1,000)' : ''
  }
  // After the date, a plus or minus belongs to the zone.
  return aheadMs <= MAX_LOCAL_AHEAD_MS && !/[zZ+-]/.test(String(ts).slice(11))
    ? ' (it has no zone, so it is read as UTC: send UTC, or local time with its offset, such as +08:00)'
    : ''
}

function hintFor(path: string, value: unknown): string {
  if (path === '/utilization' && typeof value === 'number' && value > 1) {
    if (value <= 1.05) return ' (a ratio rounded up: send 1)'
    if (value <= 100) return ' (it looks like per cent: divide by 100)'
  }
  if (path === '/interval_s' && typeof value === 'number' && value > MAX_INTERVAL_S)
    return ' (an event sums over an hour at most: send one for each hour)'
  return isNumeric(value) && path !== '/ts' ? ' (a number in quotes: remove them)' : ''
}

function isNumeric(value: unknown): boolean {
  return typeof value === 'string' && value.trim() !== '' && Number.isFinite(Number(value))
}

function valueAt(event: Record<string, unknown>, path: string): unknown {
  let value: unknown = event
  for (const part of path.split('/').slice(1)) value = (value as Record<string, unknown> | undefined)?.[part]
  return value
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}
