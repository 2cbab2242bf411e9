// What HTTP publishes: the OpenAPI document, names, types, help and labels of all metrics, and the routes that a
// running `up` on the embedded log and store has, with the fields of their responses. The agent's own /metrics and
// /health as well.

import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { startAt } from '../flows/agent/agent-process.ts'
import { pertoken, type Service, startService, temporaryDirectory, until } from '../flows/harness.ts'
import { embeddedPlace, keepAll } from '../flows/ledger/ledger-hands.ts'
import { freePort } from '../servers/managed-server.ts'
import { bookAt, samplesAt, tokensAt } from './events.ts'
import { assertGolden } from './golden.ts'

const HOUR = 3_600_000
const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

/** Names, types, help and labels of a text exposition, sorted, without values. */
function metricsSurface(text: string): string {
  const metrics = new Map<string, { head: string; labels: Set<string> }>()
  for (const [, name, help] of text.matchAll(/^# HELP (\S+) (.*)$/gm)) {
    const [, type] = new RegExp(`^# TYPE ${name} (\\S+)$`, 'm').exec(text)!
    metrics.set(name!, { head: `${name} (${type}): ${help}`, labels: new Set() })
  }
  for (const [, name, labels = ''] of text.matchAll(/^([a-z_]+)(?:\{(.*)\})? \S+$/gm)) {
    const metric = metrics.get(name!) ?? metrics.get(name!.replace(/_(bucket|sum|count)$/, ''))
    for (const [, label] of labels.matchAll(/([a-z_]+)="/g)) metric!.labels.add(label!)
  }
  // Those of Node and its process are the metrics library's: which labels they show depends on the moment.
  const isOurs = (name: string) => !/^(nodejs|process)_/.test(name)
  return [...metrics]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, { head, labels }]) => `${head}${isOurs(name) ? ` {${[...labels].sort()}}` : ''}\n`)
    .join('')
}

/** The names of all fields of a response, as paths; the elements of an array are merged. */
function fieldsOf(value: unknown, path = ''): string[] {
  if (Array.isArray(value)) return value.flatMap((element) => fieldsOf(element, `${path}[]`))
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, inner]) => [`${path}.${name}`, ...fieldsOf(inner, `${path}.${name}`)])
}

type Send = (path: string, init?: RequestInit) => Promise<Response>

/** Sends requests to a service with an API token. */
function sender({ port }: Service, token: string): Send {
  return (path, init = {}) => {
    const headers = { connection: 'close', authorization: `Bearer ${token}`, ...init.headers }
    return fetch(`http://127.0.0.1:${port}${path}`, { ...init, headers, signal: AbortSignal.timeout(10_000) })
  }
}

async function post(send: Send, events: object[]): Promise<void> {
  const headers = { 'content-type': 'application/json' }
  const response = await send('/api/v1/events', { method: 'POST', headers, body: JSON.stringify(events) })
  assert.equal(response.status, 202, await response.text())
}

test('of `up`: OpenAPI, metrics, responses and problems', { timeout: 60_000 }, async (t) => {
  const directory = temporaryDirectory(t)
  const place = embeddedPlace(t, directory)
  const tokensFile = join(directory, 'tokens')
  const addToken = (scope: string) => {
    const words = ['tokens', 'add', '--name', scope, '--scope', scope, '--api-tokens-file', tokensFile]
    const { status, stdout, stderr } = pertoken(words, place.env)
    assert.equal(status, 0, stderr)
    return stdout.trim()
  }
  const [admin, ingest] = [addToken('admin'), addToken('ingest')]
  const service = await (
    await startService(t, ['up', '--embedded'], { ...place.env, API_TOKENS_FILE: tokensFile })
  ).ready()
  const send = sender(service, admin)
  // In each of the two hours that may be the last full one at the time of the scrape.
  const nowMs = Date.now()
  const hourMs = Math.floor((nowMs - 180_000) / HOUR) * HOUR
  const samples = [hourMs - HOUR / 2, nowMs - 10 * 60_000].flatMap((ms) => samplesAt(ms))
  const tokens = [hourMs - HOUR / 2, nowMs - 10 * 60_000].flatMap((ms) => tokensAt(ms))
  await post(send, samples)
  await service.settled(samples.length)
  await post(send, tokens)
  await service.settled(samples.length + tokens.length)
  await keepAll(place.store)

  await t.test('responses and problems', async () => {
    const json = { 'content-type': 'application/json' }
    const write = (method: string, body: string, headers: Record<string, string> = json) => ({ method, body, headers })
    const requests: [string, string, RequestInit?][] = [
      ...['/', '/page.js', '/page.css', '/docs', '/schemas', '/schemas/gpu.metrics.v1.json'].map(get),
      ...['/openapi.json', '/metrics', '/health', '/livez', '/readyz', '/gpu/info', '/api/v1/gpus'].map(get),
      ...['/api/v1/live', '/api/v1/cost', '/api/v1/cost?by=gpu,tenant&step=1h&idle=spread'].map(get),
      ...['/api/v1/cost?format=csv', '/api/v1/cost?format=focus', '/api/v1/events?collection=gpu_metrics'].map(get),
      ...['/api/v1/events?collection=token_usage', '/api/v1/dead-letters', '/api/v1/prices'].map(get),
      ...['/api/v1/explain?host=h1&gpu_index=0'].map(get),
      ['wrong parameter', '/api/v1/cost?by=nothing'],
      ['no such path', '/api/v1/nothing'],
      ['no such method', '/api/v1/cost', { method: 'DELETE' }],
      ['no token', '/api/v1/cost', { headers: { authorization: '' } }],
      ['no scope', '/api/v1/cost', { headers: { authorization: `Bearer ${ingest}` } }],
      ['an event', '/api/v1/events', write('POST', JSON.stringify({ ...tokens[0], event_id: 'again' }))],
      ['wrong event', '/api/v1/events', write('POST', '{"ts":"yesterday"}')],
      ['not JSON', '/api/v1/events', write('POST', '{')],
      ['wrong type of body', '/api/v1/events', write('POST', 'a', { 'content-type': 'text/plain' })],
      ['wrong book', '/api/v1/prices', write('PUT', '{"currency":"EUR"}')],
      ['a book', '/api/v1/prices', write('PUT', JSON.stringify(bookAt(nowMs)))],
    ]
    const parts: string[] = []
    for (const [what, path, init] of requests) {
      const response = await send(path, init)
      const type = response.headers.get('content-type') ?? ''
      const text = await response.text()
      const body =
        type.includes('json') && path !== '/openapi.json' ? (JSON.parse(text) as Record<string, unknown>) : {}
      const head = `${init?.method ?? 'GET'} ${path}${what === '' ? '' : ` (${what})`}: ${response.status} ${type}`
      const problem = type.includes('problem') ? `  type=${body['type']} title=${body['title']}\n` : ''
      const columns = type.includes('csv') ? `  ${text.split(/\r?\n/)[0]}\n` : ''
      const fields = path.startsWith('/schemas/') ? [] : [...new Set(fieldsOf(body))].sort()
      parts.push(`${head}\n${problem}${columns}${fields.map((field) => `  ${field}\n`).join('')}`)
    }
    assertGolden('http.txt', parts.join(''))
  })

  await t.test('OpenAPI', async () => {
    const document = (await (await send('/openapi.json')).json()) as { info: { version: string } }
    assert.equal(document.info.version, version)
    document.info.version = 'VERSION'
    assertGolden('openapi.txt', JSON.stringify(document, null, 2))
  })

  await t.test('metrics', async () => {
    // A record is rejected, so that its counter has a label: the day of the event is closed.
    const closedMs = Date.UTC(2026, 0, 1)
    const { ledger } = place.store
    await ledger.advanceDay({ startMs: closedMs, state: 'closing', sinceMs: nowMs })
    await service.stop()
    const again = await (
      await startService(t, ['up', '--embedded'], { ...place.env, API_TOKENS_FILE: tokensFile })
    ).ready()
    const sendAgain = sender(again, admin)
    const wrong = { ts: closedMs + 1000, host: 'h1', gpu_index: 0 }
    await post(sendAgain, [wrong, ...samplesAt(nowMs)])
    await again.settled(1 + samplesAt(nowMs).length)
    const token = { ...tokensAt(nowMs)[0], event_id: 'newest' }
    await post(sendAgain, [token])
    await again.settled(2 + samplesAt(nowMs).length)
    const text = await until('the last hour is among the metrics', async () => {
      const found = await (await sendAgain('/metrics')).text()
      return /^llm_total_hourly_cost\{/m.test(found) && found
    })
    assertGolden('metrics.txt', metricsSurface(text))
  })
})

test('of `agent`: metrics and /health', { timeout: 60_000 }, async (t) => {
  const directory = temporaryDirectory(t)
  const seed = join(directory, 'seed.json')
  writeFileSync(seed, JSON.stringify([{ gpu_index: 0, name: 'NVIDIA L4', utilization: 0.5, power_w: 60 }]))
  const env = {
    DATA_DIR: join(directory, 'data'),
    GPU_METRICS_SOURCE: 'seed',
    GPU_SEED: seed,
    AGENT_INTERVAL_SEC: '0.1',
  }
  const agent = startAt(t, await freePort(), ['agent'], env)
  const text = await until('the agent has sent a sample', async () => {
    const found = await (await agent.get('/metrics')).text()
    return found.includes('pertoken_agent_last_sent_timestamp_seconds') && found
  })
  const health = fieldsOf(await agent.json('/health'))
  assertGolden('agent.txt', `${metricsSurface(text)}\n$ curl /health\n${health.sort().join('\n')}`)
})

function get(path: string): [string, string] {
  return ['', path]
}
