// The proxy's faults, each seen from both of its ends: a fault test that runs over a proxy which does nothing proves
// nothing.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { after, before, beforeEach, test } from 'node:test'
import { createTopic, listOffsets } from './kafka/kafka-admin.ts'
import { untilAnswered } from './managed-server.ts'
import { kafkaForTests, uniqueName } from './servers-for-tests.ts'
import { startProxy, type TcpProxy } from './tcp-proxy.ts'

let proxy: TcpProxy
let received = ''
/** Answers each chunk with the same in capitals. */
const upper = createServer((socket) => {
  socket.on('error', () => {})
  socket.on('data', (chunk) => {
    received += chunk
    socket.write(chunk.toString().toUpperCase())
  })
})

const kafka = await kafkaForTests({ owned: true, proxied: true })

before(async () => {
  upper.listen(0, '127.0.0.1')
  await once(upper, 'listening')
  proxy = await startProxy({ targetPort: (upper.address() as { port: number }).port })
})
beforeEach(() => {
  received = ''
})
after(async () => {
  await proxy.close()
  upper.close()
})

test('bytes go through in both directions and the end of one goes through as well', async () => {
  const client = await open()
  assert.equal(await exchange(client, 'abc'), 'ABC')
  client.end()
  await once(client, 'close')
  await untilAnswered(async () => assert.equal(proxy.connections, 0), 5_000)
})

test('a cut resets connections and refuses new ones until it is resumed', async () => {
  const client = await open()
  await exchange(client, 'abc')
  proxy.cut()
  await reset(client)
  await reset(connect(proxy.port, '127.0.0.1'))
  proxy.resume()
  assert.equal(await exchange(await open(), 'again'), 'AGAIN')
  proxy.cut()
  proxy.resume()
})

test('while it is held nothing arrives and no connection ends, and afterwards all of it arrives', async () => {
  const client = await open()
  proxy.hold()
  const answer = exchange(client, 'abc')
  const first = await Promise.race([answer, new Promise((resolve) => setTimeout(resolve, 100, 'nothing'))])
  assert.deepEqual([first, received, client.destroyed], ['nothing', '', false])
  proxy.resume()
  assert.equal(await answer, 'ABC')
  client.destroy()
})

test('a dropped reply is a request that arrived and an answer that did not', async () => {
  const client = await open()
  proxy.dropReplies((reply) => reply.toString() === 'LOST')
  assert.equal(await exchange(client, 'kept'), 'KEPT')
  client.write('lost')
  await reset(client)
  assert.deepEqual([received, proxy.repliesDropped], ['keptlost', 1])
  proxy.dropReplies(0)
})

test('delay and bandwidth make an exchange take as long as they say', async () => {
  const client = await open()
  proxy.delayMs = 50
  assert.ok((await timed(() => exchange(client, 'a'))) >= 95)
  proxy.delayMs = 0
  proxy.bytesPerSecond = 1_000
  assert.ok((await timed(() => exchange(client, 'a'.repeat(50)))) >= 95)
  proxy.bytesPerSecond = Number.POSITIVE_INFINITY
  client.destroy()
})

test('a Kafka client that bootstraps through its proxy stays behind it', { skip: kafka.skip }, async () => {
  const { bootstrap, proxiedBootstrap, proxy: between } = kafka.server!
  const topic = uniqueName('proxied')
  await createTopic(proxiedBootstrap!, topic, { partitions: 2 })
  between!.cut()
  await assert.rejects(listOffsets(proxiedBootstrap!, topic))
  assert.equal((await listOffsets(bootstrap, topic)).length, 2, 'the test still reaches the broker directly')
  between!.resume()
  assert.equal((await listOffsets(proxiedBootstrap!, topic)).length, 2)
})

async function open(): Promise<Socket> {
  const client = connect(proxy.port, '127.0.0.1')
  // A reset that a test brings about counts only where the test waits for it.
  client.on('error', () => {})
  await once(client, 'connect')
  return client
}

async function exchange(client: Socket, text: string): Promise<string> {
  let answer = ''
  client.write(text)
  while (answer.length < text.length) answer += (await once(client, 'data'))[0]
  return answer
}

async function reset(client: Socket): Promise<void> {
  const [error] = (await once(client, 'error', { signal: AbortSignal.timeout(5_000) })) as [NodeJS.ErrnoException]
  assert.equal(error.code, 'ECONNRESET')
}

async function timed(use: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now()
  await use()
  return performance.now() - startedMs
}
