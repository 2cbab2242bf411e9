// One page of metrics over HTTP: what is fetched, and each way in which a server can have none, slow ones included.

import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Server } from 'node:net'
import { createServer as createTcpServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import {
  type FetchPageOptions,
  fetchPage,
  type PageErrorCode,
  shownUrl,
} from '../../../src/agent/exposition/fetch-page.ts'
import { makeAuthority } from '../../servers/certificates.ts'

const PAGE = 'a{x="ö"} 1\n'

async function listen(t: TestContext, server: Server): Promise<number> {
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  t.after(() => {
    server.close()
    if ('closeAllConnections' in server) (server as { closeAllConnections(): void }).closeAllConnections()
  })
  return (server.address() as AddressInfo).port
}

async function serve(t: TestContext, handle: RequestListener, path = '/metrics'): Promise<URL> {
  return new URL(`http://127.0.0.1:${await listen(t, createServer(handle))}${path}`)
}

async function failure(url: URL, options: FetchPageOptions = {}): Promise<[PageErrorCode, string]> {
  const error = await fetchPage(url, options).then(
    () => assert.fail('a page came'),
    (reason) => reason,
  )
  assert.equal(error.name, 'PageError', String(error))
  return [error.code, error.message]
}

test('a page is fetched whole, as text', async (t) => {
  const requests: IncomingMessage[] = []
  const url = await serve(t, (request, response) => {
    requests.push(request)
    response.end(PAGE)
  })
  assert.equal(await fetchPage(url), PAGE)
  const { method, headers } = requests[0]!
  assert.deepEqual([method, headers['accept-encoding'], headers.authorization], ['GET', 'identity', undefined])
  assert.match(headers.accept!, /^text\/plain;version=0\.0\.4/)
})

test('gzip is read, and a small answer that unpacks to a large one is not', async (t) => {
  const url = await serve(t, ({ url: path }, response) => {
    response.setHeader('content-encoding', 'gzip')
    response.end(path === '/bomb' ? gzipSync(Buffer.alloc(4_000_000)) : gzipSync(PAGE))
  })
  assert.equal(await fetchPage(url), PAGE)
  assert.match(
    (await failure(new URL('/bomb', url), { maxBytes: 100_000 })).join(' '),
    /^too-large .* over 100000 bytes/,
  )
})

test('name and password of the address are sent as basic authentication, and no message has them', async (t) => {
  const seen: (string | undefined)[] = []
  const url = await serve(t, ({ headers }, response) => {
    seen.push(headers.authorization)
    response.writeHead(401).end()
  })
  url.username = 'me'
  url.password = 'p%40ss:w%25rd'
  url.search = '?key=hidden'
  const [code, message] = await failure(url)
  assert.deepEqual([code, seen[0]], ['status', `Basic ${Buffer.from('me:p@ss:w%rd').toString('base64')}`])
  assert.match(message, /^Cannot read http:\/\/127\.0\.0\.1:\d+\/metrics: answered 401, expected 200; give name/)
  assert.doesNotMatch(message, /p%40|p@ss|hidden|me:/)
  assert.equal(shownUrl(new URL('https://me:secret@box:9400/metrics?key=x')), 'https://box:9400/metrics')
})

test('each way to have no page has a name', async (t) => {
  const answers: Record<string, (response: ServerResponse) => void> = {
    '/moved': (response) => response.writeHead(302, { location: 'http://me:secret@elsewhere/metrics' }).end(),
    '/none': (response) => response.writeHead(404).end('no'),
    '/zstd': (response) => response.writeHead(200, { 'content-encoding': 'zstd' }).end('x'),
    '/broken-gzip': (response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end('not gzip'),
    '/cut-gzip': (response) =>
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(PAGE.repeat(100)).subarray(0, 30)),
    '/large': (response) => response.end(Buffer.alloc(200_000)),
    '/endless': (response) => {
      const write = () => {
        while (!response.destroyed && response.write(Buffer.alloc(65_536)));
        if (!response.destroyed) response.once('drain', write)
      }
      write()
    },
    '/cut': (response) => {
      response.writeHead(200, { 'content-length': 1000 })
      response.write(PAGE, () => response.destroy())
    },
    '/cut-chunk': (response) => {
      response.write(PAGE, () => response.destroy())
    },
  }
  const url = await serve(t, (request, response) => answers[request.url!]!(response))
  const rows: [path: string, code: PageErrorCode, message: RegExp][] = [
    ['/moved', 'redirect', /answered 302, to http:\/\/\*\*\*@elsewhere\/metrics; it is not followed/],
    ['/none', 'status', /answered 404, expected 200; metrics may be turned off/],
    ['/zstd', 'encoding', /encoded as "zstd", expected gzip/],
    ['/broken-gzip', 'encoding', /gzip is broken/],
    ['/cut-gzip', 'encoding', /gzip is broken/],
    ['/large', 'too-large', /over 100000 bytes/],
    ['/endless', 'too-large', /over 100000 bytes/],
    ['/cut', 'unreachable', /aborted/],
    ['/cut-chunk', 'unreachable', /aborted/],
  ]
  for (const [path, code, pattern] of rows) {
    const [found, message] = await failure(new URL(path, url), { maxBytes: 100_000 })
    assert.equal(found, code, `${path}: ${message}`)
    assert.match(message, pattern)
  }
})

test('a server that is silent, or sends a byte now and then, costs the time limit and no more', async (t) => {
  const url = await serve(t, (request, response) => {
    if (request.url === '/silent') return
    const drip = setInterval(() => response.write('a'), 5)
    response.once('close', () => clearInterval(drip))
  })
  for (const path of ['/silent', '/drip']) {
    const startMs = performance.now()
    const [code, message] = await failure(new URL(path, url), { timeoutMs: 150 })
    assert.deepEqual([code, /not whole within 0\.15 s/.test(message)], ['timeout', true], message)
    assert.ok(performance.now() - startMs < 5_000)
  }
})

test('what is not there, does not speak HTTP, or is no longer wanted', async (t) => {
  const closed = createServer()
  const port = await listen(t, closed)
  closed.close()
  assert.match((await failure(new URL(`http://127.0.0.1:${port}/`))).join(' '), /^unreachable .*ECONNREFUSED/)
  const garbage = createTcpServer((socket) => socket.end('SSH-2.0-x\r\n'))
  const at = `127.0.0.1:${await listen(t, garbage)}`
  assert.match((await failure(new URL(`http://${at}/`))).join(' '), /^unreachable .*Parse Error/)
  assert.match((await failure(new URL(`https://${at}/`))).join(' '), /^not-tls .*no TLS is spoken there/)
  assert.equal((await failure(new URL(`ftp://${at}/`)))[0], 'unreachable')
  const silent = await serve(t, () => {})
  const stop = new AbortController()
  const stopped = failure(silent, { signal: stop.signal })
  stop.abort()
  assert.equal((await stopped)[0], 'aborted')
  assert.equal((await failure(silent, { signal: stop.signal }))[0], 'aborted')
})

test('a certificate is verified: its authority may be given', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-page-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const authority = await makeAuthority(directory, 'own')
  const signed = await authority.sign('server', { hosts: ['localhost'] })
  const ca = readFileSync(authority.ca, 'utf8')
  const [cert, key] = [readFileSync(signed.cert), readFileSync(signed.key)]
  const server = createTlsServer({ cert, key }, (_request, response) => response.end(PAGE))
  const url = new URL(`https://localhost:${await listen(t, server)}/metrics`)
  assert.match((await failure(url)).join(' '), /^certificate .*its certificate is not trusted \(UNABLE_TO_VERIFY/)
  assert.equal(await fetchPage(url, { ca }), PAGE)
  url.hostname = '127.0.0.1'
  assert.match((await failure(url, { ca })).join(' '), /^certificate .*ERR_TLS_CERT_ALTNAME_INVALID/)
})
