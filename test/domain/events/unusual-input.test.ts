// Input that producers of other makes send: record times that are none, null for absent, integer text as float, base64 in
// CloudEvents, stray headers, ids that count from 1. Each has one right value; nothing is altered in silence.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import { decodeRecord } from '../../../src/domain/events/decode.ts'
import type { EventKind } from '../../../src/domain/events/event.ts'
import { ownEventId } from '../../../src/domain/events/event-id.ts'
import { recordTimeOf } from '../../../src/domain/events/record-time.ts'
import { Rejection } from '../../../src/domain/events/rejection.ts'
import { goodSample, goodToken } from '../../bad-records.ts'

const NOW = Date.UTC(2026, 10, 27, 20)
const HOUR_MS = 3_600_000

interface Sent {
  timestampMs?: number
  headers?: Record<string, string | Buffer>
}

function decode(kind: EventKind, event: object | string, { timestampMs = NOW, headers }: Sent = {}) {
  const value = Buffer.from(typeof event === 'string' ? event : JSON.stringify(event))
  const pairs = Object.entries(headers ?? {}).map(([name, text]) => [name, Buffer.from(text as string)] as const)
  const record = { offset: 7, timestampMs, value, headers: headers === undefined ? null : new Map(pairs) }
  return decodeRecord(kind, 'pt1l:t:0:', record, crc32, () => NOW) as unknown as Record<string, unknown> | Rejection
}

function accepted(kind: EventKind, event: object | string, sent: Sent = {}): Record<string, unknown> {
  const document = decode(kind, event, sent)
  if (document instanceof Rejection) assert.fail(document.message)
  return document
}

function rejected(kind: EventKind, event: object | string, sent: Sent = {}): Rejection {
  const rejection = decode(kind, event, sent)
  assert.ok(rejection instanceof Rejection, 'accepted')
  return rejection
}

/** The text of an event with raw JSON in place of one field's value. */
function withRaw(event: Record<string, unknown>, field: string, raw: string): string {
  return JSON.stringify({ ...event, [field]: '@' }).replace('"@"', raw)
}

for (const [name, timestampMs] of [
  ['none (-1)', -1],
  ['0', 0],
  ['in seconds', NOW / 1000],
  ['in microseconds', NOW * 1000],
  ['in nanoseconds', NOW * 1e6],
  ['no number', Number.NaN],
] as const) {
  test(`a record time ${name} is none: the processor's clock is the bound`, () => {
    assert.equal(recordTimeOf(timestampMs), null)
    const sent = { timestampMs }
    assert.deepEqual(accepted('token', goodToken(NOW), sent)['ts'], new Date(NOW))
    assert.deepEqual(accepted('gpu', goodSample(NOW + HOUR_MS), sent)['ts'], new Date(NOW + HOUR_MS))
    const ahead = rejected('token', goodToken(NOW + HOUR_MS + 1), sent)
    assert.equal(ahead.reason, 'too_far_ahead')
    assert.match(ahead.message, /expected at most 2026-11-27T21:00:00\.000Z/)
    assert.equal(rejected('token', goodToken(0, { ts: '2099-01-01T00:00:00Z' }), sent).reason, 'too_far_ahead')
  })
}

test('a record time that is one stays the bound, whatever the clock says', () => {
  const timestampMs = NOW - 48 * HOUR_MS
  assert.equal(recordTimeOf(timestampMs), timestampMs)
  assert.equal(rejected('token', goodToken(NOW), { timestampMs }).reason, 'too_far_ahead')
})

test('an optional field that is null is absent, and the document has none', () => {
  const token = accepted('token', goodToken(NOW, { tenant: null, latency_ms: null, requests: null, gpus: null }))
  const bare = accepted('token', goodToken(NOW, { latency_ms: undefined }))
  assert.deepEqual(Object.keys(token).sort(), Object.keys(bare).sort())
  const sample = accepted('gpu', goodSample(NOW, { mem_used_mb: null, mem_total_mb: null, power_w: null, uuid: null }))
  for (const name of ['mem_used_mb', 'mem_total_mb', 'power_w', 'uuid']) assert.ok(!(name in sample), name)
  assert.equal(accepted('gpu', goodSample(NOW, { host: null }))['host'], null, 'host is null where there is none')
  assert.equal(accepted('token', goodToken(NOW, { gpus: [3], gpu_index: null }))['gpu_index'], undefined)
  assert.match(accepted('token', goodToken(NOW, { event_id: null }))['_id'] as string, /^pt1l:/)
  const unknown = accepted('token', goodToken(NOW, { note: null }))
  assert.equal(unknown['note'], null, 'a field that the schema does not know is kept as it is')
})

test('a null beside a fault does not hide it, and a required field that is null is named', () => {
  const rejection = rejected('token', goodToken(NOW, { tenant: null, model: null, prompt_tokens: -1 }))
  assert.deepEqual(rejection.issues.map(({ path }) => path).sort(), ['/model', '/prompt_tokens'])
})

test('epoch milliseconds may be a float: digits beyond the millisecond are truncated', () => {
  for (const raw of [`${NOW}.0`, `${NOW}.25`, `${NOW}.999`, `${NOW / 1e12}e12`]) {
    assert.deepEqual(accepted('token', withRaw(goodToken(NOW), 'ts', raw))['ts'], new Date(NOW), raw)
  }
})

test('a time out of bounds is rejected with what it looks like', () => {
  const ahead = new Date(NOW + 8 * HOUR_MS).toISOString().slice(0, 19)
  for (const [ts, hint] of [
    [NOW / 1000, /epoch seconds/],
    [NOW / 1000 + 0.25, /epoch seconds/],
    [NOW * 1000, /epoch microseconds: divide by 1,000\)/],
    [NOW * 1e6, /epoch nanoseconds: divide by 1,000,000/],
    [ahead, /no zone.*\+08:00/],
    [ahead.slice(0, 16), /no zone/],
    [String(NOW), /in quotes/],
  ] as const) {
    assert.match(rejected('token', goodToken(NOW, { ts })).message, hint)
  }
  for (const ts of [`${ahead}Z`, `${ahead}+00:00`, `${ahead}-01`, '2099-01-01T00:00:00', NOW + 8 * HOUR_MS]) {
    assert.doesNotMatch(rejected('token', goodToken(NOW, { ts })).message, /\(/, String(ts))
  }
})

test('a utilization a hair above 1 is not taken for per cent', () => {
  assert.doesNotMatch(rejected('gpu', goodSample(NOW, { utilization: 1.0000001 })).message, /per cent/)
  assert.match(rejected('gpu', goodSample(NOW, { utilization: 1.0000001 })).message, /rounded up/)
  assert.match(rejected('gpu', goodSample(NOW, { utilization: 97.5 })).message, /per cent/)
})

test('a number of an unknown field is kept as it is, or rejected by the name of its field', () => {
  const token = goodToken(NOW)
  for (const [raw, value] of [
    ['9007199254740991', 9007199254740991],
    ['-9007199254740992', -9007199254740992],
    ['9007199254740994', 9007199254740994],
    ['1.2e20', 1.2e20],
    ['18446744073709551616', 2 ** 64],
    ['0.30000000000000004', 0.30000000000000004],
    ['12345678901234567.89', 12345678901234568],
  ] as const) {
    assert.equal(accepted('token', withRaw(token, 'extra', raw))['extra'], value, raw)
    assert.deepEqual(accepted('token', withRaw(token, 'extra', `{"a":[${raw}]}`))['extra'], { a: [value] }, raw)
  }
  const text = accepted('token', goodToken(NOW, { trace_id: '1524831183200260097' }))
  assert.equal(text['trace_id'], '1524831183200260097')
  for (const raw of ['1524831183200260097', '{"a":[0,1524831183200260097]}']) {
    const { issues } = rejected('token', withRaw({ ...token, note: '1524831183200260097' }, 'trace_id', raw))
    assert.deepEqual(
      issues.map(({ path, reason }) => [path, reason]),
      [['/trace_id', 'out_of_range']],
    )
    assert.match(issues[0]!.message, /1524831183200260097.*send it as text/)
  }
})

test('two events without host and with the same id are one only where GPUs and engine are the same', () => {
  const id = (kind: EventKind, change: object) => {
    const event = kind === 'gpu' ? goodSample(NOW) : goodToken(NOW)
    return accepted(kind, { ...event, host: undefined, event_id: '1', ...change })['_id']
  }
  assert.equal(id('token', {}), id('token', { prompt_tokens: 999 }))
  assert.equal(id('token', { host: null }), id('token', {}))
  assert.equal(id('token', { gpus: [1, 0] }), id('token', { gpus: [0, 1] }))
  const different = [{}, { gpu_index: 3 }, { engine: 'vllm' }, { gpus: [0, 1] }, { host: 'h1' }, { event_id: '2' }]
  assert.equal(new Set(different.map((change) => id('token', change))).size, different.length)
  assert.notEqual(id('gpu', { gpu_index: 1 }), id('gpu', { gpu_index: 2 }))
  assert.equal(id('gpu', { gpus: 'a field of its own' }), id('gpu', {}))
  assert.equal(id('token', { host: 'h1' }), ownEventId('h1', '1'), 'with a host the id is what it was')
})

const ENVELOPE = { specversion: '1.0', source: '/s', id: 'e', type: 'token.usage.v1' }
const base64 = (text: string) => Buffer.from(text).toString('base64')

test('a structured CloudEvent is seen without content type, and its data may be base64 of JSON', () => {
  const event = goodToken(NOW)
  const plain = accepted('token', { ...ENVELOPE, data: event })
  assert.equal(plain['_id'], ownEventId('ce:/s', 'e'))
  for (const data of [JSON.stringify(event), ` ${JSON.stringify(event, null, 1)}\n`]) {
    assert.deepEqual(accepted('token', { ...ENVELOPE, data_base64: base64(data) }), plain)
    assert.deepEqual(
      accepted('token', { ...ENVELOPE, data: null, data_base64: base64(data).replace(/=+$/, '') }),
      plain,
    )
  }
  for (const wrong of [
    { data_base64: 'no base64!' },
    { data_base64: base64('[1]') },
    { data_base64: base64('{') },
    { data_base64: Buffer.from([0x7b, 0xff]).toString('base64') },
    { data_base64: 7 },
    { data_base64: base64(JSON.stringify(event)), data: event },
  ]) {
    const { reason, issues } = rejected('token', { ...ENVELOPE, ...wrong })
    assert.deepEqual([reason, issues[0]!.path], ['bad_cloudevent', '/data_base64'], JSON.stringify(wrong))
  }
  const twice = `${JSON.stringify(event).slice(0, -1)},"gpu_index":1}`
  assert.equal(rejected('token', { ...ENVELOPE, data_base64: base64(twice) }).reason, 'duplicate_field')
  const big = { ...ENVELOPE, data_base64: base64(withRaw(event, 'trace_id', '1524831183200260097')) }
  assert.equal(rejected('token', big).issues[0]!.path, '/trace_id')
})

test('a plain event with fields of the names of an envelope stays a plain event', () => {
  const event = goodToken(NOW, { specversion: '1.0', data: { a: 1 }, id: 'x' })
  assert.deepEqual(accepted('token', event)['data'], { a: 1 })
})

test('stray ce_ headers are ignored: binary mode begins with ce_specversion', () => {
  const event = goodToken(NOW, { event_id: 'a' })
  for (const headers of [{ ce_knativeerrordest: 'x' }, { ce_id: '1', ce_source: 's', ce_type: 't' }]) {
    assert.equal(accepted('token', event, { headers })['_id'], ownEventId('h1', 'a'))
  }
  const binary = { ce_specversion: '1.0', ce_id: '1', ce_source: 's', ce_type: 't', ce_other: Buffer.from([0xff]) }
  assert.equal(accepted('token', event, { headers: binary })['_id'], ownEventId('ce:s', '1'))
  assert.equal(rejected('token', event, { headers: { ce_specversion: '1.0' } }).reason, 'bad_cloudevent')
})

test('the time of the envelope is used where the data has no ts, and nowhere else', () => {
  const time = new Date(NOW - 5000).toISOString()
  const untimed = goodToken(NOW, { ts: undefined })
  const headers = { ce_specversion: '1.0', ce_id: '1', ce_source: 's', ce_type: 't', ce_time: time }
  assert.deepEqual(accepted('token', untimed, { headers })['ts'], new Date(NOW - 5000))
  assert.deepEqual(accepted('token', { ...ENVELOPE, time, data: untimed })['ts'], new Date(NOW - 5000))
  assert.deepEqual(accepted('token', { ...ENVELOPE, time, data: { ...untimed, ts: null } })['ts'], new Date(NOW - 5000))
  assert.deepEqual(accepted('token', { ...ENVELOPE, time: 'x', data: goodToken(NOW) })['ts'], new Date(NOW))
  const { reason, issues } = rejected('token', { ...ENVELOPE, time: 'x', data: untimed })
  assert.deepEqual([reason, issues[0]!.path], ['bad_cloudevent', '/time'])
  assert.equal(rejected('token', { ...ENVELOPE, data: untimed }).reason, 'missing_field')
})
