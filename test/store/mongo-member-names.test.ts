// A replica set that names its members otherwise than MONGO_URL: the driver goes on to those names, and where they lead
// nowhere the error says so with remedies. The server is a stand-in that only introduces itself: a real set would have
// to reach itself under the name that does not exist.

import assert from 'node:assert/strict'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { BSON, MongoServerSelectionError } from 'mongodb'
import { loadConfig } from '../../src/cli/config.ts'
import { checkStore } from '../../src/cli/doctor/store-findings.ts'
import { StoreError } from '../../src/store/event-store.ts'
import { storeErrorOf } from '../../src/store/mongo/errors.ts'
import { MongoStore } from '../../src/store/mongo/mongo-store.ts'

const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
const OP_QUERY = 2004
const access = { authSource: null, tls: false, wasConnected: false }

/** Replies to every message with this document, as a server of MongoDB does. */
async function startStandIn(t: TestContext, reply: () => object): Promise<string> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    let received = Buffer.alloc(0)
    socket.on('error', () => {})
    socket.on('data', (bytes: Buffer) => {
      received = Buffer.concat([received, bytes])
      while (received.length >= 16 && received.length >= received.readInt32LE(0)) {
        const length = received.readInt32LE(0)
        socket.write(replyTo(received.subarray(0, length), reply()))
        received = received.subarray(length)
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** An OP_REPLY to an OP_QUERY, an OP_MSG to an OP_MSG. */
function replyTo(message: Buffer, document: object): Buffer {
  const isQuery = message.readInt32LE(12) === OP_QUERY
  const body = Buffer.from(BSON.serialize(document))
  const before = Buffer.alloc(isQuery ? 36 : 21)
  before.writeInt32LE(before.length + body.length, 0)
  before.writeInt32LE(message.readInt32LE(4), 8)
  before.writeInt32LE(isQuery ? 1 : 2013, 12)
  if (isQuery) before.writeInt32LE(1, 32)
  return Buffer.concat([before, body])
}

const primary = (names: string[]) => ({
  ok: 1,
  helloOk: true,
  isWritablePrimary: true,
  ismaster: true,
  setName: 'rs0',
  setVersion: 1,
  hosts: names,
  primary: names[0],
  me: names[0],
  minWireVersion: 0,
  maxWireVersion: 21,
  maxBsonObjectSize: 16_777_216,
  maxMessageSizeBytes: 48_000_000,
  maxWriteBatchSize: 100_000,
})

async function findingOf(t: TestContext, names: string[]): Promise<{ message: string; at: string }> {
  const at = await startStandIn(t, () => primary(names))
  const url = `mongodb://${at}/ca0?replicaSet=rs0&serverSelectionTimeoutMS=1500`
  assert.deepEqual(loadConfig({ env: { MONGO_URL: url }, envFile: '', flags: {} }).problems, [])
  const store = new MongoStore({ url, log: quiet })
  t.after(() => store.close())
  const findings = await checkStore(store)
  assert.deepEqual(
    findings.map(({ part, ok }) => [part, ok]),
    [['store', false]],
  )
  return { message: findings[0]!.message, at }
}

test('one member under another name: the name, what to do, and directConnection', { timeout: 30_000 }, async (t) => {
  const { message, at } = await findingOf(t, ['mongo1.invalid:27017'])
  assert.match(message, /no server to write to among mongo1\.invalid:27017 \(not reachable/)
  assert.ok(message.includes(`the replica set "rs0" behind ${at} names its members otherwise than MONGO_URL`), message)
  assert.match(message, /DNS, \/etc\/hosts\), or change them with rs\.reconfig\(\), or, .*directConnection=true/)
  assert.doesNotMatch(message, /check MONGO_URL and that it runs|\n/)
})

test('several members under other names: no directConnection, which would bind to one', {
  timeout: 30_000,
}, async (t) => {
  const { message } = await findingOf(t, ['mongo1.invalid:27017', 'mongo2.invalid:27017'])
  assert.match(message, /otherwise than MONGO_URL, mongo1\.invalid:27017, mongo2\.invalid:27017, and clients/)
  assert.doesNotMatch(message, /directConnection/)
})

const unknown = (address: string) => [address, { address, type: 'Unknown', error: new Error('no') }] as const
const selectionError = (addresses: string[]) =>
  new MongoServerSelectionError('timed out', { servers: new Map(addresses.map(unknown)), setName: 'rs0' } as never)

test('servers that MONGO_URL names, and those that DNS names, are only reported as unreachable', () => {
  const textOf = (at: string, addresses: string[]) => {
    const error = storeErrorOf(selectionError(addresses), 'read', { at, access })
    assert.ok(error instanceof StoreError)
    return error.message
  }
  assert.doesNotMatch(textOf('a:1,b:2', ['a:1', 'b:2']), /names its members/)
  assert.doesNotMatch(textOf('A:1', ['a:1']), /names its members/)
  assert.doesNotMatch(textOf('cluster.example', ['a.example:27017']), /names its members/)
  assert.match(textOf('a:1', ['a:1', 'b:2']), /otherwise than MONGO_URL, b:2, and clients/)
})
