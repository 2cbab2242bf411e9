// Errors as RFC 9457 problem details, the only form of error response of this server: `type` and `title` are stable,
// `detail` names the remedy, `errors` lists every single issue and where it is. Internals are not exposed: a 500 names
// only the request id under which the error is logged.

import { STATUS_CODES } from 'node:http'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { LogError } from '../log/event-log.ts'
import type { Logger } from '../runtime/logger.ts'
import { StoreError } from '../store/event-store.ts'

/** One issue: `path` is a JSON pointer into the body, or the name of a query parameter. */
export interface ProblemIssue {
  path: string
  reason: string
  message: string
}

/** Last part of a problem's `type`, with its title. */
const TITLES = {
  'bad-request': 'Request cannot be read',
  'bad-parameter': 'Parameters are wrong',
  'bad-event': 'Events are wrong',
  'bad-price-book': 'Price book is wrong',
  unauthorized: 'An API token is needed',
  'missing-scope': 'The API token does not allow this',
  'too-many-requests': 'Too much at once',
  forbidden: 'Not allowed from here',
  'not-found': 'Not found',
  'method-not-allowed': 'Method not allowed',
  'too-large': 'Request is too large',
  'unsupported-media-type': 'Media type is not taken',
  'log-unavailable': 'The log did not take it',
  'store-unavailable': 'The store does not answer',
  overloaded: 'Too many requests at once',
  timeout: 'The answer took too long',
  internal: 'Internal error',
} as const

export type ProblemCode = keyof typeof TITLES

/** When a request that failed for a transient reason is worth repeating, seconds. */
const RETRY_AFTER_S = 5
/** Most issues that a response lists; the rest is counted. */
const MAX_ISSUES = 100

export const PROBLEM_TYPE = 'application/problem+json'

/** An error response; thrown by routes, sent by the error handler. */
export class HttpProblem extends Error {
  readonly status: number
  readonly code: ProblemCode
  readonly errors: readonly ProblemIssue[]
  readonly headers: Readonly<Record<string, string>>

  constructor(
    status: number,
    code: ProblemCode,
    options: { detail: string; errors?: readonly ProblemIssue[]; headers?: Record<string, string> },
  ) {
    super(options.detail)
    this.name = 'HttpProblem'
    this.status = status
    this.code = code
    this.errors = options.errors ?? []
    this.headers = options.headers ?? {}
  }

  /** A 503: the same request may succeed later. */
  static later(code: ProblemCode, detail: string): HttpProblem {
    return new HttpProblem(503, code, { detail, headers: { 'retry-after': String(RETRY_AFTER_S) } })
  }

  /** The body. */
  toJSON(): Record<string, unknown> {
    const { status, code, errors, message } = this
    const body: Record<string, unknown> = { type: `urn:pertoken:problem:${code}`, title: TITLES[code], status }
    body['detail'] = message
    if (errors.length > 0) body['errors'] = errors.slice(0, MAX_ISSUES)
    if (errors.length > MAX_ISSUES) body['errors_omitted'] = errors.length - MAX_ISSUES
    return body
  }
}

/** The server's error handler: turns whatever was thrown into a problem, and logs what is unexpected. */
export function handleError(logger: Logger) {
  return (error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    const problem = problemOf(error)
    if (problem !== null) return sendProblem(reply, problem)
    const fields = { err: error, request_id: request.id, method: request.method, route: request.routeOptions.url }
    logger.error(fields, 'Cannot answer a request: unexpected error')
    const detail = `The request failed for a reason that is in the server's log under request id ${request.id}`
    return sendProblem(reply, new HttpProblem(500, 'internal', { detail }))
  }
}

export function sendProblem(reply: FastifyReply, problem: HttpProblem): FastifyReply {
  return reply.code(problem.status).headers(problem.headers).type(PROBLEM_TYPE).send(JSON.stringify(problem))
}

/** A whole HTTP/1.1 response as text, for input that never became a request (parse errors, time-outs while reading). */
export function rawProblem(error: { code?: string | undefined }): string {
  const [status, code, detail]: [number, ProblemCode, string] =
    error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
      ? [408, 'timeout', 'The request did not arrive in time: send it whole']
      : error.code === 'HPE_HEADER_OVERFLOW'
        ? [431, 'too-large', 'The headers are longer than 16 KiB: send fewer']
        : [400, 'bad-request', 'The request is not valid HTTP/1.1']
  const body = JSON.stringify(new HttpProblem(status, code, { detail }))
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\ncontent-type: ${PROBLEM_TYPE}\r\n`
  return `${head}content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`
}

/** The problem of an error; null for internal errors, which are not exposed to clients. */
function problemOf(error: unknown): HttpProblem | null {
  if (error instanceof HttpProblem) return error
  if (error instanceof StoreError && error.retriable) {
    return HttpProblem.later('store-unavailable', 'The store does not answer: try again; /health says what is wrong')
  }
  if (error instanceof LogError && error.retriable) {
    return HttpProblem.later('log-unavailable', 'The log does not answer: try again; /health says what is wrong')
  }
  const { code, statusCode } = error as Partial<FastifyError>
  if (typeof code !== 'string' || !code.startsWith('FST_')) return null
  if (code === 'FST_ERR_HANDLER_TIMEOUT') {
    return HttpProblem.later('timeout', 'The answer took more than 30 s: try again, or ask for less')
  }
  if (statusCode === 413) {
    return new HttpProblem(413, 'too-large', { detail: 'The body is longer than this route takes: send less at once' })
  }
  if (statusCode === 415) return unsupportedMediaType('The content type is not taken here')
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new HttpProblem(statusCode, 'bad-request', { detail: (error as Error).message })
  }
  return null
}

export function unsupportedMediaType(detail: string): HttpProblem {
  return new HttpProblem(415, 'unsupported-media-type', { detail })
}
