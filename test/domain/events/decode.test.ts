import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import type { CloudEventAttributes } from '../../../src/domain/events/cloudevents.ts'
import { checkEvent, decodeRecord, type SourceRecord } from '../../../src/domain/events/decode.ts'
import type { EventKind } from '../../../src/domain/events/event.ts'
import { logIdPrefix } from '../../../src/domain/events/event-id.ts'
import { Rejection } from '../../../src/domain/events/rejection.ts'
import { type StepContext, stepsOf } from '../../../src/processor/ingest/processor.ts'
import type { Step } from '../../../src/processor/ingest/step.ts'
import { badRecords, goodSample, goodToken } from '../../bad-records.ts'

const NOW = Date.UTC(2026, 10, 22, 12)
const PLACE = logIdPrefix({ topicId: 'topic-id', partition: 3 })

interface Change {
  offset?: number
  cloudEvent?: CloudEventAttributes
  structured?: boolean
  id?: string
}

function decode(kind: EventKind, value: unknown, { offset = 7, cloudEvent, structured, id }: Change = {}) {
  const bytes =
    Buffer.isBuffer(value) || value === null
      ? value
      : Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))
  const headers = new Map<string, Buffer>()
  for (const [name, text] of Object.entries(cloudEvent === undefined ? {} : { specversion: '1.0', ...cloudEvent }))
    headers.set(`ce_${name}`, Buffer.from(text))
  if (structured) headers.set('content-type', Buffer.from('application/cloudevents+json'))
  if (id !== undefined) headers.set('pertoken_id', Buffer.from(id))
  const record: SourceRecord = {
    offset,
    timestampMs: NOW,
    value: bytes,
    headers: headers.size === 0 ? null : headers,
  }
  return decodeRecord(kind, PLACE, record, crc32, () => NOW)
}

function accepted(kind: EventKind, value: unknown, change: Change = {}) {
  const document = decode(kind, value, change)
  if (document instanceof Rejection) assert.fail(document.message)
  return document as unknown as Record<string, unknown>
}

for (const bad of badRecords(NOW)) {
  test(`${bad.name} is refused as ${bad.reason}, and the good records around it are taken`, () => {
    const good = Buffer.from(JSON.stringify(bad.topic === 'gpu' ? goodSample(NOW) : goodToken(NOW)))
    const headers =
      bad.headers === undefined
        ? null
        : new Map(Object.entries(bad.headers).map(([k, v]) => [k, typeof v === 'string' ? Buffer.from(v) : v]))
    const record = (offset: number, value: Buffer | null, head: typeof headers) => ({
      offset,
      timestampMs: NOW,
      key: null,
      value,
      headers: head,
    })
    const records = [record(0, good, null), record(1, bad.value, headers), record(2, good, null)]
    const batch = {
      topic: bad.topic,
      topicId: 't',
      partition: 0,
      fromOffset: 0,
      nextOffset: 3,
      highWatermark: 3,
      records,
    }
    const context: StepContext = {
      kindOf: (topic) => topic as EventKind,
      keepsOrigins: true,
      live: { observe: () => {}, price: () => {} },
      ownsAll: () => true,
      now: () => NOW,
    }
    const steps = [...stepsOf([batch], context)] as [Step]
    assert.equal(steps.length, 1)
    assert.deepEqual(
      steps[0].rejected.map(({ refusal, record: { offset } }) => [offset, refusal.reason]),
      [[1, bad.reason]],
      steps[0].rejected[0]?.refusal.message ?? 'nothing was refused',
    )
    assert.equal(steps[0].samples.length + steps[0].tokens.length, 2)
    assert.ok(steps[0].rejected[0]!.refusal.message.length > 10)
  })
}

test('what the present producers send is taken as it is', () => {
  // The shell variant: six fields, time to the second, no host, name and price.
  const shell =
    '{"ts":"2026-11-22T11:59:59Z","gpu_index":0,"utilization":0.42,"mem_used_mb":8123,"mem_total_mb":24576,"power_w":71.15}'
  const sample = accepted('gpu', shell)
  assert.equal(sample['host'], null)
  assert.deepEqual(sample['ts'], new Date('2026-11-22T11:59:59Z'))
  const token = accepted('token', {
    ts: '2026-11-22T11:59:59+00:00',
    model: 'm',
    prompt_tokens: 1,
    completion_tokens: 2,
    latency_ms: 3,
    gpu_index: 0,
  })
  assert.equal(token['host'], null)
  assert.equal(accepted('gpu', { ts: NOW, gpu_index: 1 })['ts']!.valueOf(), NOW)
})

test('unknown fields are kept, whatever their names and values', () => {
  const extra = {
    $set: { a: [1, { 'b.c': null }] },
    'x.y': 'ü',
    constructor: 1,
    toString: 'x',
    nested: { deep: [[[]]] },
  }
  const document = accepted('token', { ...goodToken(NOW), ...extra })
  for (const [name, value] of Object.entries(extra)) assert.deepEqual(document[name], value)
})

test('ids are deterministic, scoped and tell apart what differs', () => {
  const id = (value: unknown, change: Change = {}) => accepted('token', value, change)['_id']
  const event = goodToken(NOW)
  assert.equal(id(event), id(event))
  assert.match(id(event) as string, /^pt1l:topic-id:3:7:[0-9a-z]+$/)
  assert.notEqual(id(event), id(event, { offset: 8 }))
  assert.notEqual(
    id(event),
    id(goodToken(NOW, { prompt_tokens: 101 })),
    'the same offset with other bytes is another event',
  )
  assert.equal(
    id({ ...event, event_id: 'a' }),
    id({ ...event, event_id: 'a' }, { offset: 99 }),
    'its own id wins over the place',
  )
  assert.notEqual(id({ ...event, host: 'ab', event_id: 'c' }), id({ ...event, host: 'a', event_id: 'bc' }))
  const cloudEvent = { source: '/a', id: '1', type: 't' }
  assert.equal(
    id(event, { cloudEvent }),
    id({ ...event, event_id: 'x' }, { cloudEvent, offset: 4 }),
    'CloudEvents source and id come first',
  )
  assert.equal(id(event, { id: 'pt1l:other:0:1:z' }), 'pt1l:other:0:1:z', 'a redriven record keeps its id')
})

test('headers are read by any case of their names, and texts in them are taken as they are', () => {
  const headers = (entries: Record<string, string | null>) =>
    new Map(Object.entries(entries).map(([name, text]) => [name, text === null ? null : Buffer.from(text)]))
  const idOf = (entries: Record<string, string | null>) => {
    const record = { offset: 7, timestampMs: NOW, value: Buffer.from(JSON.stringify(goodToken(NOW))) }
    const document = decodeRecord('token', PLACE, { ...record, headers: headers(entries) }, crc32, () => NOW)
    return document instanceof Rejection ? document.reason : document._id
  }
  const event = { CE_SpecVersion: '1.0', ce_source: '/a', Ce_Id: '1', ce_type: 't' }
  assert.equal(idOf(event), 'pt1e:5:ce:/a:1')
  assert.equal(idOf({ ...event, Ce_Id: '\ufeff1' }), 'pt1e:5:ce:/a:\ufeff1', 'a byte order mark is part of an id')
  assert.equal(idOf({ ...event, ce_source: null }), 'bad_cloudevent')
  assert.match(idOf({ traceparent: '00-1', other: null }), /^pt1l:/)
})

test('a structured CloudEvent is unwrapped, with the id of its envelope', () => {
  const envelope = { specversion: '1.0', source: 'urn:x', id: 'e-1', type: 'token.usage.v1', data: goodToken(NOW) }
  const document = accepted('token', envelope, { structured: true })
  assert.equal(document['_id'], 'pt1e:8:ce:urn:x:e-1')
  assert.equal(document['model'], 'llama')
})

test('a refusal names every wrong field with its path, what was found and what was expected', () => {
  const refusal = decode('token', { ...goodToken(NOW), prompt_tokens: -4, model: '', gpu_index: '3' })
  assert.ok(refusal instanceof Rejection)
  assert.deepEqual(refusal.issues.map(({ path }) => path).toSorted(), ['/gpu_index', '/model', '/prompt_tokens'])
  assert.match(refusal.message, /-4.*>= 0|>= 0.*-4/s)
  const percent = decode('gpu', goodSample(NOW, { utilization: 70 }))
  assert.ok(percent instanceof Rejection)
  assert.match(percent.message, /per cent/)
})

test('arbitrary bytes and arbitrary JSON end as a document or a refusal, never as an exception', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      assert.ok(decode('token', Buffer.from(bytes)) !== undefined)
    }),
    { numRuns: 500 },
  )
  fc.assert(
    fc.property(fc.json(), fc.constantFrom<EventKind>('gpu', 'token'), (text, kind) => {
      assert.ok(decode(kind, text) !== undefined)
    }),
    { numRuns: 500 },
  )
})

test('a list twice as long takes no more than about twice the time to reject, whatever is in it', () => {
  const rejectMs = (length: number, entry: unknown) => {
    const event = goodToken(NOW, { gpu_index: undefined, gpus: new Array(length).fill(entry) })
    const startedMs = performance.now()
    for (let i = 0; i < 20; i++) assert.ok(checkEvent('token', { ...event }, NOW) !== null)
    return performance.now() - startedMs
  }
  for (const entry of [1, 'a', null, 5.5]) {
    rejectMs(1000, entry)
    // The square would be 40 s and more.
    assert.ok(rejectMs(40_000, entry) < 2000)
    assert.ok(rejectMs(1024, entry) < 200)
  }
})
