// API tokens as a user meets them, with real processes: a server that will not start with a broken file, tokens that
// come and go while it runs, no token in anything that it writes, HTTPS, and a flood of ten times the limit beside
// which the processor and another client go on as if there were none.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, writeFileSync } from 'node:fs'
import { Agent, type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { goodSample, goodToken } from '../../bad-records.ts'
import { type Env, pertoken, type Service, startService, temporaryDirectory, until } from '../harness.ts'

/** A folder with a token file, and a way to add tokens to it. */
function open(t: TestContext) {
  const directory = temporaryDirectory(t)
  const env: Env = { DATA_DIR: join(directory, 'data'), API_TOKENS_FILE: join(directory, 'tokens') }
  const add = (name: string, scope: string, ...words: string[]): string => {
    const { status, stdout, stderr } = pertoken(['tokens', 'add', '--name', name, '--scope', scope, ...words], env)
    assert.equal(status, 0, stderr)
    return stdout.trim()
  }
  return { directory, env, add }
}

function bearer(token: string): Record<string, string> {
  return { authorization: `Bearer ${token}` }
}

function ask({ port }: Service, path: string, token: string, options: RequestInit = {}): Promise<Response> {
  const headers = { ...bearer(token), ...options.headers }
  return fetch(`http://127.0.0.1:${port}${path}`, { ...options, headers, signal: AbortSignal.timeout(20_000) })
}

function post(service: Service, token: string, body: string): Promise<Response> {
  const headers = { 'content-type': 'application/json' }
  return ask(service, '/api/v1/events', token, { method: 'POST', body, headers })
}

test('a server does not start with a token file or certificate that it cannot use: exit 2, all of it named', (t) => {
  const { directory, env } = open(t)
  const garbage = join(directory, 'garbage')
  writeFileSync(garbage, '# note\npt_somebodys-token\n')
  const cases: [Env, RegExp[]][] = [
    [{}, [/tokens": it does not exist: make it with pertoken tokens add/]],
    [{ API_TOKENS_FILE: garbage }, [/garbage":\n {2}line 2: is not JSON: expected \{"name":/]],
    [{ HTTP_TLS_CERT: garbage }, [/Only one of HTTP_TLS_CERT and HTTP_TLS_KEY is set/]],
    [
      { HTTP_TLS_CERT: garbage, HTTP_TLS_KEY: garbage },
      [/it does not exist/, /Cannot use the certificate in ".*garbage"/],
    ],
    [{ HTTP_TLS_CERT: join(directory, 'x'), HTTP_TLS_KEY: garbage }, [/HTTP_TLS_CERT is ".*x": expected the path/]],
    [{ HTTP_RATE_EVENTS: '-1' }, [/HTTP_RATE_EVENTS is "-1": expected an integer from 0/]],
  ]
  for (const [change, expected] of cases) {
    const { status, stderr } = pertoken(['up', '--port', '0'], { ...env, ...change })
    assert.equal(status, 2, stderr)
    for (const each of expected) assert.match(stderr, each)
    assert.doesNotMatch(stderr, /somebodys/)
  }
})

test('tokens come and go while the server runs, and none is in anything that it or any command writes', async (t) => {
  const { env, add } = open(t)
  const tokens = {
    admin: add('admin', 'admin'),
    sender: add('sender', 'ingest'),
    wrong: `pt_${'w'.repeat(43)}`,
    expired: '',
  }
  const service = await (await startService(t, ['up'], { ...env, LOG_LEVEL: 'debug' })).ready()
  const written: string[] = []
  const send = async (path: string, token: string, options: RequestInit = {}) => {
    const answer = await ask(service, path, token, options)
    written.push(await answer.text(), JSON.stringify([...answer.headers]))
    return answer.status
  }
  const reader = add('reader', 'read', '--expires', '1h')
  await until('the new token is good', async () => (await send('/api/v1/live', reader)) === 200, 10)
  const json = { 'content-type': 'application/json' }
  for (const token of [...Object.values(tokens), reader]) {
    for (const path of [
      '/api/v1/live',
      '/metrics',
      '/health',
      '/api/v1/prices',
      '/nothing',
      '/%zz',
      '/api/v1/cost?x=1',
    ])
      await send(path, token)
    for (const body of ['{}', 'no json', '[1]', JSON.stringify(goodToken(Date.now()))])
      await send('/api/v1/events', token, { method: 'POST', body, headers: json })
    await send('/api/v1/prices', token, { method: 'PUT', body: '{"rules":7}', headers: json })
    await send('/api/v1/events', token, { method: 'POST', body: '', headers: { authorization: `Basic ${token}` } })
  }
  // A token where none belongs: it must not come back to anybody in a message.
  appendFileSync(env['API_TOKENS_FILE']!, `${tokens.admin}\n`)
  const problemsOf = async () => (await service.health()).problems.map(({ message }) => message).join()
  await until('/health names the broken file', async () => /line 4: is not JSON/.test(await problemsOf()), 10)
  written.push(await problemsOf())
  const commands: [string[], Env][] = [
    [['config', '--print'], { API_TOKEN: tokens.admin }],
    [['config', '--print', '--json'], { API_TOKEN: tokens.admin }],
    [['tokens', 'list'], {}],
    [['prices', 'list', '--url', `http://127.0.0.1:${service.port}`], { API_TOKEN: tokens.admin }],
    [['prices', 'list', '--url', `http://127.0.0.1:${service.port}`], { API_TOKEN: tokens.wrong }],
    [['report', '--url', 'http://127.0.0.1:1'], { API_TOKEN: tokens.admin }],
    [['doctor'], { PORT: String(service.port), API_TOKEN: tokens.admin }],
  ]
  const statuses = commands.map(([words, change]) => {
    const { status, stdout, stderr } = pertoken(words, { ...env, ...change })
    written.push(stdout, stderr)
    return status
  })
  assert.deepEqual(statuses, [0, 0, 1, 0, 1, 1, 1])
  assert.match(written.join(), /API_TOKEN=\*\*\*/)
  assert.match(written.join(), /API_TOKEN or API_TOKEN_FILE holds the token for --url/)

  writeFileSync(env['API_TOKENS_FILE']!, '')
  await until('no token is good any more', async () => (await send('/api/v1/live', reader)) === 401, 10)
  assert.equal(await service.stop(), 0)
  written.push(service.output)
  assert.match(service.output, /"reason":"\w+","address":"127.0.0.1","refused":/)
  for (const token of [tokens.admin, tokens.sender, tokens.wrong, reader])
    for (const text of written) assert.ok(!text.includes(token.slice(3, 20)), text.slice(0, 500))
})

test('HTTPS: the start line says so, doctor and --url use it', async (t) => {
  const { directory, env, add } = open(t)
  const [cert, key] = [join(directory, 'crt'), join(directory, 'key')]
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30']
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost']
  execFileSync('openssl', ['req', '-x509', ...curve, ...names, '-keyout', key, '-out', cert], { stdio: 'ignore' })
  const token = add('admin', 'admin')
  const secured = { ...env, HTTP_TLS_CERT: cert, HTTP_TLS_KEY: key }
  const service = await startService(t, ['up'], secured)
  await until('it listens', async () => service.output.includes('look at '))
  assert.match(service.output, new RegExp(`look at https://localhost:${service.port} `))
  const url = `https://localhost:${service.port}`
  const prices = (change: Env) => pertoken(['prices', 'list', '--url', url], { API_TOKEN: token, ...change })
  await until('it has a price book', async () => prices({ NODE_EXTRA_CA_CERTS: cert }).stdout.includes('in force'))
  const untrusted = prices({})
  assert.equal(untrusted.status, 1)
  assert.match(untrusted.stderr, /self-signed certificate; set NODE_EXTRA_CA_CERTS/)
  const doctor = pertoken(['doctor'], { ...secured, PORT: String(service.port) })
  assert.match(
    doctor.stdout,
    /ok +tokens +1 API tokens in .*\nok +tls +Certificate in .* is good until \d{4}-.*\nok +http +https:/,
  )
  assert.equal(await service.stop(), 0)
})

test('ten times the limit leaves the processor and another client unharmed', async (t) => {
  const { env, add } = open(t)
  const [flooder, steady, reader] = [add('flooder', 'ingest'), add('steady', 'ingest'), add('reader', 'read')]
  const limits = { HTTP_RATE_REQUESTS: '20', HTTP_RATE_EVENTS: '2000' }
  const service = await (await startService(t, ['up'], { ...env, ...limits })).ready()
  const lagOf = async () => {
    const metrics = await (await ask(service, '/metrics', reader)).text()
    return Number(/^nodejs_eventloop_lag_p99_seconds (\S+)$/m.exec(metrics)![1])
  }
  await lagOf()
  const seconds = 4
  const nowMs = Date.now()
  const batch = JSON.stringify(Array.from({ length: 200 }, (_, i) => goodSample(nowMs, { event_id: `f${i}` })))
  const deadlineMs = nowMs + seconds * 1000
  const agent = new Agent({ keepAlive: true, maxSockets: 40 })
  t.after(() => agent.destroy())
  const options = { agent, port: service.port, host: '127.0.0.1', path: '/api/v1/events', method: 'POST' }
  const answers: Record<number, number> = {}
  let hasRetryAfter = true
  const flood = async (token: string) => {
    while (Date.now() < deadlineMs) {
      const sent = request({ ...options, headers: { 'content-type': 'application/json', ...bearer(token) } }).end(batch)
      const [response] = (await once(sent, 'response')) as [IncomingMessage]
      await text(response)
      const { statusCode = 0, headers } = response
      answers[statusCode] = (answers[statusCode] ?? 0) + 1
      if (statusCode === 429) hasRetryAfter &&= Number(headers['retry-after']) >= 1
      // About 1,500 requests a second in all, from a client that ignores what it is told.
      await sleep(25)
    }
  }
  const floods = [
    ...Array.from({ length: 20 }, () => flood(flooder)),
    ...Array.from({ length: 20 }, (_, i) => flood(`pt_wrong-${i}`)),
  ]
  const slowestMs: number[] = []
  let accepted = 0
  while (Date.now() < deadlineMs) {
    const startedMs = performance.now()
    const answer = await post(service, steady, JSON.stringify([goodToken(Date.now(), { event_id: `s${accepted}` })]))
    slowestMs.push(performance.now() - startedMs)
    assert.equal(answer.status, 202, await answer.text())
    accepted++
    await sleep(100)
  }
  await Promise.all(floods)
  const lagS = await lagOf()
  const total = Object.values(answers).reduce((sum, count) => sum + count, 0)
  const said = JSON.stringify({ answers, lagS, slowestMs: Math.max(...slowestMs), accepted })
  t.diagnostic(said)
  assert.ok(total > 10 * 20 * seconds, `the flood was too thin: ${said}`)
  // 503: more posts at once than one token may have open.
  assert.deepEqual(Object.keys({ ...answers, 503: 0 }), ['202', '401', '429', '503'], said)
  assert.ok(answers[429]! > total / 2, said)
  // 2 s worth at the start and 2,000 a second from then on, a post that overdraws at each end.
  assert.ok(answers[202]! * 200 <= 2000 * (seconds + 3) + 400, said)
  // Wrong tokens count against their address: 2 s worth at the start and 20 a second from then on.
  assert.ok(answers[401]! <= 20 * (seconds + 3), said)
  assert.ok(hasRetryAfter)
  // Bounds for a machine that does other work as well; alone both are a tenth of this.
  assert.ok(lagS < 1, said)
  assert.ok(Math.max(...slowestMs) < 5000, said)
  assert.equal((await service.health()).status, 'ok')
  // What was accepted is processed: the distinct samples of the flood, and all that the other client sent.
  const { outcomes } = await service.settled(answers[202]! * 200 + accepted)
  assert.equal(outcomes.stored, 200 + accepted)
  assert.equal(await service.stop(), 0)
})
