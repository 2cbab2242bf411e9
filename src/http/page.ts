// The page at `/`: three static files of page/, read once. No inline script or style and nothing from elsewhere, so
// that its content security policy can forbid both; all figures come from the public API.

import { readFileSync } from 'node:fs'
import type { FastifyInstance } from 'fastify'
import type { HttpDependencies } from './dependencies.ts'

const PAGE_CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const FILES = [
  { url: '/', file: 'index.html', type: 'text/html; charset=utf-8' },
  { url: '/page.js', file: 'page.js', type: 'text/javascript; charset=utf-8' },
  { url: '/page.css', file: 'page.css', type: 'text/css; charset=utf-8' },
]

export function addPage(app: FastifyInstance, { basePath = '' }: Pick<HttpDependencies, 'basePath'>): void {
  for (const { url, file, type } of FILES) {
    const text = readFileSync(new URL(`./page/${file}`, import.meta.url), 'utf8')
    // Its links are relative, which is wrong for a browser at the base path without a slash behind it.
    const body = basePath === '' ? text : text.replaceAll(/\b(href|src)="\.\//g, `$1="${basePath}/`)
    app.get(url, { schema: { hide: true }, config: { scope: 'open' } }, (_request, reply) =>
      reply.header('content-security-policy', PAGE_CSP).header('cache-control', 'no-cache').type(type).send(body),
    )
  }
}
