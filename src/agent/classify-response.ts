// What an answer to POST /api/v1/events means for the batch that was sent. One rule guards the samples: an event is given
// up only where a pertoken itself says that this event is wrong. Anything else (a proxy's 400, a portal's 200, a redirect)
// may be somebody between, so the batch is kept and a person told.

import type { SendResult } from './sink.ts'

/** An answer as it came; header names in lower case. */
export interface HttpAnswer {
  status: number
  headers: Readonly<Record<string, string | string[] | undefined>>
  body: string
}

interface Problem {
  type?: unknown
  detail?: unknown
  errors?: unknown
}

/** The longest text of another's that gets into a message. */
const MAX_QUOTED = 300

/** What the answer says about a batch of `count` events. `nowMs` is what a date in Retry-After is measured from. */
export function classifyResponse(answer: HttpAnswer, count: number, nowMs: number): SendResult {
  const { status } = answer
  if (status === 202) return taken(answer, count)
  const problem = problemOf(answer)
  if (status === 400 && problem?.type === 'urn:pertoken:problem:bad-event') return refusedEvents(problem, count)
  if (status === 413) {
    if (count > 1) return { kind: 'too-large' }
    if (problem !== null) return { kind: 'refused', refused: [{ index: 0, message: detailOf(problem, answer) }] }
  }
  const retryAfterMs = retryAfterOf(answer.headers['retry-after'], nowMs)
  const message = `Answered ${status}: ${explain(answer, problem)}`
  const mayPass = status >= 500 || status === 408 || status === 425 || status === 429
  return { kind: 'failed', message, retryAfterMs, needsPerson: !mayPass }
}

function taken(answer: HttpAnswer, count: number): SendResult {
  const accepted = (jsonOf(answer.body) as { accepted?: unknown } | null)?.accepted
  if (accepted === count) return { kind: 'taken' }
  const message = `Answered 202 without having taken all ${count} events: check that the address is a pertoken's`
  return { kind: 'failed', message, retryAfterMs: null, needsPerson: true }
}

/** Events that `errors` names by a path that begins with their index; the answer may name only the first hundred. */
function refusedEvents(problem: Problem, count: number): SendResult {
  const byIndex = new Map<number, string>()
  for (const issue of Array.isArray(problem.errors) ? problem.errors : []) {
    const { path, message } = (issue ?? {}) as { path?: unknown; message?: unknown }
    const match = typeof path === 'string' ? /^\/(\d{1,9})(\/.*)?$/.exec(path) : null
    const index = Number(match?.[1] ?? Number.NaN)
    if (!(index < count) || byIndex.has(index)) continue
    byIndex.set(index, `${match![2] ?? 'event'}: ${String(message)}`.slice(0, MAX_QUOTED))
  }
  if (byIndex.size > 0) {
    return { kind: 'refused', refused: [...byIndex].map(([index, message]) => ({ index, message })) }
  }
  // It names none: halves find the one.
  if (count > 1) return { kind: 'too-large' }
  return { kind: 'refused', refused: [{ index: 0, message: String(problem.detail).slice(0, MAX_QUOTED) }] }
}

function explain(answer: HttpAnswer, problem: Problem | null): string {
  const { status, headers } = answer
  if (status >= 300 && status < 400) {
    const target = JSON.stringify(String(headers['location'] ?? 'nowhere').slice(0, MAX_QUOTED))
    return `redirects are not followed (to ${target}): give the address itself in --to`
  }
  const detail = problem === null ? '' : ` (${detailOf(problem, answer)})`
  if (status === 401) return `the token is missing, wrong or no longer valid: check API_TOKEN or --token-file${detail}`
  if (status === 403) return `not allowed: it needs a token of scope ingest in API_TOKEN or --token-file${detail}`
  if (problem !== null) return detailOf(problem, answer)
  if (status === 429 || status === 503) return 'it asks to come again later'
  return status >= 500 ? 'the server has a problem' : 'not what a pertoken answers, check the address in --to'
}

function detailOf(problem: Problem, { status }: HttpAnswer): string {
  return typeof problem.detail === 'string' ? problem.detail.slice(0, MAX_QUOTED) : `problem ${status}`
}

/** The problem document of a pertoken; null when the answer is another's. */
function problemOf({ headers, body }: HttpAnswer): Problem | null {
  if (!String(headers['content-type']).startsWith('application/problem+json')) return null
  const parsed = jsonOf(body)
  const isOurs = String((parsed as Problem | null)?.type).startsWith('urn:pertoken:problem:')
  return isOurs ? (parsed as Problem) : null
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** Retry-After in milliseconds: seconds or an HTTP date; null when there is none that can be read. */
function retryAfterOf(header: string | string[] | undefined, nowMs: number): number | null {
  if (typeof header !== 'string') return null
  if (/^\d{1,9}$/.test(header.trim())) return Number(header) * 1000
  const atMs = Date.parse(header)
  return Number.isNaN(atMs) ? null : Math.max(0, atMs - nowMs)
}
