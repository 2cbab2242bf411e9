// Turns the validator's findings into issues with reason codes, in words that say what was found, what was expected and
// what to do. Runs only for rejected events.

import type { Issue, ReasonCode } from './rejection.ts'
import { MAX_AHEAD_MS, OLDEST_MS } from './timestamp.ts'

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

/** The issues of a wrong event: one for each field that is missing or wrong, never empty. */
export function explain(event: Record<string, unknown>, findings: readonly Finding[]): Issue[] {
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
  if (issues.size === 0)
    return [{ reason: 'wrong_type', path: '', message: findings[0]?.message ?? 'Does not fit the schema' }]
  return [...issues.values()]
}

function issueOf(event: Record<string, unknown>, finding: Finding): Issue {
  const path = finding.instancePath
  const value = valueAt(event, path)
  const reason = REASON_BY_KEYWORD[finding.keyword] ?? 'wrong_type'
  const expected =
    path === '/ts' && reason === 'wrong_type' ? 'must be ISO 8601 text or integer epoch milliseconds' : finding.message
  return { reason, path, message: `Is ${show(value)}: ${expected}${hintFor(path, value)}` }
}

/** The issue of an event time that is none, or out of bounds. */
export function explainTime(ts: unknown, tsMs: number, recordMs: number): Issue {
  const path = '/ts'
  if (Number.isNaN(tsMs)) {
    return {
      reason: 'bad_timestamp',
      path,
      message: `Is ${JSON.stringify(ts)}: expected ISO 8601 or epoch milliseconds`,
    }
  }
  if (tsMs < OLDEST_MS) {
    const hint =
      typeof ts === 'number' && ts > 1e9 && ts < 1e11 ? ' (it looks like epoch seconds: send milliseconds)' : ''
    return { reason: 'too_old', path, message: `Is ${JSON.stringify(ts)}: expected 2015 or later${hint}` }
  }
  const limit = new Date(recordMs + MAX_AHEAD_MS).toISOString()
  return {
    reason: 'too_far_ahead',
    path,
    message: `Is ${JSON.stringify(ts)}: expected at most ${limit}, one hour ahead`,
  }
}

function hintFor(path: string, value: unknown): string {
  if (path === '/utilization' && typeof value === 'number' && value > 1 && value <= 100) {
    return ' (it looks like per cent: divide by 100)'
  }
  return typeof value === 'string' && value.trim() !== '' && Number.isFinite(Number(value)) && path !== '/ts'
    ? ' (a number in quotes: remove them)'
    : ''
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
