// Below a path of a reverse proxy: page, API page, description and redirects name the path, requests are served with it
// and without it, and no header of a request changes any of this.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadConfig } from '../../src/cli/config.ts'
import { OWN_SEGMENTS, withoutBasePath } from '../../src/http/base-path.ts'
import { openServer } from './fixture.ts'

/** What a page refers to. */
const targetsOf = (html: string) => [...html.matchAll(/\b(?:src|href)="([^"]+)"/g)].map(([, target]) => target!)
const isLink = (target: string) => !target.startsWith('data:')

test('without a base path all links of the page are relative', async (t) => {
  const { app } = await openServer(t)
  const targets = targetsOf((await app.inject('/')).body).filter(isLink)
  assert.ok(targets.length > 8)
  for (const target of targets) {
    assert.match(target, /^\.\//)
    const { statusCode } = await app.inject(target.slice(1))
    assert.equal(statusCode, target.includes('/metrics') ? 200 : statusCode)
    assert.notEqual(statusCode, 404, target)
  }
  // The API page, visited with a slash at its end, as the page links to it.
  for (const target of targetsOf((await app.inject('/docs/')).body)) assert.match(target, /^\.\/static\//)
  assert.deepEqual((await app.inject('/openapi.json')).json().servers, [{ url: '/' }])
  assert.doesNotMatch((await app.inject('/page.js')).body, /['"`]\/(?:api|health)/)
})

test('with a base path every link leads below it, with and without a slash, stripped by the proxy or not', async (t) => {
  const { app } = await openServer(t, () => ({ basePath: '/tools/pertoken' }))
  for (const url of ['/', '/tools/pertoken', '/tools/pertoken/', '/tools/pertoken?x=1']) {
    const targets = targetsOf((await app.inject(url)).body).filter(isLink)
    assert.ok(targets.length > 8, url)
    for (const target of targets) assert.match(target, /^\/tools\/pertoken\//, url)
    for (const target of targets) assert.notEqual((await app.inject(target)).statusCode, 404, target)
  }
  for (const target of targetsOf((await app.inject('/tools/pertoken/docs')).body)) {
    assert.match(target, /^\/tools\/pertoken\/docs\/static\//)
    assert.equal((await app.inject(target)).statusCode, 200, target)
  }
  assert.deepEqual((await app.inject('/tools/pertoken/openapi.json')).json().servers, [{ url: '/tools/pertoken' }])
  const redirect = await app.inject('/tools/pertoken/docs/static/index.html')
  assert.deepEqual([redirect.statusCode, redirect.headers.location], [302, '/tools/pertoken/docs/'])
  const [own, below] = [await app.inject('/api/v1/live'), await app.inject('/tools/pertoken/api/v1/live?')]
  assert.deepEqual([own.statusCode, below.statusCode, own.body], [200, 200, below.body])
  const unknown = await app.inject('/tools/pertoken/nothing')
  assert.equal(unknown.statusCode, 404)
  assert.match(unknown.json().detail, /: \/tools\/pertoken\/openapi\.json lists/)
  assert.equal((await app.inject('/tools/pertokens/health')).statusCode, 404)
})

test('X-Forwarded-Prefix has no say', async (t) => {
  const { app } = await openServer(t)
  const headers = { 'x-forwarded-prefix': '/evil', 'x-forwarded-host': 'evil.example' }
  for (const url of ['/', '/docs/', '/openapi.json'])
    assert.doesNotMatch((await app.inject({ url, headers })).body, /evil/, url)
})

test('the base path is taken off only where it ends with a segment', () => {
  const strip = (url: string) => withoutBasePath('/a/b')({ url })
  assert.equal(strip('/a/b'), '/')
  assert.equal(strip('/a/b/'), '/')
  assert.equal(strip('/a/b?q=1'), '/?q=1')
  assert.equal(strip('/a/b/a/b/c'), '/a/b/c')
  for (const url of ['/a/bc', '/a', '/', '/x/a/b', '*']) assert.equal(strip(url), url)
  assert.equal(withoutBasePath('')({ url: '/x' }), '/x')
})

test('BASE_PATH: which ones there are', async (t) => {
  const problemsOf = (path: string) => loadConfig({ env: { BASE_PATH: path }, envFile: '', flags: {} }).problems
  for (const right of ['/pertoken', '/a/b-c/d_e.f~g', '/apis']) assert.deepEqual(problemsOf(right), [], right)
  for (const wrong of [
    'pertoken',
    '/',
    '/x/',
    '//x',
    '/x//y',
    '/..',
    '/x/../y',
    '/a b',
    '/a"b',
    '/ä',
    '/x?y',
    'http://h/x',
  ])
    assert.match(problemsOf(wrong)[0] ?? '', /^BASE_PATH is ".*": expected a path like \/pertoken/, wrong)
  const { app } = await openServer(t)
  const paths = Object.keys((await app.inject('/openapi.json')).json().paths as object)
  const first = new Set([...paths, '/page.js', '/page.css', '/docs'].map((path) => path.split('/')[1]!))
  assert.deepEqual([...first].filter((segment) => segment !== '').sort(), [...OWN_SEGMENTS].sort())
  for (const segment of OWN_SEGMENTS) assert.equal(problemsOf(`/${segment}/x`).length, 1, segment)
})
