// One sign, or a few, a great many times, at every place of what operators and strangers write: events, nvidia-smi's
// table, price books, traces, `.env`. An outcome each, in time that grows with the length and not with its square: a
// pattern that tries every beginning, or a look at the whole line for each error in it, takes minutes here.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import { parseMigProfiles, parseNvidiaSmi } from '../src/agent/gpu/nvidia-smi-csv.ts'
import { parseEnvFile } from '../src/cli/env-file.ts'
import { parsePriceBook } from '../src/cli/wiring/price-book-file.ts'
import { decodeRecord } from '../src/domain/events/decode.ts'
import { readTrace } from '../src/producers/trace-file.ts'
import { goodToken } from './bad-records.ts'

const LENGTH = 60_000
/** Linear work takes a tenth of it on two cores that others use as well. */
const LIMIT_MS = 4000
const NOW = Date.UTC(2026, 10, 27, 20)
const SIGNS = [
  ...['[', ']', '{', '}', '"', "'", '`', '""', '","', ' ', ', ', ',', ';', '\t', '\n', '\r', '\\', '\0', 'a', '0', '-'],
  ...[
    '[]',
    '[1,',
    '{"a":',
    '{a: ',
    '#',
    ' #',
    '=',
    'export ',
    'A=',
    'A="\n',
    ': ',
    '- ',
    '? ',
    '&a ',
    '*a,',
    '!',
    '%',
    '@,',
  ],
  ...['- &a\n', '- *b\n', 'x: 0x1\n', 'index, ', 'GPU 0:\n MIG a Device 0:', '2026-', '9'],
]
const BOOK = 'currency: USD\nrules:\n  - { id: a, match: { host: HERE }, kind: spot, usd_per_hour: 1 }\n'
const EVENT = JSON.stringify(goodToken(NOW, { host: 'HERE' }))

async function traceOf(text: string): Promise<void> {
  async function* input() {
    yield Buffer.from(text)
  }
  for await (const _ of readTrace('long', { input: input(), beginMs: 0 }));
}

function decode(value: string, headers: Record<string, string> = {}): void {
  const map = new Map(Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)]))
  const record = { offset: 1, timestampMs: NOW, value: Buffer.from(value), headers: map }
  decodeRecord('token', 'pt1l:t:0:', record, crc32, () => NOW)
}

function smi(text: string): void {
  try {
    parseNvidiaSmi(text)
  } catch (error) {
    if ((error as Error).name !== 'GpuSourceError') throw error
  }
}

const kindOf = (name: string) => (name === 'A' ? 'secret' : 'foreign')
const READERS: Record<string, (long: string) => unknown> = {
  'an event': (long) => decode(long),
  'the value of a field': (long) => decode(EVENT.replace('"HERE"', JSON.stringify(long))),
  'a raw value': (long) => decode(EVENT.replace('"HERE"', long)),
  'an unknown field': (long) => decode(EVENT.replace('"host"', `"other":${JSON.stringify(long)},"${'x'.repeat(40)}"`)),
  'a name of a field': (long) => decode(EVENT.replace('"host"', JSON.stringify(long))),
  'a header': (long) => decode(EVENT, { ce_specversion: long, 'content-type': long, ce_id: long, ce_time: long }),
  'an answer of nvidia-smi': smi,
  'a cell of nvidia-smi': (long) => smi(`index, name [x], utilization.gpu [%]\n0, ${long}, 5 %\n`),
  'a figure of nvidia-smi': (long) => smi(`index, name [x], utilization.gpu [%]\n0, a, ${long}\n`),
  'a list of nvidia-smi': (long) => parseMigProfiles(`GPU 0: \n  ${long}`),
  'a price book': parsePriceBook,
  'a value of a price book': (long) => parsePriceBook(BOOK.replace('HERE', () => long)),
  'the end of a price book': (long) => parsePriceBook(BOOK + long),
  'a trace': traceOf,
  'a row of a trace': (long) => traceOf(`TIMESTAMP,ContextTokens,GeneratedTokens\n${long}`),
  'a cell of a trace': (long) => traceOf(`TIMESTAMP,ContextTokens,GeneratedTokens\n5,${long},1`),
  'a JSON line': (long) => traceOf(`{"timestamp":0,"input_length":1,"output_length":1,"x":${long}`),
  '.env': (long) => parseEnvFile(long, kindOf),
  'a value of .env': (long) => parseEnvFile(`A=${long}`, kindOf),
  'a quoted value of .env': (long) => parseEnvFile(`B="${long}"`, kindOf),
}

for (const [what, read] of Object.entries(READERS)) {
  test(`${what}: ${LENGTH} characters of one kind have an outcome in time`, async () => {
    for (const sign of SIGNS) {
      const beganMs = performance.now()
      await read(sign.repeat(LENGTH / sign.length))
      const tookMs = performance.now() - beganMs
      assert.ok(tookMs < LIMIT_MS, `${tookMs} ms: ${JSON.stringify(sign)}`)
    }
  })
}
