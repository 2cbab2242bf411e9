// The trace reader: CSV of the published format, JSON lines, wrong lines, and ids that make a replay repeatable.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import {
  readTrace,
  type TraceError,
  type TraceEvent,
  type TraceNote,
  type TraceOptions,
} from '../../src/producers/trace-file.ts'

const HEADER = 'TIMESTAMP,ContextTokens,GeneratedTokens'
const ROWS = [
  '2023-11-16 18:17:03.9799600,4808,10',
  '2023-11-16 18:17:04.0319600,3180,8',
  '2023-11-16 18:17:04.0319600,3180,8',
]
const REAL_TRACE = new URL('../../../shared/data/azure-llm-2023/code.csv', import.meta.url).pathname

let folder = ''
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pertoken-trace-'))
})
after(() => rm(folder, { recursive: true, force: true }))

test('rows of a CSV become token usage, with LF or CRLF, with or without a last newline or byte order mark', async () => {
  const variants = [
    [HEADER, ...ROWS].join('\n'),
    `${[HEADER, ...ROWS].join('\n')}\n`,
    [HEADER, ...ROWS].join('\r\n'),
    `\ufeff${[HEADER, ...ROWS].join('\r\n')}\r\n\r\n`,
  ]
  const [first, ...others] = await Promise.all(variants.map((text) => read(text, { name: 'small.csv' })))
  for (const other of others) assert.deepEqual(other, first)
  const ids = eventsOf(first!).map(({ event }) => event.event_id!)
  assert.equal(new Set(ids).size, 3)
  for (const id of ids) assert.match(id, /^[0-9a-f]{32}$/)
  const common = { host: 'replay', gpu_index: 0, model: 'small' }
  assert.deepEqual(first, [
    {
      topic: 'token',
      line: 2,
      event: {
        ts: '2023-11-16T18:17:03.979Z',
        prompt_tokens: 4808,
        completion_tokens: 10,
        ...common,
        event_id: ids[0],
      },
    },
    {
      topic: 'token',
      line: 3,
      event: { ts: '2023-11-16T18:17:04.031Z', prompt_tokens: 3180, completion_tokens: 8, ...common, event_id: ids[1] },
    },
    {
      topic: 'token',
      line: 4,
      event: { ts: '2023-11-16T18:17:04.031Z', prompt_tokens: 3180, completion_tokens: 8, ...common, event_id: ids[2] },
    },
  ])
})

test('options fill in model, host, GPU and tenant', async () => {
  const options = { model: 'm', host: 'h', gpuIndex: 3, tenant: 't' }
  const [item] = eventsOf(await read([HEADER, ROWS[0]].join('\n'), { options }))
  const { event_id, ...event } = item!.event
  assert.ok(event_id)
  assert.deepEqual(event, {
    ts: '2023-11-16T18:17:03.979Z',
    prompt_tokens: 4808,
    completion_tokens: 10,
    host: 'h',
    gpu_index: 3,
    model: 'm',
    tenant: 't',
  })
})

test('a second reading has the same ids, a longer file adds only its new rows, under another name as well', async () => {
  const short = idsOf(await read([HEADER, ...ROWS].join('\n'), { name: 'a.csv' }))
  const long = idsOf(
    await read([HEADER, ...ROWS, ROWS[1]!, '2023-11-16 18:18:00.0000000,1,1'].join('\n'), { name: 'b.csv' }),
  )
  assert.deepEqual(long.slice(0, 3), short)
  assert.equal(new Set(long).size, 5)
})

test('each option makes other ids', async () => {
  const variants: TraceOptions[] = [{}, { model: 'm' }, { host: 'h' }, { gpuIndex: 1 }, { tenant: 'm' }]
  const ids = await Promise.all(
    variants.map(async (options) => idsOf(await read([HEADER, ROWS[0]].join('\n'), { options }))),
  )
  assert.equal(new Set(ids.flat()).size, variants.length)
})

test('a wrong row is an error that says what was found and expected, and the rows after it go on', async (t) => {
  const cases: [row: string, error: RegExp][] = [
    ['2023-11-16 18:17:03.97,1', /Row has 2 columns: expected 3/],
    ['2023-11-16 18:17:03.97,1,2,3', /Row has 4 columns: expected 3/],
    ['yesterday,1,2', /TIMESTAMP is "yesterday": expected a UTC time/],
    ['2023-02-30 00:00:00,1,2', /TIMESTAMP is "2023-02-30 00:00:00"/],
    ['2014-02-03 00:00:00,1,2', /ts: .*expected 2015 or later/],
    ['2023-11-16 18:17:03.97,-1,2', /ContextTokens is "-1": expected an integer from 0 to 1000000000/],
    ['2023-11-16 18:17:03.97,1,2.5', /GeneratedTokens is "2.5"/],
    ['2023-11-16 18:17:03.97,1,', /GeneratedTokens is ""/],
    ['2023-11-16 18:17:03.97,x,y', /ContextTokens is "x".*; GeneratedTokens is "y"/],
    ['2023-11-16 18:17:03.97,1000000001,1', /prompt_tokens: Is 1000000001/],
  ]
  for (const [row, expected] of cases) {
    await t.test(row, async () => {
      const [wrong, right] = await read([HEADER, row, ROWS[0]].join('\n'))
      assert.ok(wrong !== undefined && 'error' in wrong)
      assert.equal(wrong.line, 2)
      assert.match(wrong.error, expected)
      assert.ok(right !== undefined && 'event' in right && right.line === 3)
    })
  }
})

test('lines that are too long or not UTF-8 are errors, and the lines after them go on', async () => {
  const long = Buffer.alloc(1_048_577, '1')
  const items = await read(
    Buffer.concat([Buffer.from(`${HEADER}\n`), long, Buffer.from([10, 0xff, 10]), Buffer.from(ROWS[0]!)]),
  )
  assert.deepEqual(
    items.map((item) => ('error' in item ? item : item.line)),
    [
      { line: 2, error: 'Line is too long: expected at most 1048576 bytes' },
      { line: 3, error: 'Line is not valid UTF-8: expected UTF-8' },
      4,
    ],
  )
})

test('a file without the header, or without anything, gives one error and ends', async () => {
  for (const [text, error] of [
    ['', /File is empty/],
    [ROWS.join('\n'), /Header is "2023-11-16 18:17:03.9799600,4808,10": expected "TIMESTAMP,/],
    [`time,in,out\n${ROWS[0]}`, /Header is "time,in,out"/],
  ] as const) {
    const items = await read(text)
    assert.equal(items.length, 1)
    assert.ok('error' in items[0]! && items[0].line === 1)
    assert.match(items[0].error, error)
  }
})

test('JSON lines are known by name or first byte, told apart by shape, and keep what they have', async () => {
  const usage = {
    ts: '2026-01-01T00:00:00Z',
    model: 'own',
    prompt_tokens: 1,
    completion_tokens: 2,
    gpus: [0, 1],
    extra: [1],
  }
  const lines = [
    usage,
    { ...usage, event_id: 'mine', host: 'own' },
    { ts: 1_767_225_600_000, utilization: 0.5 },
    { prompt_tokens: 1 },
    { ts: 1_767_225_600_000, utilization: 70 },
  ]
  const text = `${lines.map((line) => JSON.stringify(line)).join('\n')}\n\nnot json\n[]\n{"ts":"2026-01-01T00:00:00Z","ts":"2026-01-01T00:00:00Z"}`
  const options = { model: 'm', host: 'h', gpuIndex: 2, tenant: 't' }
  const [items, byName] = await Promise.all([
    read(text, { name: 'x.log', options }),
    read(`\n${text}`, { name: 'x.NDJSON', options }),
  ])
  assert.deepEqual(
    byName,
    items.map((item) => ({ ...item, line: item.line + 1 })),
  )
  const [first, , sample] = idsOf(items)
  assert.deepEqual(eventsOf(items), [
    { topic: 'token', line: 1, event: { ...usage, host: 'h', tenant: 't', event_id: first } },
    { topic: 'token', line: 2, event: { ...usage, host: 'own', tenant: 't', event_id: 'mine' } },
    { topic: 'gpu', line: 3, event: { ...lines[2], host: 'h', gpu_index: 2, event_id: sample } },
  ])
  const errors = items.filter((item): item is TraceError => 'error' in item)
  assert.deepEqual(
    errors.map(({ line }) => line),
    [4, 5, 7, 8, 9],
  )
  for (const [i, expected] of [
    /ts: Is missing.*completion_tokens: Is missing/,
    /per cent/,
    /Not JSON/,
    /Is an array: expected a JSON object/,
    /twice/,
  ].entries()) {
    assert.match(errors[i]!.error, expected)
  }
})

test('a file that is not there is an error of the file system', async () => {
  await assert.rejects(readTrace(join(folder, 'absent.csv')).next(), { code: 'ENOENT' })
})

test('the published code trace is read whole', {
  skip: existsSync(REAL_TRACE) ? false : `no file ${REAL_TRACE}`,
}, async () => {
  const ids = new Set<string>()
  const totals = { rows: 0, promptTokens: 0, completionTokens: 0 }
  for await (const item of readTrace(REAL_TRACE)) {
    assert.ok('event' in item && item.topic === 'token', JSON.stringify(item))
    ids.add(item.event.event_id!)
    totals.rows++
    totals.promptTokens += item.event.prompt_tokens
    totals.completionTokens += item.event.completion_tokens
  }
  assert.deepEqual(totals, { rows: 8819, promptTokens: 18_059_974, completionTokens: 245_896 })
  assert.equal(ids.size, 8819)
})

async function read(
  content: string | Buffer,
  { name = 'trace.csv', options }: { name?: string; options?: TraceOptions } = {},
) {
  const own = await mkdtemp(join(folder, 'case-'))
  await writeFile(join(own, name), content)
  const items: (TraceEvent | TraceError | TraceNote)[] = []
  for await (const item of readTrace(join(own, name), options)) items.push(item)
  return items
}

function eventsOf(items: readonly (TraceEvent | TraceError | TraceNote)[]): TraceEvent[] {
  return items.filter((item): item is TraceEvent => 'event' in item)
}

function idsOf(items: readonly (TraceEvent | TraceError | TraceNote)[]): string[] {
  return eventsOf(items).map(({ event }) => event.event_id!)
}
