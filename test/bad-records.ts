// Every way to be wrong that is known, as bytes with the reason that the record must be refused with. Used by the
// decoder's tests and by the flows, which send them among good records.

import type { ReasonCode } from '../src/domain/events/rejection.ts'

export interface BadRecord {
  name: string
  topic: 'gpu' | 'token'
  value: Buffer | null
  reason: ReasonCode
  headers?: Record<string, string | Buffer>
}

/** A good token event at this time, with fields replaced; undefined removes a field. */
export function goodToken(tsMs: number, change: Record<string, unknown> = {}): Record<string, unknown> {
  const ts = new Date(tsMs).toISOString()
  const event = {
    ts,
    host: 'h1',
    gpu_index: 0,
    model: 'llama',
    prompt_tokens: 100,
    completion_tokens: 20,
    latency_ms: 500,
  }
  return { ...event, ...change }
}

/** A good GPU sample at this time, with fields replaced; undefined removes a field. */
export function goodSample(tsMs: number, change: Record<string, unknown> = {}): Record<string, unknown> {
  const ts = new Date(tsMs).toISOString()
  const event = {
    ts,
    host: 'h1',
    gpu_index: 0,
    name: 'NVIDIA L4',
    utilization: 0.5,
    mem_used_mb: 1000,
    mem_total_mb: 24_000,
    power_w: 60,
  }
  return { ...event, price_per_hour_usd: 0.8, ...change }
}

const json = (value: unknown) => Buffer.from(JSON.stringify(value))

/** All bad records; `nowMs` is the time of the record. */
export function badRecords(nowMs: number): BadRecord[] {
  const records: BadRecord[] = []
  const add = (
    topic: 'gpu' | 'token',
    name: string,
    value: Buffer | null,
    reason: ReasonCode,
    headers?: Record<string, string | Buffer>,
  ) => records.push({ topic, name: `${topic}: ${name}`, value, reason, ...(headers === undefined ? {} : { headers }) })
  const token = (name: string, change: Record<string, unknown>, reason: ReasonCode) =>
    add('token', name, json(goodToken(nowMs, change)), reason)
  const sample = (name: string, change: Record<string, unknown>, reason: ReasonCode) =>
    add('gpu', name, json(goodSample(nowMs, change)), reason)
  /** A token event with raw JSON text in place of a number. */
  const raw = (name: string, field: string, text: string, reason: ReasonCode) =>
    add('token', name, Buffer.from(JSON.stringify(goodToken(nowMs, { [field]: '@' })).replace('"@"', text)), reason)

  for (const topic of ['gpu', 'token'] as const) {
    const good = topic === 'gpu' ? goodSample(nowMs) : goodToken(nowMs)
    add(topic, 'tombstone', null, 'tombstone')
    add(topic, 'empty value', Buffer.alloc(0), 'empty_value')
    add(topic, 'not JSON', Buffer.from('gpu is fine'), 'not_json')
    add(topic, 'truncated JSON', json(good).subarray(0, 40), 'not_json')
    add(topic, 'byte order mark', Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), json(good)]), 'not_json')
    add(
      topic,
      'not UTF-8',
      Buffer.concat([json(good).subarray(0, -2), Buffer.from([0xc3, 0x28, 0x22, 0x7d])]),
      'not_utf8',
    )
    add(topic, 'array as root', json([good]), 'not_an_object')
    add(topic, 'null as root', Buffer.from('null'), 'not_an_object')
    add(topic, 'string as root', Buffer.from('"x"'), 'not_an_object')
    add(topic, 'number as root', Buffer.from('1'), 'not_an_object')
    add(topic, 'bare NaN', Buffer.from('NaN'), 'not_json')
    add(topic, 'nested 10,000 deep', Buffer.from(`${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`), 'missing_field')
    add(topic, 'unknown field nested 10,000 deep', nestedField(good, 10_000), 'too_deep')
    add(topic, '__proto__', Buffer.from(`${JSON.stringify(good).slice(0, -1)},"__proto__":{"x":1}}`), 'forbidden_field')
    add(topic, 'name with NUL', Buffer.from(`${JSON.stringify(good).slice(0, -1)},"a\\u0000b":1}`), 'forbidden_field')
    add(topic, 'empty name', Buffer.from(`${JSON.stringify(good).slice(0, -1)},"":1}`), 'forbidden_field')
    add(topic, 'field twice', Buffer.from(`${JSON.stringify(good).slice(0, -1)},"gpu_index":1}`), 'duplicate_field')
    add(topic, 'ce headers without id', json(good), 'bad_cloudevent', {
      ce_specversion: '1.0',
      ce_source: 's',
      ce_type: 't',
    })
    add(topic, 'ce headers of version 0.3', json(good), 'bad_cloudevent', {
      ce_specversion: '0.3',
      ce_source: 's',
      ce_type: 't',
      ce_id: '1',
    })
    add(topic, 'ce headers that are not UTF-8', json(good), 'bad_cloudevent', {
      ce_specversion: '1.0',
      ce_source: 's',
      ce_type: 't',
      ce_id: Buffer.from([0x61, 0xff]),
    })
    add(
      topic,
      'structured event without content type and with wrong base64',
      json({ specversion: '1.0', source: 's', type: 't', id: '1', data_base64: 'e30*' }),
      'bad_cloudevent',
    )
    add(
      topic,
      'structured event without ts, and no time in its time',
      json({ specversion: '1.0', source: 's', type: 't', id: '1', time: 'x', data: { ...good, ts: undefined } }),
      'bad_cloudevent',
    )
    add(
      topic,
      'structured event without data',
      json({ specversion: '1.0', source: 's', type: 't', id: '1' }),
      'bad_cloudevent',
      {
        'content-type': 'application/cloudevents+json; charset=UTF-8',
      },
    )
  }
  for (const change of [sample, token]) {
    change('ts missing', { ts: undefined }, 'missing_field')
    change('ts null', { ts: null }, 'wrong_type')
    change('ts true', { ts: true }, 'wrong_type')
    change('ts an object', { ts: {} }, 'wrong_type')
    change('ts no time', { ts: 'yesterday' }, 'bad_timestamp')
    change('ts empty', { ts: '' }, 'out_of_range')
    change('ts with a wrong month', { ts: '2026-13-01T00:00:00Z' }, 'bad_timestamp')
    change('ts on the 30th of February', { ts: '2026-02-30T00:00:00Z' }, 'bad_timestamp')
    change('ts 0', { ts: 0 }, 'too_old')
    change('ts 1970', { ts: '1970-01-01T00:00:00Z' }, 'too_old')
    change('ts in seconds', { ts: Math.floor(nowMs / 1000) }, 'too_old')
    change('ts 2099', { ts: '2099-01-01T00:00:00Z' }, 'too_far_ahead')
    change('ts two hours ahead', { ts: nowMs + 7_200_000 }, 'too_far_ahead')
    change('ts in seconds with a fraction', { ts: nowMs / 1000 + 0.25 }, 'too_old')
    change('ts in microseconds', { ts: nowMs * 1000 }, 'too_far_ahead')
    change('ts in nanoseconds', { ts: nowMs * 1e6 }, 'too_far_ahead')
    change('ts beyond every Date', { ts: 1e300 }, 'too_far_ahead')
    change('ts a number in quotes', { ts: String(nowMs) }, 'bad_timestamp')
    change('ts of a minute with a fraction', { ts: '2026-11-20T06:00.5Z' }, 'bad_timestamp')
    change('gpu_index missing', { gpu_index: undefined }, 'missing_field')
    change('gpu_index -1', { gpu_index: -1 }, 'out_of_range')
    change('gpu_index 1e9', { gpu_index: 1e9 }, 'out_of_range')
    change('gpu_index 0.5', { gpu_index: 0.5 }, 'wrong_type')
    change('gpu_index in quotes', { gpu_index: '0' }, 'wrong_type')
    change('host empty', { host: '' }, 'out_of_range')
    change('host of 4 KB', { host: 'h'.repeat(4096) }, 'out_of_range')
    change('host a number', { host: 7 }, 'wrong_type')
    change('event_id an object', { event_id: { a: 1 } }, 'wrong_type')
    change('host of almost 1 MB', { host: 'h'.repeat(1_000_000) }, 'out_of_range')
  }
  sample('gpu_index null', { gpu_index: null }, 'wrong_type')
  token('gpu_index and gpus null', { gpu_index: null, gpus: null }, 'missing_field')
  for (const field of ['model', 'prompt_tokens', 'completion_tokens']) {
    token(`${field} missing`, { [field]: undefined }, 'missing_field')
    token(`${field} null`, { [field]: null }, 'wrong_type')
  }
  for (const field of ['prompt_tokens', 'completion_tokens', 'cached_prompt_tokens', 'requests']) {
    token(`${field} negative`, { [field]: -1 }, 'out_of_range')
    token(`${field} in quotes`, { [field]: '12' }, 'wrong_type')
    token(`${field} a fraction`, { [field]: 1.5 }, 'wrong_type')
    token(`${field} over the bound`, { [field]: 1_000_000_001 }, 'out_of_range')
    raw(`${field} 1e400`, field, '1e400', 'wrong_type')
    raw(`${field} over 2^53`, field, '9007199254740993', 'out_of_range')
    raw(`${field} NaN`, field, 'NaN', 'not_json')
    token(`${field} true`, { [field]: true }, 'wrong_type')
    token(`${field} an array`, { [field]: [1] }, 'wrong_type')
  }
  token('model empty', { model: '' }, 'out_of_range')
  token('more than an hour', { interval_s: 3600.5 }, 'out_of_range')
  token('model a number', { model: 4 }, 'wrong_type')
  token('latency negative', { latency_ms: -1 }, 'out_of_range')
  raw('gpus nested 10,000 deep', 'gpus', `${'['.repeat(10_000)}1${']'.repeat(10_000)}`, 'too_deep')
  token('the store’s own field', { pt_reach: 1 }, 'forbidden_field')
  raw('_bsontype in an unknown field', 'extra', '{"a":{"_bsontype":"ObjectId"}}', 'forbidden_field')
  token('gpus empty', { gpus: [] }, 'out_of_range')
  token('gpus no array', { gpus: 1 }, 'wrong_type')
  token('gpus twice the same', { gpus: [1, 1] }, 'out_of_range')
  token('gpus 40,000 times the same', { gpus: new Array(40_000).fill(1) }, 'out_of_range')
  token('gpus an index too large', { gpus: [0, 1024] }, 'out_of_range')
  token('gpus an index in quotes', { gpus: [0, '1'] }, 'wrong_type')
  raw('unknown integer over 2^53', 'trace_id', '1524831183200260097', 'out_of_range')
  raw('unknown integer over 2^53, nested', 'trace', '{"ids":[1,-9007199254740993]}', 'out_of_range')
  raw('unknown number 1e400', 'extra', '1e400', 'out_of_range')
  token('more cached than prompt', { cached_prompt_tokens: 101 }, 'cached_exceeds_prompt')
  for (const field of ['utilization', 'mem_used_mb', 'mem_total_mb', 'power_w', 'price_per_hour_usd', 'energy_j']) {
    sample(`${field} negative`, { [field]: -1 }, 'out_of_range')
    sample(`${field} in quotes`, { [field]: '0.5' }, 'wrong_type')
    add(
      'gpu',
      `${field} 1e400`,
      Buffer.from(JSON.stringify(goodSample(nowMs, { [field]: '@' })).replace('"@"', '1e400')),
      'wrong_type',
    )
  }
  sample('utilization 70', { utilization: 70 }, 'out_of_range')
  sample('name empty', { name: '' }, 'out_of_range')
  add('token', 'a megabyte of one character', Buffer.alloc(1_000_000, 0x61), 'not_json')
  add('token', 'a megabyte of random bytes', randomBytes(1_000_000), 'not_utf8')
  return records
}

function nestedField(good: Record<string, unknown>, depth: number): Buffer {
  return Buffer.from(`${JSON.stringify(good).slice(0, -1)},"extra":${'['.repeat(depth)}${']'.repeat(depth)}}`)
}

/** The same bytes each time: a linear congruential generator (constants of Numerical Recipes). */
function randomBytes(length: number): Buffer {
  const bytes = Buffer.alloc(length)
  let state = 12_345
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}
