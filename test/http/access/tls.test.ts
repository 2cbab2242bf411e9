// HTTPS with a certificate of the test's own: it is spoken, a changed certificate is taken over while connections live
// on, what cannot be used is refused, and plain HTTP at its port harms nobody.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, get, type RequestOptions } from 'node:https'
import { type AddressInfo, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { json } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { readCertificate } from '../../../src/http/access/certificate.ts'
import { WatchedFile } from '../../../src/runtime/watched-file.ts'
import { openServer } from '../fixture.ts'

interface Pair {
  cert: string
  key: string
}

/** A folder with two self-signed certificates for localhost and their keys. */
function makePairs(t: TestContext): { folder: string; first: Pair; second: Pair } {
  const folder = mkdtempSync(join(tmpdir(), 'pertoken-tls-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const make = (name: string): Pair => {
    const pair = { cert: join(folder, `${name}.crt`), key: join(folder, `${name}.key`) }
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
    const names = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1']
    const files = ['-keyout', pair.key, '-out', pair.cert]
    execFileSync('openssl', ['req', '-x509', ...curve, ...names, ...files, '-days', '2'], { stdio: 'ignore' })
    return pair
  }
  return { folder, first: make('first'), second: make('second') }
}

/** A server that listens with the certificate in `pair`. */
async function openTls(t: TestContext, pair: Pair) {
  const told: string[] = []
  const write = (_fields: object, message: string) => void told.push(message)
  const logger = { debug: write, info: write, warn: write, error: write }
  const read = () => readCertificate(pair.cert, pair.key)
  const paths = [pair.cert, pair.key]
  const certificate = new WatchedFile({ code: 'certificate', what: 'certificate and key', paths, read, logger })
  const fixture = await openServer(t, () => ({ certificate }))
  await fixture.app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = fixture.app.server.address() as AddressInfo
  return { ...fixture, port, certificate, told }
}

async function ask(port: number, ca: string, options: RequestOptions = {}): Promise<{ status: number; name: string }> {
  const request = get({ host: 'localhost', port, path: '/livez', ca: readFileSync(ca), agent: false, ...options })
  const [response] = await once(request, 'response')
  const { raw } = (response.socket as TLSSocket).getPeerCertificate()
  await json(response)
  return { status: response.statusCode, name: new X509Certificate(raw).subject }
}

/** Replaces a pair of files by another, as a renewal does. */
function replace(pair: Pair, by: Pair): void {
  for (const name of ['cert', 'key'] as const) {
    writeFileSync(`${pair[name]}.new`, readFileSync(by[name]))
    renameSync(`${pair[name]}.new`, pair[name])
  }
}

test('HTTPS is spoken, and a changed certificate is taken over without a restart', async (t) => {
  const { folder, first, second } = makePairs(t)
  const used = { cert: join(folder, 'used.crt'), key: join(folder, 'used.key') }
  replace(used, first)
  const { port } = await openTls(t, used)
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  t.after(() => agent.destroy())
  await assert.rejects(ask(port, second.cert), /self-signed certificate/)
  replace(used, second)
  const deadlineMs = Date.now() + 10_000
  let found: Awaited<ReturnType<typeof ask>> | null = null
  while (found === null) {
    assert.ok(Date.now() < deadlineMs, 'the new certificate is not in force')
    // A connection that is open goes on as it began.
    assert.deepEqual(await ask(port, first.cert, { agent }), { status: 200, name: 'CN=first' })
    await sleep(50)
    found = await ask(port, second.cert).catch(() => null)
  }
  assert.deepEqual(found, { status: 200, name: 'CN=second' })
})

test('a key that is another certificate’s leaves the last good pair in force, and /health says so', async (t) => {
  const { folder, first, second } = makePairs(t)
  const used = { cert: join(folder, 'used.crt'), key: join(folder, 'used.key') }
  replace(used, first)
  const { app, port, certificate, told } = await openTls(t, used)
  writeFileSync(used.cert, readFileSync(second.cert))
  for (let i = 0; i < 3; i++) certificate.look()
  assert.equal((await ask(port, first.cert)).name, 'CN=first')
  const health = await app.inject('/health')
  assert.equal(health.statusCode, 503)
  assert.match(health.json().problems[0].message, /key in ".*used.key" does not belong to the certificate in/)
  assert.equal(told.length, 1)
  writeFileSync(used.key, readFileSync(second.key))
  certificate.look()
  assert.equal((await app.inject('/health')).statusCode, 200)
})

test('files that are no certificate or no key are refused by name, and nothing of them is shown', (t) => {
  const { folder, first } = makePairs(t)
  const garbage = join(folder, 'garbage')
  writeFileSync(garbage, 'secret garbage')
  const cases: [string, string, RegExp][] = [
    [garbage, first.key, /^Cannot use the certificate in ".*garbage": expected PEM$/],
    [first.cert, garbage, /^Cannot use the key in ".*garbage": expected a private key in PEM/],
    [join(folder, 'none'), first.key, /^Cannot read the certificate in ".*none": ENOENT$/],
    [first.key, first.key, /^Cannot use the certificate/],
  ]
  for (const [cert, key, expected] of cases) {
    assert.throws(
      () => readCertificate(cert, key),
      ({ message }: Error) => expected.test(message) && !message.includes('secret garbage'),
    )
  }
})

test('plain HTTP, garbage, and callers that go away in the handshake end their connection and nothing else', async (t) => {
  const { first } = makePairs(t)
  const { app, port } = await openTls(t, first)
  for (const bytes of ['GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n', 'x'.repeat(1000), '']) {
    const socket = connect(port, '127.0.0.1')
    await once(socket, 'connect')
    const closed = once(socket, 'close')
    socket.on('error', () => {})
    if (bytes === '') socket.destroy()
    else socket.write(bytes)
    socket.resume()
    await closed
  }
  const old = connectTls({
    port,
    host: '127.0.0.1',
    maxVersion: 'TLSv1.1',
    minVersion: 'TLSv1',
    rejectUnauthorized: false,
  })
  const [refused] = await once(old, 'error')
  assert.ok(refused instanceof Error)
  assert.equal((await ask(port, first.cert)).status, 200)
  const open = await new Promise((resolve) => app.server.getConnections((_error, count) => resolve(count)))
  assert.ok((open as number) <= 1)
})
