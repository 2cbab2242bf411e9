// What stands in examples/ works: the price book has no problem, the trace has no wrong line, and both together give
// the cost that examples/README.md states. (The seed is used by test/producers/seed.test.ts and most flow tests.)

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { readPriceBook } from '../../src/cli/wiring/price-book-file.ts'
import { totalNanoUsd } from '../../src/domain/ledger/rows.ts'
import { PriceBook } from '../../src/domain/prices/price-book.ts'
import { readTrace } from '../../src/producers/trace-file.ts'
import { ledgerRows, type Sample, type Usage } from '../oracle/ledger-harness.ts'
import { sumRows } from '../report/rows.ts'

const FROM_MS = Date.UTC(2026, 0, 15, 12)
const MINUTES = 3

test('the price book of examples/ is valid and has every kind of price', () => {
  const { book, problems, warnings } = readPriceBook('examples/price-book.yaml')
  assert.deepEqual([problems, warnings], [[], []])
  assert.deepEqual(new Set(book!.rules.map(({ kind }) => kind)), new Set(['on-demand', 'spot', 'reserved', 'owned']))
})

test('the trace of examples/ replays line by line, and costs what its README states', async () => {
  const samples: Sample[] = []
  const usages: Usage[] = []
  for await (const item of readTrace('examples/trace.jsonl')) {
    assert.ok('event' in item, JSON.stringify(item))
    const document = { ...item.event, _id: item.event.event_id, ts: new Date(item.event.ts) }
    if (item.topic === 'gpu') samples.push(document as Sample)
    else usages.push(document as Usage)
  }
  assert.deepEqual([samples.length, usages.length], [6, 4])
  const book = new PriceBook(readPriceBook('examples/price-book.yaml').book!, 1)
  const range = { fromMs: FROM_MS, toMs: FROM_MS + MINUTES * 60_000 }
  const rows = sumRows(ledgerRows({ samples, usages }, range, book).map(({ start: _, host: __, ...row }) => row))
  const table = rows.map((row) => {
    const money = [row.busy_nano_usd, row.loaded_idle_nano_usd, totalNanoUsd(row)]
    return [
      row.tenant ?? '-',
      row.prompt_tokens + row.completion_tokens,
      ...money.map((nanoUsd) => Number(nanoUsd) / 1e9),
    ]
  })
  const stated = readFileSync('examples/README.md', 'utf8').matchAll(/^\| llama\S+ \| (.+) \|$/gm)
  assert.deepEqual(
    table.map((row) => row.join(' | ')),
    [...stated].map(([, row]) => row),
  )
})
