// Requests in flight are bounded, by connection and in all, and answers that nothing reads do not stay.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import { limitInFlight } from '../../src/http/access/in-flight.ts'
import { handleError } from '../../src/http/problem.ts'
import { openServer } from './fixture.ts'

const PROBE = 'GET /livez HTTP/1.1\r\nHost: a\r\n\r\n'
const REQUEST = 'GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n'

async function opened(app: { server: { address(): unknown } }): Promise<Socket> {
  const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1')
  await once(socket, 'connect')
  return socket
}

test('a connection with many pipelined requests whose answers nobody reads is closed, others are served', async (t) => {
  const { app } = await openServer(t)
  await app.listen({ host: '127.0.0.1', port: 0 })
  const before = process.memoryUsage().rss
  const sockets = await Promise.all(Array.from({ length: 40 }, () => opened(app)))
  await Promise.all(
    sockets.map(async (socket) => {
      const closed = once(
        socket.on('error', () => {}),
        'close',
      )
      socket.pause()
      socket.write(REQUEST.repeat(900))
      socket.resume()
      await closed
    }),
  )
  const { port } = app.server.address() as AddressInfo
  assert.equal((await fetch(`http://127.0.0.1:${port}/livez`)).status, 200)
  assert.ok(process.memoryUsage().rss - before < 300e6, 'answers wait in memory')
})

test('a few pipelined requests of one connection are all answered, in order', async (t) => {
  const { app } = await openServer(t)
  await app.listen({ host: '127.0.0.1', port: 0 })
  const socket = await opened(app)
  let text = ''
  socket.on('data', (piece) => {
    text += String(piece)
  })
  socket.write(`${PROBE.repeat(5)}${PROBE.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')}`)
  await once(socket, 'close')
  assert.equal(text.split('HTTP/1.1 200 OK').length - 1, 6)
})

test('a connection that is kept alive leaves nothing behind with each of its requests', async (t) => {
  const { app } = await openServer(t)
  await app.listen({ host: '127.0.0.1', port: 0 })
  const accepted: Socket[] = []
  app.server.on('connection', (socket) => accepted.push(socket))
  const socket = await opened(app)
  for (let i = 0; i < 30; i++) {
    socket.write(PROBE)
    await once(socket, 'data')
  }
  assert.equal(accepted.length, 1)
  assert.ok(accepted[0]!.listenerCount('close') < 10, `${accepted[0]!.listenerCount('close')} listeners`)
  socket.destroy()
})

test('beyond 512 requests in flight others are refused for now, and probes are served', async (t) => {
  const app = Fastify({ logger: false })
  app.setErrorHandler(handleError({ debug() {}, info() {}, warn() {}, error() {} }))
  limitInFlight(app)
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  let waiting = 0
  const { promise: full, resolve: isFull } = Promise.withResolvers<void>()
  app.get('/slow', { config: { scope: 'read' } }, async () => {
    if (++waiting === 512) isFull()
    await released
    return 'slow'
  })
  app.get('/livez', { config: { scope: 'probe' } }, () => 'ok')
  t.after(() => app.close())
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  const slow = Array.from({ length: 512 }, () => fetch(`${url}/slow`))
  await full
  const refused = await fetch(`${url}/slow`)
  assert.equal(refused.status, 503)
  assert.equal(refused.headers.get('retry-after'), '5')
  assert.equal(((await refused.json()) as { type: string }).type, 'urn:pertoken:problem:overloaded')
  assert.equal((await fetch(`${url}/livez`)).status, 200)
  release()
  assert.ok((await Promise.all(slow)).every(({ status }) => status === 200))
  assert.equal((await fetch(`${url}/slow`)).status, 200)
})

test('a connection that does not read its answer is closed, one that reads slowly gets it all', async (t) => {
  const app = Fastify({ logger: false })
  limitInFlight(app, 100)
  const piece = Buffer.alloc(100_000, 'x')
  app.get('/big', { config: { scope: 'read' } }, (_request, reply) => reply.send(Readable.from(Array(300).fill(piece))))
  t.after(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const stuck = await opened(app)
  const closed = once(
    stuck.on('error', () => {}),
    'close',
  )
  stuck.pause()
  stuck.write('GET /big HTTP/1.1\r\nHost: a\r\n\r\n')
  const slow = await opened(app)
  let received = 0
  slow.write('GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
  slow.on('data', (read) => {
    received += read.length
    slow.pause()
    setTimeout(() => slow.resume(), 2)
  })
  await once(slow, 'close')
  assert.ok(received > 30e6)
  // Only reading shows the client that its connection is gone.
  await untilClosed(app)
  stuck.resume()
  await closed
})

/** Resolves when the server has no connection left. */
async function untilClosed(app: {
  server: { getConnections(done: (error: Error | null, count: number) => void): void }
}) {
  const count = () => new Promise<number>((resolve) => app.server.getConnections((_error, open) => resolve(open)))
  while ((await count()) > 0) await sleep(20)
}
