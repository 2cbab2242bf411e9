// The HTTP sink against real servers on loopback, over TLS too: the form of what it sends, and every way for the other
// side to be odd. No redirect is followed, no certificate taken on trust, no token ever in a message.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import { type HttpSinkOptions, httpSink } from '../../src/agent/http-sink.ts'
import type { SendResult } from '../../src/agent/sink.ts'
import type { SpoolRecord } from '../../src/agent/spool.ts'
import { proxyEnvFor } from '../../src/cli/wiring/proxy-env.ts'
import { startService } from '../flows/harness.ts'
import { makeAuthority } from '../servers/certificates.ts'
import { temporaryDirectory } from './agent-fixture.ts'

const SECRET = 'pt_very-secret'
const never = new AbortController().signal

const records = (count: number, bytes = 0): SpoolRecord[] =>
  Array.from({ length: count }, (_, offset) => ({
    offset,
    key: null,
    value: Buffer.from(JSON.stringify({ n: offset, pad: 'x'.repeat(bytes) })),
  }))

async function listen(t: TestContext, server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return (server.address() as AddressInfo).port
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}

function accept(response: ServerResponse, count: number): void {
  response.writeHead(202, { 'content-type': 'application/json' }).end(JSON.stringify({ accepted: count }))
}

function open(t: TestContext, url: string, options: Partial<HttpSinkOptions> = {}) {
  const sink = httpSink({ url: new URL(url), token: () => SECRET, ...options })
  t.after(() => sink.close())
  return sink
}

/** What became of three records at a server that answers so. */
async function sendTo(
  t: TestContext,
  handler: RequestListener,
  options: Partial<HttpSinkOptions> = {},
): Promise<SendResult> {
  const port = await listen(t, createServer(handler))
  return open(t, `http://127.0.0.1:${port}`, options).send('gpu', records(3), never)
}

function messageOf(answer: SendResult): string {
  assert.equal(answer.kind, 'failed')
  const { message } = answer as SendResult & { kind: 'failed' }
  assert.doesNotMatch(message, new RegExp(SECRET))
  return message
}

test('it posts an array to the right collection, with the token, over one connection', async (t) => {
  const seen: { url: string | undefined; authorization: string | undefined; body: string; port: number | undefined }[] =
    []
  const server = createServer(async (request, response) => {
    const body = await bodyOf(request)
    const { url, headers, method } = request
    assert.deepEqual([method, headers['content-type']], ['POST', 'application/json'])
    seen.push({ url, authorization: headers.authorization, body, port: request.socket.remotePort })
    accept(response, (JSON.parse(body) as unknown[]).length)
  })
  const port = await listen(t, server)
  let token: string | null = SECRET
  const sink = open(t, `http://127.0.0.1:${port}/behind/a/proxy/`, { token: () => token })
  assert.deepEqual(await sink.send('gpu', records(2), never), { kind: 'taken' })
  token = null
  assert.deepEqual(await sink.send('token', records(1), never), { kind: 'taken' })
  assert.deepEqual(
    seen.map(({ url, authorization }) => [url, authorization]),
    [
      ['/behind/a/proxy/api/v1/events?collection=gpu_metrics', `Bearer ${SECRET}`],
      ['/behind/a/proxy/api/v1/events?collection=token_usage', undefined],
    ],
  )
  assert.deepEqual(JSON.parse(seen[0]!.body), [
    { n: 0, pad: '' },
    { n: 1, pad: '' },
  ])
  assert.equal(seen[0]!.port, seen[1]!.port)
  assert.equal(sink.description, `http://127.0.0.1:${port}`, 'no path, no token')
  const whole = open(t, `http://127.0.0.1:${port}/api/v1/events`)
  await whole.send('gpu', records(1), never)
  assert.equal(seen[2]!.url, '/api/v1/events?collection=gpu_metrics')
})

test('a pertoken that finds events wrong names them, and takes the rest', async (t) => {
  const service = await (await startService(t, ['up'], { DATA_DIR: temporaryDirectory(t) })).ready()
  const sink = open(t, `http://127.0.0.1:${service.port}`, { token: () => null })
  const event = (gpuIndex: number, ts: number): SpoolRecord => ({
    offset: gpuIndex,
    key: null,
    value: Buffer.from(JSON.stringify({ ts, host: 'box', gpu_index: gpuIndex, event_id: `e-${gpuIndex}` })),
  })
  const ahead = Date.now() + 2 * 3_600_000
  const batch = [event(0, Date.now()), event(1, ahead), event(2, Date.now()), event(3, ahead)]
  const answer = await sink.send('gpu', batch, never)
  assert.equal(answer.kind, 'rejected')
  const { rejected: refused } = answer as SendResult & { kind: 'rejected' }
  assert.deepEqual(
    refused.map(({ index, message }) => [index, /^\/ts: .*one hour ahead/.test(message)]),
    [
      [1, true],
      [3, true],
    ],
  )
  assert.deepEqual(await sink.send('gpu', [batch[0]!, batch[2]!], never), { kind: 'taken' })
  assert.equal((await service.settled(2)).outcomes.stored, 2)
})

test('a body over a megabyte is not even sent', async (t) => {
  const sink = open(t, 'http://127.0.0.1:1')
  assert.deepEqual(await sink.send('gpu', records(20, 100_000), never), { kind: 'too-large' })
})

test('a redirect is not followed: the token goes nowhere else', async (t) => {
  let visits = 0
  const elsewhere = await listen(
    t,
    createServer((_request, response) => {
      visits++
      accept(response, 3)
    }),
  )
  for (const status of [301, 302, 307, 308]) {
    const answer = await sendTo(t, (_request, response) =>
      response.writeHead(status, { location: `http://127.0.0.1:${elsewhere}/` }).end(),
    )
    assert.match(messageOf(answer), /redirects are not followed.*give the address itself/)
  }
  assert.equal(visits, 0)
})

test('what breaks on the way is said and is to be sent again', async (t) => {
  const passing: [string, RequestListener, RegExp, Partial<HttpSinkOptions>?][] = [
    [
      'a connection that is cut',
      (request) => request.socket.destroy(),
      /Cannot reach http:\/\/127.*(socket hang up|ECONNRESET)/,
    ],
    ['an answer that never comes', () => {}, /no answer within 0.2 s/, { timeoutMs: 200 }],
    [
      'an answer that stops half way',
      (_request, response) => void response.writeHead(202).write('{'),
      /no answer within 0.2 s/,
      { timeoutMs: 200 },
    ],
    [
      'an answer cut half way',
      (_request, response) =>
        void response.writeHead(202, { 'content-length': 99 }).write('{', () => response.destroy()),
      /aborted|hang up|ECONNRESET/,
    ],
    ['a 503', (_request, response) => void response.writeHead(503).end(`the token was ${SECRET}`), /Answered 503/],
  ]
  for (const [name, handler, message, options] of passing) {
    const answer = await sendTo(t, handler, options)
    assert.match(messageOf(answer), message, name)
    assert.equal((answer as { needsOperator: boolean }).needsOperator, false, name)
  }
  assert.match(messageOf(await open(t, 'http://127.0.0.1:1').send('gpu', records(1), never)), /ECONNREFUSED/)
  const problem = JSON.stringify({ type: 'urn:pertoken:problem:unauthorized', detail: `no token ${SECRET}` })
  const quoting = await sendTo(
    t,
    (_request, response) => void response.writeHead(401, { 'content-type': 'application/problem+json' }).end(problem),
  )
  assert.match(messageOf(quoting), /no token \*\*\*/)
})

test('an answer without end is cut off', async (t) => {
  const answer = await sendTo(t, (_request, response) => {
    response.writeHead(200)
    const more = () => {
      while (!response.destroyed && response.write('x'.repeat(65_536)));
    }
    response.on('drain', more).on('error', () => {})
    more()
  })
  assert.match(messageOf(answer), /Answered 200: not what a pertoken answers/)
})

test('telling it to stop ends a request that hangs', async (t) => {
  const stop = new AbortController()
  const port = await listen(
    t,
    createServer(() => stop.abort()),
  )
  const startedMs = performance.now()
  const answer = await open(t, `http://127.0.0.1:${port}`).send('gpu', records(1), stop.signal)
  assert.equal(answer.kind, 'failed')
  assert.ok(performance.now() - startedMs < 5000)
})

test('certificates are verified: by the given authority only, for the right name, and TLS where https is said', async (t) => {
  const authority = await makeAuthority(temporaryDirectory(t), 'agent')
  const ca = readFileSync(authority.ca, 'utf8')
  const serve = async ({ cert, key }: { cert: string; key: string }) => {
    const files = { cert: readFileSync(cert), key: readFileSync(key) }
    const answer: RequestListener = async (request, response) =>
      accept(response, (JSON.parse(await bodyOf(request)) as unknown[]).length)
    return listen(t, createTlsServer(files, answer))
  }
  const port = await serve(await authority.sign('good', { hosts: ['localhost'] }))
  const expired = await serve(await authority.sign('old', { hosts: ['localhost'], expired: true }))
  const send = (url: string, options: Partial<HttpSinkOptions> = {}) =>
    open(t, url, options).send('gpu', records(2), never)
  assert.deepEqual(await send(`https://localhost:${port}`, { ca }), { kind: 'taken' })
  const plain = await listen(
    t,
    createServer((_request, response) => response.end()),
  )
  for (const [url, options, message] of [
    [`https://localhost:${port}`, {}, /(ISSUER|SELF_SIGNED|VERIFY).*--ca FILE/],
    [`https://localhost:${expired}`, { ca }, /CERT_HAS_EXPIRED/],
    [`https://127.0.0.1:${port}`, { ca }, /ERR_TLS_CERT_ALTNAME_INVALID/],
    [`https://127.0.0.1:${plain}`, { ca }, /no TLS is spoken there/],
  ] as const) {
    const answer = await send(url, options)
    assert.match(messageOf(answer), message)
    assert.equal((answer as { needsOperator: boolean }).needsOperator, true, url)
  }
  assert.equal((await send(`http://localhost:${port}`)).kind, 'failed', 'plain HTTP to a TLS port')
})

test('through a proxy: https is a tunnel, http is passed on, NO_PROXY and this machine go directly', async (t) => {
  const authority = await makeAuthority(temporaryDirectory(t), 'proxied')
  const ca = readFileSync(authority.ca, 'utf8')
  const { cert, key } = await authority.sign('good', { hosts: ['pertoken.test'] })
  const answer: RequestListener = async (request, response) =>
    accept(response, (JSON.parse(await bodyOf(request)) as unknown[]).length)
  const tlsPort = await listen(t, createTlsServer({ cert: readFileSync(cert), key: readFileSync(key) }, answer))
  const seen: string[] = []
  let refusal = ''
  const proxy = createServer(async (request, response) => {
    seen.push(`${request.method} ${request.url}`)
    accept(response, (JSON.parse(await bodyOf(request)) as unknown[]).length)
  })
  proxy.on('connect', (request, socket) => {
    seen.push(`${request.method} ${request.url} ${request.headers['proxy-authorization'] ?? ''}`.trim())
    if (refusal !== '') return socket.end(`HTTP/1.1 ${refusal}\r\n\r\n`)
    const upstream = connect(tlsPort, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      upstream.pipe(socket).pipe(upstream)
    })
    for (const end of [upstream, socket]) end.on('error', () => end.destroy())
    t.after(() => upstream.destroy())
  })
  const address = `user:hidden@127.0.0.1:${await listen(t, proxy)}`
  const send = (url: string, env: Record<string, string>) =>
    open(t, url, { ca, proxyEnv: proxyEnvFor(new URL(url), env) }).send('gpu', records(2), never)
  const login = `Basic ${Buffer.from('user:hidden').toString('base64')}`

  assert.deepEqual(await send('https://pertoken.test', { HTTPS_PROXY: address }), { kind: 'taken' })
  assert.deepEqual(await send('http://pertoken.test', { http_proxy: `http://${address}` }), { kind: 'taken' })
  assert.deepEqual(seen, [
    `CONNECT pertoken.test:443 ${login}`,
    'POST http://pertoken.test/api/v1/events?collection=gpu_metrics',
  ])
  const direct = await send('https://pertoken.test', { HTTPS_PROXY: address, NO_PROXY: 'pertoken.test' })
  assert.match(messageOf(direct), /HTTPS_PROXY is set, NO_PROXY names the hosts/)
  assert.equal(seen.length, 2)
  assert.equal(proxyEnvFor(new URL('http://localhost:8080'), { HTTP_PROXY: address }), undefined)
  assert.equal(proxyEnvFor(new URL('https://pertoken.test'), { HTTP_PROXY: address, HTTPS_PROXY: '' }), undefined)
  assert.throws(() => proxyEnvFor(new URL('https://x.test'), { HTTPS_PROXY: 'socks5://user:hidden@p:1' }), {
    message: /^HTTPS_PROXY cannot be used: expected an address like http:\/\/HOST:3128/,
  })
  for (const [status, isOperators] of [
    ['407 Proxy Authentication Required', true],
    ['502 Bad Gateway', false],
  ] as const) {
    refusal = status
    const refused = await send('https://pertoken.test', { HTTPS_PROXY: address })
    assert.match(messageOf(refused), new RegExp(status.slice(0, 3)))
    assert.doesNotMatch(messageOf(refused), /hidden/)
    assert.equal((refused as { needsOperator: boolean }).needsOperator, isOperators, status)
  }
})
