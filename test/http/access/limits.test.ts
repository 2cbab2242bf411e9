// The server on a real socket: what it does with requests that are none, with callers that go away, and with a close in
// the middle of an answer.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import type { FastifyInstance } from 'fastify'
import { goodToken } from '../../bad-records.ts'
import { NOW_MS, openServer, replacing } from '../fixture.ts'

async function listen(app: FastifyInstance): Promise<number> {
  await app.listen({ host: '127.0.0.1', port: 0 })
  return (app.server.address() as AddressInfo).port
}

/** Sends text as it is and answers all that comes back. */
async function raw(t: TestContext, port: number, request: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  t.after(() => socket.destroy())
  socket.end(request)
  return text(socket)
}

test('requests that are not HTTP, or too much of it, get a problem and the connection ends', async (t) => {
  const { app } = await openServer(t)
  const port = await listen(app)
  const cases: [string, string, number][] = [
    ['garbage', 'what is this\r\n\r\n', 400],
    ['headers of 20 KB', `GET /health HTTP/1.1\r\nhost: localhost\r\nx: ${'x'.repeat(20_000)}\r\n\r\n`, 431],
    [
      'two lengths',
      'POST /api/v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n',
      400,
    ],
    ['no Host', 'POST /api/v1/events HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}', 403],
  ]
  for (const [name, request, status] of cases) {
    const answer = await raw(t, port, request)
    assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `), `${name}: ${answer}`)
    assert.match(answer, /content-type: application\/problem\+json/i, name)
    const [, body = ''] = answer.split('\r\n\r\n')
    assert.equal(JSON.parse(body).status, status, name)
  }
})

test('every limit of the socket is set', async (t) => {
  const { app } = await openServer(t)
  const { server } = app
  const { headersTimeout, requestTimeout, keepAliveTimeout, timeout, maxConnections, maxRequestsPerSocket } = server
  assert.deepEqual(
    { headersTimeout, requestTimeout, keepAliveTimeout, timeout, maxConnections, maxRequestsPerSocket },
    {
      headersTimeout: 10_000,
      requestTimeout: 30_000,
      keepAliveTimeout: 5_000,
      timeout: 60_000,
      maxConnections: 1024,
      maxRequestsPerSocket: 1000,
    },
  )
})

test('a caller that goes away in the middle of its body gives its place back', async (t) => {
  const { app, appended } = await openServer(t)
  const port = await listen(app)
  for (let i = 0; i < 40; i++) {
    const socket = connect(port, '127.0.0.1')
    await once(socket, 'connect')
    const begun = once(app.server, 'request')
    socket.write('POST /api/v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n')
    socket.write('content-length: 1000\r\n\r\n{"ts":')
    const [, response] = await begun
    const over = once(response, 'close')
    socket.destroy()
    await over
  }
  const url = `http://localhost:${port}/api/v1/events`
  const body = JSON.stringify(goodToken(NOW_MS))
  const answer = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
  assert.equal(answer.status, 202, await answer.text())
  assert.equal(appended.length, 1)
})

test('close waits for the answer that is on its way', async (t) => {
  const confirm = Promise.withResolvers<void>()
  const asked = Promise.withResolvers<void>()
  const append = () => {
    asked.resolve()
    return confirm.promise
  }
  const { app } = await openServer(t, ({ log }) => ({ log: replacing(log, { append }) }))
  const port = await listen(app)
  const headers = { 'content-type': 'application/json' }
  const request = httpRequest({ port, host: '127.0.0.1', method: 'POST', path: '/api/v1/events', headers })
  request.end(JSON.stringify(goodToken(NOW_MS)))
  const answered = once(request, 'response')
  await asked.promise
  const closed = app.close()
  confirm.resolve()
  const [response] = await answered
  assert.equal(response.statusCode, 202)
  assert.deepEqual(JSON.parse(await text(response)), { accepted: 1 })
  await closed
})
