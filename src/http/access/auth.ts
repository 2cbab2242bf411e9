// Who may do what, decided for every request before a byte of its body is read. Each route declares its scope; one without
// a scope is a bug, and the server does not start. Without API tokens reads are open and writes are for programs on this
// machine (loopback.ts). With tokens:
//
//   request → probe? → answered
//           → good token? yes: its allowance, else that of the address → spent: 429
//           → open route? → answered
//           → no good token → 401 (429 where the address keeps trying)
//           → the token lacks the scope → 403
//           → a write with the Origin of another site → 403
//
// A request counts against one caller only, its token or else its address: strangers at an address cannot use up what
// token holders behind the same address (a proxy, a company's network) may do.

import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Logger } from '../../runtime/logger.ts'
import type { WatchedFile } from '../../runtime/watched-file.ts'
import { DOCS_PATH } from '../open-api.ts'
import { HttpProblem } from '../problem.ts'
import { type ApiToken, allows, findToken, type Scope } from './api-tokens.ts'
import { originProblem, requireLoopback } from './loopback.ts'
import { type Allowance, type Bucket, RateLimiter, type RateLimits } from './rate-limit.ts'

/**
 * What a route asks for. `probe`: nothing, and it is not limited, for an orchestrator's question must always be answered
 * and costs no more than a refusal. `open`: nothing; it holds nothing of this deployment.
 */
export type RouteScope = 'probe' | 'open' | Scope

declare module 'fastify' {
  interface FastifyContextConfig {
    scope?: RouteScope
  }
  interface FastifyRequest {
    /** What the caller may do; null where nothing limits it. */
    allowance: Allowance | null
  }
  interface FastifyInstance {
    /** Scope of every route, by `METHOD path`. */
    routeScopes: ReadonlyMap<string, RouteScope>
  }
}

/** Why requests were refused, as counted; stable, for metrics. */
export const REFUSALS = [
  'missing_token',
  'unknown_token',
  'expired_token',
  'missing_scope',
  'foreign_origin',
  'too_many_requests',
  'too_many_events',
  'too_many_failures',
] as const
type RefusalReason = (typeof REFUSALS)[number]

interface Refused {
  reason: RefusalReason
  problem: HttpProblem
}

/** How often refusals are told in the log, milliseconds: a flood must not become a flood of lines. */
const TELL_MS = 60_000

/** What of the server's parts is needed here. */
interface AuthParts {
  access?: Access
  now: () => number
}

export interface AccessOptions {
  tokens: WatchedFile<readonly ApiToken[]>
  limits: RateLimits
  logger: Logger
}

/** The API tokens that are in force, the limits on who uses them, and how many requests were refused. */
export class Access {
  readonly tokens: WatchedFile<readonly ApiToken[]>
  readonly limiter: RateLimiter
  readonly refused: Record<RefusalReason, number>
  readonly #logger: Logger
  #toldMs = Number.NEGATIVE_INFINITY

  constructor({ tokens, limits, logger }: AccessOptions) {
    this.tokens = tokens
    this.limiter = new RateLimiter(limits)
    this.refused = Object.fromEntries(REFUSALS.map((reason) => [reason, 0])) as Record<RefusalReason, number>
    this.#logger = logger
  }

  /** Counts a refusal, and tells of it now and then. */
  count(reason: RefusalReason, address: string, nowMs: number): void {
    this.refused[reason]++
    if (nowMs - this.#toldMs < TELL_MS) return
    this.#toldMs = nowMs
    const counts = Object.fromEntries(Object.entries(this.refused).filter(([, count]) => count > 0))
    this.#logger.warn(
      { reason, address, refused: counts },
      'Refused a request; others are counted and told once a minute',
    )
  }
}

/** Adds the check to all routes; before any route, for it learns of them as they are added. */
export function addAuth(app: FastifyInstance, { access, now }: AuthParts): void {
  const scopes = new Map<string, RouteScope>()
  app.decorate('routeScopes', scopes)
  app.decorateRequest('allowance', null)
  app.addHook('onRoute', (route) => {
    // These routes come from a plugin, which knows nothing of scopes.
    if (route.url === DOCS_PATH || route.url.startsWith(`${DOCS_PATH}/`)) route.config = { scope: 'open' }
    const scope = route.config?.scope
    if (scope === undefined) throw new Error(`Route ${String(route.method)} ${route.url} declares no scope`)
    for (const method of [route.method].flat()) scopes.set(`${method} ${route.url}`, scope)
  })
  app.addHook('onRequest', async (request) => {
    const scope = request.is404 ? 'open' : request.routeOptions.config.scope!
    if (access === undefined) {
      if (isWrite(scope)) requireLoopback(request)
    } else if (scope !== 'probe') admit(request, { scope, access, nowMs: now() })
  })
}

/** Throws a 429 problem while the caller has posted more events than it may. */
export function requireEventAllowance(request: FastifyRequest, { access, now }: AuthParts): void {
  if (access === undefined || request.allowance === null) return
  const nowMs = now()
  requireRoom(request.allowance.events, { request, access, nowMs }, 'too_many_events')
}

function admit(request: FastifyRequest, at: { scope: RouteScope; access: Access; nowMs: number }): void {
  const { scope, access, nowMs } = at
  const presented = presentedToken(request)
  const found = presented === null ? null : findToken(access.tokens.value, presented)
  const isExpired = found !== null && found.expiresMs !== null && found.expiresMs <= nowMs
  const token = isExpired ? null : found
  const { limiter } = access
  const allowance = token === null ? limiter.ofAddress(addressOf(request), nowMs) : limiter.ofToken(token)
  requireRoom(allowance.requests, { request, access, nowMs }, 'too_many_requests')
  allowance.requests.spend(1, nowMs)
  request.allowance = allowance
  if (scope === 'probe' || scope === 'open') return
  if (token === null && presented !== null) {
    requireRoom(allowance.failures, { request, access, nowMs }, 'too_many_failures')
    allowance.failures.spend(1, nowMs)
  }
  const refusal =
    token !== null ? refusalOf(request, token, scope) : withoutToken(presented, isExpired ? found : null, scope)
  if (refusal === null) return
  access.count(refusal.reason, addressOf(request), nowMs)
  throw refusal.problem
}

/** What is answered to a request with no token, a wrong one, or an expired one. */
function withoutToken(presented: string | null, expired: ApiToken | null, scope: Scope): Refused {
  const because = (reason: RefusalReason, why: string) => {
    const detail = `${why}: send Authorization: Bearer TOKEN with a token of scope ${scope}; pertoken tokens add makes one`
    // RFC 6750, section 3: no error code where nothing was presented.
    const challenge = presented === null ? '' : ', error="invalid_token"'
    const headers = { 'www-authenticate': `Bearer realm="pertoken"${challenge}` }
    return { reason, problem: new HttpProblem(401, 'unauthorized', { detail, headers }) }
  }
  if (presented === null) return because('missing_token', 'The request has no API token')
  if (expired === null) return because('unknown_token', 'The API token is wrong or was removed')
  return because('expired_token', `The API token expired at ${new Date(expired.expiresMs!).toISOString()}`)
}

/** Why a request with a good token is refused all the same; null when it is not. */
function refusalOf(request: FastifyRequest, token: ApiToken, scope: Scope): Refused | null {
  if (!allows(token, scope)) {
    const { name, scopes } = token
    const detail = `The API token "${name}" is for ${scopes.join(', ')}: use one of scope ${scope}; pertoken tokens add makes one`
    const headers = { 'www-authenticate': `Bearer realm="pertoken", error="insufficient_scope", scope="${scope}"` }
    return { reason: 'missing_scope', problem: new HttpProblem(403, 'missing-scope', { detail, headers }) }
  }
  const problem = isWrite(scope) ? originProblem(request) : null
  return problem === null ? null : { reason: 'foreign_origin', problem }
}

/** Throws a 429 problem unless a bucket has something left. */
function requireRoom(
  bucket: Bucket,
  { request, access, nowMs }: { request: FastifyRequest; access: Access; nowMs: number },
  reason: keyof typeof TOO_MANY,
): void {
  const waitMs = bucket.waitMs(nowMs)
  if (waitMs === 0) return
  access.count(reason, addressOf(request), nowMs)
  const seconds = String(Math.ceil(waitMs / 1000))
  const detail = `${TOO_MANY[reason]}: wait ${seconds} s and try again`
  throw new HttpProblem(429, 'too-many-requests', { detail, headers: { 'retry-after': seconds } })
}

const TOO_MANY = {
  too_many_requests: 'More requests a second than one caller may send (HTTP_RATE_REQUESTS)',
  too_many_events: 'More events a second than one caller may post (HTTP_RATE_EVENTS)',
  too_many_failures: 'Too many wrong API tokens from this address',
}

function isWrite(scope: RouteScope): boolean {
  return scope === 'ingest' || scope === 'admin'
}

/** The token of `Authorization: Bearer TOKEN`, whose scheme is written in any case; null when there is none. */
function presentedToken({ headers }: FastifyRequest): string | null {
  const match = /^bearer +(\S+) *$/i.exec(headers.authorization ?? '')
  return match === null ? null : match[1]!
}

function addressOf({ socket }: FastifyRequest): string {
  return socket.remoteAddress ?? 'unknown'
}
