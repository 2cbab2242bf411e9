// Serving below a path of a reverse proxy, BASE_PATH: requests are taken with the path and without it, so that it does
// not matter whether the proxy strips it, and links that must be absolute carry it. No header of a request has a say in
// this (X-Forwarded-Prefix): any client could send one.

import type { IncomingMessage } from 'node:http'
import type { FastifyInstance } from 'fastify'

/** First parts of our own paths. Below one of them it could not be seen whether a proxy has stripped the base path. */
export const OWN_SEGMENTS: readonly string[] = [
  'api',
  'docs',
  'gpu',
  'health',
  'livez',
  'metrics',
  'openapi.json',
  'page.css',
  'page.js',
  'readyz',
  'schemas',
]

/** For Fastify's rewriteUrl: the URL of a request without the base path, '' for none. */
export function withoutBasePath(basePath: string): (request: Pick<IncomingMessage, 'url'>) => string {
  return ({ url = '/' }) => {
    if (basePath === '' || !url.startsWith(basePath)) return url
    const rest = url.slice(basePath.length)
    if (rest === '' || rest.startsWith('?')) return `/${rest}`
    return rest.startsWith('/') ? rest : url
  }
}

/** Puts the base path before redirects within this server. */
export function prefixRedirects(app: FastifyInstance, basePath: string): void {
  if (basePath === '') return
  app.addHook('onSend', async (_request, reply) => {
    const location = reply.getHeader('location')
    if (typeof location === 'string' && /^\/(?!\/)/.test(location)) reply.header('location', basePath + location)
  })
}
