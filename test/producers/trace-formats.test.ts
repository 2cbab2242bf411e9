// Traces of other people as they are published: other columns, quotes, relative times, Extended JSON, gzip; and that
// nothing in a file can crash the reader.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { sleepUntil } from '../../src/producers/long-sleep.ts'
import { readTrace, type TraceError, type TraceEvent, type TraceNote } from '../../src/producers/trace-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'pertoken-trace-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const BEGIN_MS = Date.UTC(2026, 0, 1)
type Item = TraceEvent | TraceError | TraceNote

async function read(content: string | Buffer, name = 'trace.csv', beginMs?: number): Promise<Item[]> {
  const input = [typeof content === 'string' ? Buffer.from(content) : content]
  const options = {
    input: (async function* () {
      yield* input
    })(),
    ...(beginMs === undefined ? {} : { beginMs }),
  }
  const items: Item[] = []
  for await (const item of readTrace(name, options)) items.push(item)
  return items
}

/** Time, counts and model of each event; the text of notes and errors. */
function shortOf(items: readonly Item[]): unknown[] {
  return items.map((item) => {
    if ('note' in item) return item.note
    if ('error' in item) return item.error
    const { ts, prompt_tokens, completion_tokens, model } = item.event as unknown as Record<string, unknown>
    return [ts, prompt_tokens, completion_tokens, model]
  })
}

test('a table is read by its columns, whatever their order, spelling, quotes and separator; others are named', async () => {
  const row = ['2024-10-15T00:00:00.012Z', 1823, 44, 'trace']
  for (const [text, note] of [
    ['TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15 00:00:00.012345,1,1823,44', '"NumImages"'],
    ['"TIMESTAMP","ContextTokens","GeneratedTokens"\n"2024-10-15 00:00:00.012345",1823,44', null],
    ['TIMESTAMP, ContextTokens, GeneratedTokens\n2024-10-15 00:00:00.012345, 1823.0, 44.0', null],
    ['generated_tokens;context_tokens;timestamp\n44;1823;2024-10-15 00:00:00.012345+00:00', null],
    ['Timestamp,"a ""b"", c",Input Tokens,Output Tokens\n1728950400.012,"x, ""y""",1823,44', '"a \\"b\\", c"'],
  ] as const) {
    const notes = note === null ? [] : [`Not read, as no field of an event is known for it: ${note}`]
    assert.deepEqual(shortOf(await read(text)), [...notes, row], text)
  }
  const [header] = shortOf(await read('Timestamp,time,Request tokens,Response tokens\n'))
  assert.match(String(header), /expected one column that is ts, found "Timestamp" and "time"/)
  assert.match(String(shortOf(await read('[\n{"ts":1}]'))[0]), /Is a JSON array/)
  assert.match(String(shortOf(await read('ts,prompt_tokens\n'))[0]), /missing: completion_tokens/)
})

test('relative times count from the beginning that is given; without one the trace is refused, with what to do', async () => {
  const burst = 'Timestamp,Model,Request tokens,Response tokens\n5,GPT-4,472,18\n45.5,ChatGPT,1087,230'
  const mooncake = '{"timestamp": 5000, "input_length": 6755, "output_length": 500, "hash_ids": [1, 2]}'
  assert.deepEqual(shortOf(await read(burst, 'b.csv', BEGIN_MS)), [
    ['2026-01-01T00:00:05.000Z', 472, 18, 'GPT-4'],
    ['2026-01-01T00:00:45.500Z', 1087, 230, 'ChatGPT'],
  ])
  assert.deepEqual(shortOf(await read(mooncake, 'm.jsonl', BEGIN_MS)), [
    'Not read, as no field of an event is known for it: "hash_ids"',
    [BEGIN_MS + 5000, 6755, 500, 'm'],
  ])
  for (const text of [burst, mooncake]) {
    const items = shortOf(await read(text)).filter((item) => !String(item).startsWith('Not read'))
    assert.equal(items.length, 1)
    assert.match(String(items[0]), /relative to the beginning of the trace: say when that was with --begin INSTANT/)
  }
  const mixed = shortOf(await read(`${burst}\n2026-01-01 00:00:00,m,1,1`, 'b.csv', BEGIN_MS))
  assert.match(String(mixed[2]), /expected the same kind as in the rows before/)
})

test('what mongoexport writes is the event that replay --from-mongo makes of the document', async () => {
  const lines = [
    '{"_id":{"$oid":"60f6d845caa1861dcf1631ae"},"ts":{"$date":"2026-11-20T10:00:00.000Z"},"model":"m","prompt_tokens":{"$numberLong":"100"},"completion_tokens":{"$numberInt":"20"},"host":"h","tenant":null,"cost_per_token":0.1,"big":{"$numberLong":"1524831183200260097"}}',
    '{"_id":{"$oid":"60f6d845caa1861dcf1631af"},"ts":{"$date":{"$numberLong":"1763632801000"}},"model":"m","prompt_tokens":1,"completion_tokens":2}',
    '{"_id":"pt1l:x:0:1:2","ts":{"$date":"2026-11-20T10:00:00Z"},"model":"m","prompt_tokens":1,"completion_tokens":2}',
  ]
  const items = await read(lines.join('\n'), 'x.jsonl')
  const [first, second, own] = items
  assert.ok('event' in first! && 'event' in second! && 'error' in own!)
  assert.deepEqual(first.event, {
    ts: '2026-11-20T10:00:00.000Z',
    model: 'm',
    prompt_tokens: 100,
    completion_tokens: 20,
    host: 'h',
    big: '1524831183200260097',
    event_id: 'mongo-60f6d845caa1861dcf1631ae',
    gpu_index: 0,
  })
  assert.equal(second.event.ts, '2025-11-20T10:00:01.000Z')
  assert.match(own.error, /a document that pertoken itself has stored: .* restore it with mongorestore/)
})

test('gzip is read by its first bytes and gives the same events; what is cut off is an error after the good lines', async () => {
  const rows = Array.from({ length: 20_000 }, (_, i) => `2024-10-15 00:00:00.${i},${i},1`)
  const text = ['TIMESTAMP,ContextTokens,GeneratedTokens', ...rows].join('\n')
  const zipped = gzipSync(text)
  assert.deepEqual(await read(zipped, 'a.csv.gz'), await read(text, 'a.csv'))
  const cut = await read(zipped.subarray(0, zipped.length / 2))
  const last = cut.at(-1)!
  assert.ok(cut.length > 1 && 'error' in last, `${cut.length}`)
  assert.match(last.error, /Gzip data is cut off or damaged here/)
})

test('a folder, UTF-16 and other compression are refused with what to do', async () => {
  await assert.rejects(readTrace(folder).next(), /is a folder, expected a file/)
  for (const [bytes, message] of [
    [Buffer.from('\ufeffTIMESTAMP', 'utf16le'), /is UTF-16, expected UTF-8; convert it/],
    [Buffer.from('TIMESTAMP', 'utf16le'), /is UTF-16/],
    [Buffer.from('504b0304aaaa', 'hex'), /is a zip archive/],
    [Buffer.from('28b52ffdaaaa', 'hex'), /compressed by zstd/],
  ] as const) {
    await assert.rejects(read(bytes), message)
  }
  writeFileSync(join(folder, 'good.jsonl'), '{"ts":"2026-01-01T00:00:00Z","prompt_tokens":1,"completion_tokens":1}')
  for await (const item of readTrace(join(folder, 'good.jsonl'))) assert.ok('event' in item)
})

const seed = Number(process.env['FAST_CHECK_SEED'] ?? Date.now() % 2 ** 31)

test('10,000 mutated files: each line is an event, an error or a note, and nothing crashes', async (t) => {
  t.diagnostic(`FAST_CHECK_SEED=${seed}`)
  const starts = [
    'TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15 00:00:00.01,1,1823,44\n2024-10-15 00:00:01.01,1,2,4',
    'Timestamp,"Model",Request tokens,Response tokens\n5,"GPT-4",472,18\n45.5,"Chat ""x""",1087,230',
    '{"timestamp": 0, "input_length": 6755, "output_length": 500, "hash_ids": [1, 2]}\n{"timestamp": 9, "input_length": 1, "output_length": 2}',
    '{"_id":{"$oid":"60f6d8"},"ts":{"$date":{"$numberLong":"1763632801000"}},"model":"m","prompt_tokens":{"$numberLong":"1"},"completion_tokens":2}',
  ].flatMap((text) => [Buffer.from(text), gzipSync(text)])
  const edit = fc.record({ at: fc.nat(400), length: fc.nat(12), bytes: fc.uint8Array({ maxLength: 8 }) })
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...starts), fc.array(edit, { maxLength: 5 }), async (start, edits) => {
      const bytes = edits.reduce((now, { at, length, bytes: put }) => {
        const from = at % (now.length + 1)
        return Buffer.concat([now.subarray(0, from), put, now.subarray(from + length)])
      }, start)
      try {
        const items = await read(bytes, 'x', BEGIN_MS)
        assert.ok(items.length > 0)
      } catch (error) {
        assert.match((error as Error).message, /^Cannot read "x": is /)
      }
    }),
    { numRuns: 10_000, seed },
  )
})

test('a pause of months is slept through in parts, and a stop ends it', async () => {
  let nowMs = BEGIN_MS
  let parts = 0
  const stopping = new AbortController()
  const tools = {
    nowMs: () => nowMs,
    sleep: async (ms: number) => {
      assert.ok(ms > 0 && ms < 2 ** 31, `${ms}`)
      nowMs += ms
      if (++parts === 2500) stopping.abort()
    },
  }
  await sleepUntil(BEGIN_MS + 30 * 86_400_000, stopping.signal, tools)
  assert.deepEqual([nowMs - BEGIN_MS, parts], [30 * 86_400_000, 720])
  await sleepUntil(BEGIN_MS + 1e14, stopping.signal, tools)
  assert.equal(parts, 2500)
})
