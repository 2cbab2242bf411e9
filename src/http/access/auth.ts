// Authentication and authorization, decided for every request before a byte of its body is read. Each route declares
// its scope; a route without one is a bug, and the server does not start. Without API tokens reads are open and writes
// are for programs on this machine (loopback.ts). With tokens:
//
//   request → probe? → allowed
//           → valid token? yes: its allowance, else that of the address → spent: 429
//           → open route? → allowed
//           → no valid token → 401
//           → the token lacks the scope → 403
//           → a write with the Origin of another site → 403
//
// A request counts against one caller only, its token or else its address: requests without a token cannot use up the
// allowance of token holders behind the same address (a proxy, a company's network).

import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Logger } from '../../runtime/logger.ts'
import type { WatchedFile } from '../../runtime/watched-file.ts'
import { DOCS_PATH } from '../open-api.ts'
import { HttpProblem } from '../problem.ts'
import { type ApiToken, allows, findToken, type Scope } from './api-tokens.ts'
import { originProblem, requireLoopback } from './loopback.ts'
import { type Allowance, RateLimiter, type RateLimits, type TokenBucket } from './rate-limit.ts'

/**
 * What a route requires. `probe`: nothing, and it is not limited, since an orchestrator's probe must always be served
 * and costs no more than a denial. `open`: nothing; it shows nothing of this deployment.
 */
export type RouteScope = 'probe' | 'open' | Scope

declare module 'fastify' {
  interface FastifyContextConfig {
    scope?: RouteScope
  }
  interface FastifyRequest {
    /** The caller's limits; null where it has none. */
    allowance: Allowance | null
  }
  interface FastifyInstance {
    /** Scope of every route, by `METHOD path`. */
    routeScopes: ReadonlyMap<string, RouteScope>
  }
}

/** Why requests are denied, as counted; stable, since they are labels of a metric. */
export const DENIAL_REASONS = [
  'missing_token',
  'unknown_token',
  'expired_token',
  'missing_scope',
  'foreign_origin',
  'too_many_requests',
  'too_many_events',
] as const
type DenialReason = (typeof DENIAL_REASONS)[number]

interface Denial {
  reason: DenialReason
  problem: HttpProblem
}

/** How often denials are logged, milliseconds: a flood of requests must not become a flood of lines. */
const LOG_INTERVAL_MS = 60_000

/** The dependencies of the server that are needed here. */
interface AuthDependencies {
  access?: Access
  now: () => number
}

export interface AccessOptions {
  tokens: WatchedFile<readonly ApiToken[]>
  limits: RateLimits
  logger: Logger
}

/** The effective API tokens, the limits of callers, and how many requests were denied. */
export class Access {
  readonly tokens: WatchedFile<readonly ApiToken[]>
  readonly limiter: RateLimiter
  readonly denied: Record<DenialReason, number>
  readonly #logger: Logger
  #lastLoggedMs = Number.NEGATIVE_INFINITY

  constructor({ tokens, limits, logger }: AccessOptions) {
    this.tokens = tokens
    this.limiter = new RateLimiter(limits)
    this.denied = Object.fromEntries(DENIAL_REASONS.map((reason) => [reason, 0])) as Record<DenialReason, number>
    this.#logger = logger
  }

  /** Counts a denial, and logs one now and then. */
  count(reason: DenialReason, address: string, nowMs: number): void {
    this.denied[reason]++
    if (nowMs - this.#lastLoggedMs < LOG_INTERVAL_MS) return
    this.#lastLoggedMs = nowMs
    const counts = Object.fromEntries(Object.entries(this.denied).filter(([, count]) => count > 0))
    this.#logger.warn(
      // The field's published name.
      { reason, address, refused: counts },
      'Denied a request; others are counted and logged at most once a minute',
    )
  }
}

/** Adds the check to all routes; before any route, because it sees routes as they are added. */
export function addAuth(app: FastifyInstance, { access, now }: AuthDependencies): void {
  const scopes = new Map<string, RouteScope>()
  app.decorate('routeScopes', scopes)
  app.decorateRequest('allowance', null)
  app.addHook('onRoute', (route) => {
    // These routes come from a plugin, which does not declare scopes.
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

/** Throws a 429 problem while the caller's allowance of events is overdrawn. */
export function requireEventAllowance(request: FastifyRequest, { access, now }: AuthDependencies): void {
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
  const denial =
    token !== null ? denialOf(request, token, scope) : withoutToken(presented, isExpired ? found : null, scope)
  if (denial === null) return
  access.count(denial.reason, addressOf(request), nowMs)
  throw denial.problem
}

/** The denial of a request with no token, an unknown one, or an expired one. */
function withoutToken(presented: string | null, expired: ApiToken | null, scope: Scope): Denial {
  const because = (reason: DenialReason, why: string) => {
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

/** The denial of a request with a valid token; null when it is allowed. */
function denialOf(request: FastifyRequest, token: ApiToken, scope: Scope): Denial | null {
  if (!allows(token, scope)) {
    const { name, scopes } = token
    const detail = `The API token "${name}" is for ${scopes.join(', ')}: use one of scope ${scope}; pertoken tokens add makes one`
    const headers = { 'www-authenticate': `Bearer realm="pertoken", error="insufficient_scope", scope="${scope}"` }
    return { reason: 'missing_scope', problem: new HttpProblem(403, 'missing-scope', { detail, headers }) }
  }
  const problem = isWrite(scope) ? originProblem(request) : null
  return problem === null ? null : { reason: 'foreign_origin', problem }
}

/** Throws a 429 problem unless the bucket has something left. */
function requireRoom(
  bucket: TokenBucket,
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
