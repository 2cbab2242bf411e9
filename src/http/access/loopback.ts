// Who may write while no API tokens are configured: only programs on this machine. The peer's address alone is not
// sufficient: a page in a browser on this machine can be made to post to localhost, also under a name that an
// attacker's DNS resolves to 127.0.0.1 (DNS rebinding: the Host header reveals it), and a reverse proxy on this machine
// makes every client look local (so any trace of a proxy denies the request). Content types are checked by the route: a
// form cannot send JSON without a preflight, which this server never grants.

import type { FastifyRequest } from 'fastify'
import { HttpProblem } from '../problem.ts'

const LOCAL_HOST = /^(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$/i
const LOOPBACK_ADDRESS = /^(::1|(::ffff:)?127\.\d{1,3}\.\d{1,3}\.\d{1,3})$/i
const PROXY_HEADERS = ['forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-real-ip', 'via']

/** Throws a 403 problem unless the request comes from a program on this machine. */
export function requireLoopback(request: Pick<FastifyRequest, 'headers' | 'socket'>): void {
  const { headers } = request
  const address = request.socket.remoteAddress ?? 'an unknown address'
  if (!LOOPBACK_ADDRESS.test(address)) {
    throw forbidden(`the request comes from ${address}: writes are taken from this machine only`)
  }
  const host = headers.host ?? ''
  if (!LOCAL_HOST.test(host)) {
    throw forbidden(`the Host header is ${quote(host)}: use localhost, 127.0.0.1 or [::1]`)
  }
  const proxy = PROXY_HEADERS.find((name) => headers[name] !== undefined)
  if (proxy !== undefined)
    throw forbidden(`the request came through a proxy (header ${quote(proxy)}): send it directly`)
  const problem = originProblem(request)
  if (problem !== null) throw problem
}

/** A 403 problem for requests by pages of other sites; null for programs, which send no Origin, and for own pages. */
export function originProblem({ headers }: Pick<FastifyRequest, 'headers'>): HttpProblem | null {
  const { origin, host = '' } = headers
  // Either scheme: a proxy in front of this server may terminate HTTPS.
  if (origin === undefined || /^https?:\/\/(.+)$/i.exec(origin)?.[1]?.toLowerCase() === host.toLowerCase()) return null
  return forbidden(`the Origin header is ${quote(origin)}: pages of other sites may not write`)
}

function forbidden(why: string): HttpProblem {
  return new HttpProblem(403, 'forbidden', { detail: `Cannot take writes here: ${why}` })
}

function quote(value: string): string {
  return JSON.stringify(value.slice(0, 80))
}
