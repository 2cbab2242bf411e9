// Pins what src/log/kafka matches on in the client library's errors (errors.ts, security-faults.ts,
// connection-tracker.ts, fetch-loop.ts): an upgrade that changes a text, a code or a shape fails here, without a
// broker, and names what to adapt. Each failure is provoked in the library itself by a server that misbehaves or speaks
// just enough of the protocol.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import type { ConnectionOptions } from 'node:tls'
import {
  Connection,
  connectionsConnectsChannel,
  errorCodes,
  metadataV12,
  ProtocolError,
  protocolErrors,
  Writer,
} from '@platformatic/kafka'
import { LogError } from '../../src/log/event-log.ts'
import { KafkaLog } from '../../src/log/kafka/kafka-log.ts'
import type { KafkaLogOptions } from '../../src/log/kafka/options.ts'

const log = { debug() {}, info() {}, warn() {}, error() {} }
const sasl = { mechanism: 'SCRAM-SHA-512', username: 'user', password: 'secret' } as const
const tls = () => ({})

const API_VERSIONS = 18
const METADATA = 3
const SASL_HANDSHAKE = 17
const SASL_AUTHENTICATE = 36

/** What the library throws, and what lies in it: `errors` and `cause`, outermost first. */
interface Failure {
  message: string
  code?: string
  apiId?: string
  canRetry?: boolean
  errors?: Failure[]
  cause?: Failure
  response?: { mechanisms?: string[] }
}

function chainOf(failure: Failure | undefined): Failure[] {
  if (failure === undefined) return []
  return [failure, ...(failure.errors ?? []).flatMap(chainOf), ...chainOf(failure.cause)]
}

/** Calls `accept` for each connection; resolves with the port. */
async function serve(accept: (socket: Socket) => void): Promise<{ port: number; close(): void }> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}))
    accept(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = () => {
    server.close()
    for (const socket of sockets) socket.destroy()
  }
  return { port: (server.address() as { port: number }).port, close }
}

/**
 * A broker that responds to each request with the bytes for its API key, and closes the connection where there are
 * none.
 */
function brokerOf(responses: Record<number, (correlationId: number) => Writer>): (socket: Socket) => void {
  return (socket) =>
    socket.on('data', (request: Buffer) => {
      const response = responses[request.readInt16BE(4)]?.(request.readInt32BE(8))
      if (response) socket.write(response.prependLength().buffer)
      else socket.destroy()
    })
}

const apiVersions = (correlationId: number): Writer =>
  Writer.create()
    .appendInt32(correlationId)
    .appendInt16(0)
    .appendArray(
      [
        [METADATA, 12],
        [API_VERSIONS, 3],
      ] as const,
      (w, [key, version]) => w.appendInt16(key).appendInt16(0).appendInt16(version),
    )
    .appendInt32(0)
    .appendTaggedFields()

const apiVersionsV1 = (correlationId: number): Writer =>
  Writer.create()
    .appendInt32(correlationId)
    .appendInt16(0)
    .appendArray([SASL_AUTHENTICATE], (w, key) => w.appendInt16(key).appendInt16(0).appendInt16(2), false, false)
    .appendInt32(0)

const saslHandshake = (errorCode: number) => (correlationId: number) =>
  Writer.create()
    .appendInt32(correlationId)
    .appendInt16(errorCode)
    .appendArray(['PLAIN', 'GSSAPI'], (w, mechanism) => w.appendString(mechanism, false), false, false)

const saslAuthenticate = (correlationId: number): Writer =>
  Writer.create()
    .appendInt32(correlationId)
    .appendTaggedFields()
    .appendInt16(58)
    .appendString('Authentication failed')
    .appendBytes(Buffer.alloc(0))
    .appendInt64(0n)
    .appendTaggedFields()

/** One topic, whose error is UNKNOWN_TOPIC_OR_PARTITION. */
const metadata = (correlationId: number): Writer =>
  Writer.create()
    .appendInt32(correlationId)
    .appendTaggedFields()
    .appendInt32(0)
    .appendArray([], (w) => w)
    .appendString(null)
    .appendInt32(-1)
    .appendArray(['missing'], (w, name) =>
      w
        .appendInt16(3)
        .appendString(name)
        .appendUUID(null)
        .appendBoolean(false)
        .appendArray([], (partition) => partition)
        .appendInt32(0),
    )
    .appendTaggedFields()

const TLS_ALERT = Buffer.from([0x15, 0x03, 0x03, 0, 2, 2, 0x46])
const refusesTls = (socket: Socket) => socket.on('data', () => socket.destroy())
const respondsWith = (bytes: Buffer | string) => (socket: Socket) => socket.on('data', () => socket.end(bytes))

/** The error of a log's action at a broker, and the library's failures in it. */
async function failureOf(
  accept: (socket: Socket) => void,
  options: Partial<KafkaLogOptions>,
  action: (kafka: KafkaLog) => Promise<unknown>,
): Promise<{ error: LogError; chain: Failure[] }> {
  const server = await serve(accept)
  const kafka = new KafkaLog({ bootstrap: `127.0.0.1:${server.port}`, log, ...options })
  try {
    const error = await action(kafka).then(
      () => assert.fail('It did not fail'),
      (cause: unknown) => cause,
    )
    assert.ok(error instanceof LogError, String(error))
    return { error, chain: chainOf(error.cause as Failure) }
  } finally {
    await kafka.close()
    server.close()
  }
}

/**
 * What a server does, the options of the log, what must be somewhere in the library's error, and how it is explained.
 */
const FAILURES: [string, (socket: Socket) => void, Partial<KafkaLogOptions>, Partial<Failure> | RegExp, RegExp][] = [
  [
    'a broker that closes',
    (socket) => socket.on('data', () => socket.end()),
    {},
    { message: 'Connection closed' },
    /may want a login/,
  ],
  [
    'TLS without ours',
    respondsWith(TLS_ALERT),
    {},
    { message: 'Broker requires TLS.', code: 'PLT_KFK_USER' },
    /speaks TLS on this port/,
  ],
  ['a port without TLS', refusesTls, { tls }, /^TLS handshake failed\./, /seems not to speak TLS/],
  [
    'HTTP instead of TLS',
    respondsWith('HTTP/1.1 400 Bad Request\r\n\r\n'),
    { tls },
    /^Connection to 127\.0\.0\.1:\d+ failed/,
    /seems not to speak TLS/,
  ],
  [
    'a mechanism that the broker lacks',
    brokerOf({ [API_VERSIONS]: apiVersionsV1, [SASL_HANDSHAKE]: saslHandshake(33) }),
    { sasl },
    { apiId: 'UNSUPPORTED_SASL_MECHANISM' },
    /one that it has \(PLAIN, GSSAPI\)/,
  ],
  [
    'a password that is wrong',
    brokerOf({
      [API_VERSIONS]: apiVersionsV1,
      [SASL_HANDSHAKE]: saslHandshake(0),
      [SASL_AUTHENTICATE]: saslAuthenticate,
    }),
    { sasl },
    { apiId: 'SASL_AUTHENTICATION_FAILED' },
    /refuses the user or the password/,
  ],
  [
    'a login that fails for another reason',
    brokerOf({ [API_VERSIONS]: apiVersionsV1, [SASL_HANDSHAKE]: saslHandshake(-1) }),
    { sasl },
    { code: 'PLT_KFK_AUTHENTICATION' },
    /the login at broker .* failed/,
  ],
]

test('failures of connections and logins have the texts and codes that are matched', async () => {
  for (const [name, accept, options, expected, explained] of FAILURES) {
    const { error, chain } = await failureOf(accept, options, (kafka) => kafka.ping())
    const found = chain.some((failure) =>
      expected instanceof RegExp
        ? expected.test(failure.message)
        : Object.entries(expected).every(([field, value]) => failure[field as keyof Failure] === value),
    )
    assert.ok(found, `${name}: ${chain.map(({ code, message }) => `${code} ${message}`).join('; ')}`)
    assert.match(error.message, explained, name)
  }
})

test('a topic that does not exist is a user’s error that begins with "Unknown topic", and retriable to us', async () => {
  const broker = brokerOf({ [API_VERSIONS]: apiVersions, [METADATA]: metadata })
  const { error, chain } = await failureOf(broker, {}, (kafka) => kafka.append('missing', [{ key: null, value: null }]))
  const failure = chain.find(({ code }) => code === 'PLT_KFK_USER')
  assert.deepEqual([failure?.message, error.retriable], ['Unknown topic missing.', true])
})

test('a port that refuses is named by the failed connection, and its cause kept', async () => {
  const server = await serve(() => {})
  server.close()
  const connection = new Connection('test')
  await assert.rejects(
    async () => connection.connect('127.0.0.1', server.port),
    (error: Failure) => {
      assert.equal(error.message, `Connection to 127.0.0.1:${server.port} failed.`)
      return error.cause?.code === 'ECONNREFUSED'
    },
  )
})

test('a request without a response fails with "timed out"', async () => {
  const server = await serve(() => {})
  const connection = new Connection('test', { requestTimeout: 50 })
  await connection.connect('127.0.0.1', server.port)
  await assert.rejects(metadataV12.api.async(connection, [], false, false), /timed out/)
  await connection.close()
  server.close()
})

test('a connection is announced with its context and host before its socket opens, and reads TLS options after that', async () => {
  const server = await serve((socket) => socket.destroy())
  const context = {}
  const order: string[] = []
  const onStart = (message: unknown) => {
    const { connection, host, port } = message as { connection: Connection; host: string; port: number }
    if (connection.context !== context) return
    order.push('announced')
    assert.deepEqual([host, port, connection.socket], ['127.0.0.1', server.port, undefined])
  }
  const options = {
    get servername() {
      order.push('options read')
      return undefined
    },
  }
  connectionsConnectsChannel.start.subscribe(onStart)
  try {
    const connection = new Connection('test', { context, tls: options as ConnectionOptions })
    await assert.rejects(async () => connection.connect('127.0.0.1', server.port))
    assert.deepEqual(order, ['announced', 'options read'])
  } finally {
    connectionsConnectsChannel.start.unsubscribe(onStart)
    server.close()
  }
})

test('codes and names of errors exist', () => {
  for (const code of [
    'PLT_KFK_AUTHENTICATION',
    'PLT_KFK_MULTIPLE',
    'PLT_KFK_RESPONSE',
    'PLT_KFK_UNSUPPORTED',
    'PLT_KFK_UNSUPPORTED_API',
    'PLT_KFK_USER',
  ] as const)
    assert.ok(errorCodes.includes(code), code)
  for (const apiId of [
    'BROKER_NOT_AVAILABLE',
    'CLUSTER_AUTHORIZATION_FAILED',
    'COORDINATOR_LOAD_IN_PROGRESS',
    'COORDINATOR_NOT_AVAILABLE',
    'GROUP_AUTHORIZATION_FAILED',
    'ILLEGAL_GENERATION',
    'ILLEGAL_SASL_STATE',
    'INCONSISTENT_GROUP_PROTOCOL',
    'INVALID_REPLICATION_FACTOR',
    'LEADER_NOT_AVAILABLE',
    'NOT_COORDINATOR',
    'TOPIC_ALREADY_EXISTS',
    'TOPIC_AUTHORIZATION_FAILED',
    'UNKNOWN_MEMBER_ID',
    'UNKNOWN_SERVER_ERROR',
    'UNKNOWN_TOPIC_OR_PARTITION',
  ]) {
    assert.ok(apiId in protocolErrors, apiId)
    assert.equal((new ProtocolError(apiId) as unknown as Failure).apiId, apiId)
  }
})
