// The page at `/`: three static files of page/, read once. No inline script or style and nothing from elsewhere, so
// that its content security policy can forbid both; all figures come from the public API.

import { readFileSync } from 'node:fs'
import type { FastifyInstance } from 'fastify'

const PAGE_CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const FILES = [
  { url: '/', file: 'index.html', type: 'text/html; charset=utf-8' },
  { url: '/page.js', file: 'page.js', type: 'text/javascript; charset=utf-8' },
  { url: '/page.css', file: 'page.css', type: 'text/css; charset=utf-8' },
]

export function addPage(app: FastifyInstance): void {
  for (const { url, file, type } of FILES) {
    const body = readFileSync(new URL(`./page/${file}`, import.meta.url))
    app.get(url, { schema: { hide: true }, config: { scope: 'open' } }, (_request, reply) =>
      reply.header('content-security-policy', PAGE_CSP).header('cache-control', 'no-cache').type(type).send(body),
    )
  }
}
