// The server's own address: a bind address that is none is reported with the setting and the remedy, and an IPv6
// address stands in brackets in every URL that is printed or requested.

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { loadConfig } from '../../src/cli/config.ts'
import { checkOwnHttp } from '../../src/cli/doctor/http-findings.ts'
import { hostAndPort, isEveryAddress, listenFault, ownUrl } from '../../src/cli/own-address.ts'
import { pertoken, startService, temporaryDirectory } from '../flows/harness.ts'

test('URLs: IPv6 in brackets, its zone encoded, HTTPS, and the base path', () => {
  const plain = { HTTP_TLS_CERT: null, BASE_PATH: null }
  assert.equal(ownUrl('localhost', 80, plain), 'http://localhost:80')
  assert.equal(ownUrl('::1', 8080, plain), 'http://[::1]:8080')
  assert.equal(ownUrl('::1', 8080, { HTTP_TLS_CERT: 'x', BASE_PATH: '/p' }), 'https://[::1]:8080/p/')
  assert.equal(hostAndPort('fe80::1%eth0', 1), '[fe80::1%25eth0]:1')
  for (const every of ['0.0.0.0', '::', '::0', '0', '0:0:0:0:0:0:0:0']) assert.ok(isEveryAddress(every), every)
  for (const one of ['127.0.0.1', '::1', '10.0.0.1', 'localhost']) assert.ok(!isEveryAddress(one), one)
})

test('errors of listening name the setting, where it came from, and the remedy', () => {
  const fault = (code: string, host = '::1') =>
    listenFault(Object.assign(new Error(`listen ${code}`), { code }), host, 80, 'environment').message
  assert.match(fault('EADDRINUSE'), /^Cannot listen on \[::1\]:80: something else does; set PORT/)
  assert.match(fault('EACCES'), /^Cannot listen on \[::1\]:80: it is not permitted \(EACCES\); set PORT/)
  assert.match(fault('ENOTFOUND', '[::1]'), /HOST is "\[::1\]" \(environment\).*without brackets, as ::1/)
  for (const code of ['ENOTFOUND', 'EAI_AGAIN', 'EADDRNOTAVAIL', 'EINVAL', 'EAFNOSUPPORT'])
    assert.match(
      fault(code, 'h'),
      new RegExp(`HOST is "h" \\(environment\\),.*\\(${code}\\): set HOST.*unset it`),
      code,
    )
  assert.equal(fault('EMFILE'), 'listen EMFILE')
})

test('a HOST that an environment set to a name of its own', (t) => {
  const host = 'x86_64-conda-linux-gnu.invalid'
  const env = { HOST: host, PORT: '0', DATA_DIR: temporaryDirectory(t) }
  const { status, stderr } = pertoken(['up'], env)
  assert.equal(status, 1)
  assert.match(stderr, new RegExp(`HOST is "${host}" \\(environment\\), which is no address of this machine`))
  assert.match(stderr, /127\.0\.0\.1 for this machine only, or unset it: environments of conda/)
  const doctor = pertoken(['doctor'], env)
  assert.match(doctor.stdout, new RegExp(`^WRONG http +HOST is "${host}", which is no address.*unset it`, 'm'))
})

/** Whether this machine has ::1. */
async function hasIpv6(): Promise<boolean> {
  const server = createServer()
  const listens = new Promise<boolean>((resolve) => {
    server.once('error', () => resolve(false))
    server.listen(0, '::1', () => resolve(true))
  })
  const has = await listens
  server.close()
  return has
}
const skip = (await hasIpv6()) ? false : 'this machine has no ::1'

async function healthAt(t: TestContext, host: string): Promise<number> {
  const server = createServer((_request, response) => response.end('{"status":"ok"}'))
  t.after(() => server.close())
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  return (server.address() as AddressInfo).port
}

test('doctor requests /health of a server on ::1 and names its URL', { skip }, async (t) => {
  const port = await healthAt(t, '::1')
  const { config } = loadConfig({ env: { HOST: '::1', PORT: String(port) }, envFile: '', flags: {} })
  assert.deepEqual(await checkOwnHttp(config), [
    { part: 'http', ok: true, message: `http://[::1]:${port}/health says ok` },
  ])
})

test('the start line on ::1 is a URL', { skip, timeout: 30_000 }, async (t) => {
  const env = { HOST: '::1', PORT: '0', DATA_DIR: temporaryDirectory(t) }
  const service = await startService(t, ['up', '--embedded'], env)
  const deadlineMs = Date.now() + 20_000
  while (!service.output.includes('look at') && Date.now() < deadlineMs) await new Promise((r) => setTimeout(r, 50))
  const [, url] = /look at (\S+) /.exec(service.output) ?? []
  assert.match(url ?? service.output, /^http:\/\/\[::1\]:\d+$/)
  assert.equal((await fetch(`${url}/livez`)).status, 200)
})
