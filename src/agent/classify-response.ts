// Decides what a response to POST /api/v1/events means for the batch that was sent. One rule protects the samples: an
// event is discarded only where a pertoken itself reports that this event is invalid. Anything else (a proxy's 400, a
// captive portal's 200, a redirect) may come from an intermediary, so the batch is kept and the fault reported.

import type { SendResult } from './sink.ts'

/** A response as received; header names in lower case. */
export interface HttpResponse {
  status: number
  headers: Readonly<Record<string, string | string[] | undefined>>
  body: string
}

/** A problem document, RFC 9457, unchecked. */
interface Problem {
  type?: unknown
  detail?: unknown
  errors?: unknown
}

/** Longest foreign text that is quoted in a message. */
const MAX_QUOTED = 300

/** Classifies the response to a batch of `count` events; a date in Retry-After is relative to `nowMs`. */
export function classifyResponse(response: HttpResponse, count: number, nowMs: number): SendResult {
  const { status } = response
  if (status === 202) return taken(response, count)
  const problem = problemOf(response)
  if (status === 400 && problem?.type === 'urn:pertoken:problem:bad-event') return rejectedEvents(problem, count)
  if (status === 413) {
    if (count > 1) return { kind: 'too-large' }
    if (problem !== null) return { kind: 'rejected', rejected: [{ index: 0, message: detailOf(problem, response) }] }
  }
  const retryAfterMs = retryAfterOf(response.headers['retry-after'], nowMs)
  const message = `Answered ${status}: ${explain(response, problem)}`
  const mayPass = status >= 500 || status === 408 || status === 425 || status === 429
  return { kind: 'failed', message, retryAfterMs, needsOperator: !mayPass }
}

function taken(response: HttpResponse, count: number): SendResult {
  const accepted = (jsonOf(response.body) as { accepted?: unknown } | null)?.accepted
  if (accepted === count) return { kind: 'taken' }
  const message = `Answered 202 without having taken all ${count} events: check that the address is a pertoken's`
  return { kind: 'failed', message, retryAfterMs: null, needsOperator: true }
}

/** The events that `errors` names, by a path that begins with their index; a response names at most a hundred. */
function rejectedEvents(problem: Problem, count: number): SendResult {
  const byIndex = new Map<number, string>()
  for (const issue of Array.isArray(problem.errors) ? problem.errors : []) {
    const { path, message } = (issue ?? {}) as { path?: unknown; message?: unknown }
    const match = typeof path === 'string' ? /^\/(\d{1,9})(\/.*)?$/.exec(path) : null
    const index = Number(match?.[1] ?? Number.NaN)
    if (!(index < count) || byIndex.has(index)) continue
    byIndex.set(index, `${match![2] ?? 'event'}: ${String(message)}`.slice(0, MAX_QUOTED))
  }
  if (byIndex.size > 0) {
    return { kind: 'rejected', rejected: [...byIndex].map(([index, message]) => ({ index, message })) }
  }
  // None is named: halving the batch finds it.
  if (count > 1) return { kind: 'too-large' }
  return { kind: 'rejected', rejected: [{ index: 0, message: String(problem.detail).slice(0, MAX_QUOTED) }] }
}

function explain(response: HttpResponse, problem: Problem | null): string {
  const { status, headers } = response
  if (status >= 300 && status < 400) {
    const target = JSON.stringify(String(headers['location'] ?? 'nowhere').slice(0, MAX_QUOTED))
    return `redirects are not followed (to ${target}): give the address itself in --to`
  }
  const detail = problem === null ? '' : ` (${detailOf(problem, response)})`
  if (status === 401) return `the token is missing, wrong or no longer valid: check API_TOKEN or --token-file${detail}`
  if (status === 403) return `not allowed: it needs a token of scope ingest in API_TOKEN or --token-file${detail}`
  if (status === 407) return 'the proxy asks for a login: give it in HTTP_PROXY, http://NAME:PASSWORD@HOST:PORT'
  if (problem !== null) return detailOf(problem, response)
  if (status === 429 || status === 503) return 'it asks to come again later'
  return status >= 500 ? 'the server has a problem' : 'not what a pertoken answers, check the address in --to'
}

function detailOf(problem: Problem, { status }: HttpResponse): string {
  return typeof problem.detail === 'string' ? problem.detail.slice(0, MAX_QUOTED) : `problem ${status}`
}

/** The problem document of a pertoken; null when the response is from another server. */
function problemOf({ headers, body }: HttpResponse): Problem | null {
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

/** Retry-After (seconds or an HTTP date) in milliseconds; null when absent or unreadable. */
function retryAfterOf(header: string | string[] | undefined, nowMs: number): number | null {
  if (typeof header !== 'string') return null
  if (/^\d{1,9}$/.test(header.trim())) return Number(header) * 1000
  const atMs = Date.parse(header)
  return Number.isNaN(atMs) ? null : Math.max(0, atMs - nowMs)
}
