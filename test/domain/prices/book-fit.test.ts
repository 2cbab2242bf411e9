// Which rules of a price book fit no GPU that was seen, in what words that is reported, and with which name beside it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { unmatchedRules } from '../../../src/domain/prices/book-fit.ts'
import { PriceBook } from '../../../src/domain/prices/price-book.ts'
import type { PriceBookDocument, PriceMatch } from '../../../src/domain/prices/price-book-schema.ts'

const NOW_MS = Date.UTC(2026, 5, 1, 12)
const SEEN = [
  { host: 'gpu-1', gpuIndex: 0, uuid: 'GPU-aaaa', name: 'NVIDIA H100 80GB HBM3' },
  { host: 'gpu-1', gpuIndex: 1, uuid: null, name: 'NVIDIA L40S' },
  { host: null, gpuIndex: 7, uuid: null, name: null },
]

function bookOf(matches: (PriceMatch & { from?: string; to?: string })[]): PriceBook {
  const rules = matches.map(({ from, to, ...match }, i) => {
    const time = { ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) }
    return { id: `r${i}`, match, kind: 'spot' as const, usd_per_hour: 1, ...time }
  })
  return new PriceBook({ currency: 'USD', rules } satisfies PriceBookDocument, 1)
}

const CASES: [PriceMatch & { from?: string; to?: string }, string | null][] = [
  [{ name: 'NVIDIA H100*' }, null],
  [{ uuid: 'GPU-aaaa' }, null],
  [{ host: 'gpu-1' }, null],
  [{ host: 'gpu-1', gpu_index: 1 }, null],
  [{ uuid: 'GPU-aaaa', host: 'gpu-1', gpu_index: 0 }, null],
  // It fits, only not now.
  [{ name: '*L40S', to: '2026-01-01' }, null],
  [
    { name: 'NVIDIA-L40S' },
    'never_seen: Rule "r0" matches name "NVIDIA-L40S", which no GPU has that was seen; seen: "NVIDIA L40S"',
  ],
  [
    { name: '*H100-80GB*' },
    'never_seen: Rule "r0" matches name "*H100-80GB*", which no GPU has that was seen; seen: "NVIDIA H100 80GB HBM3"',
  ],
  [
    { name: 'AMD Instinct MI300X' },
    'never_seen: Rule "r0" matches name "AMD Instinct MI300X", which no GPU has that was seen; seen: "NVIDIA H100 80GB HBM3", "NVIDIA L40S"',
  ],
  [{ host: 'GPU-1' }, 'never_seen: Rule "r0" matches host "GPU-1", which no GPU has that was seen; seen: "gpu-1"'],
  [
    { host: 'gpu-1', gpu_index: 3 },
    'not_reported: Rule "r0" matches GPU 3 of host "gpu-1", which has not reported; seen of that host: GPU 0, 1',
  ],
  [
    { host: 'gpu-1', gpu_index: 3, from: '2026-01-01' },
    'not_reported: Rule "r0" matches GPU 3 of host "gpu-1", which has not reported: it is paid for as not monitored; seen of that host: GPU 0, 1',
  ],
  [{ uuid: 'gpu-AAAA' }, 'not_reported: Rule "r0" matches uuid "gpu-AAAA", which has not reported; seen: "GPU-aaaa"'],
  [
    { uuid: 'GPU-aaaa', host: 'gpu-1', gpu_index: 1 },
    'not_reported: Rule "r0" matches uuid "GPU-aaaa", GPU 1 of host "gpu-1", which has not reported; seen: "GPU-aaaa"',
  ],
  [
    { name: 'NVIDIA B200', from: '2027-01-01' },
    'future: Rule "r0" matches name "NVIDIA B200", which no GPU has that was seen; it counts from 2027-01-01T00:00:00.000Z on; seen: "NVIDIA H100 80GB HBM3", "NVIDIA L40S"',
  ],
  [
    { host: 'gone', to: '2026-01-01' },
    'past: Rule "r0" matches host "gone", which no GPU has that was seen; it ended at 2026-01-01T00:00:00.000Z; seen: "gpu-1"',
  ],
]
for (const [match, expected] of CASES) {
  test(`fit: ${JSON.stringify(match)}`, () => {
    const { rules } = unmatchedRules(bookOf([match]), SEEN, NOW_MS)
    assert.deepEqual(
      rules.map(({ state, message }) => `${state}: ${message}`),
      expected === null ? [] : [expected],
    )
  })
}

test('slips come first, at most 20 are listed, and all are counted; without a GPU nothing is', () => {
  const many = Array.from({ length: 30 }, (_, i) => ({ name: `no such GPU ${i}` }))
  const book = bookOf([{ host: 'later', from: '2030-01-01' }, { host: 'gpu-1', gpu_index: 9 }, ...many])
  const { rules, count } = unmatchedRules(book, SEEN, NOW_MS)
  assert.deepEqual([rules.length, count], [20, 32])
  assert.ok(rules.every(({ state }) => state === 'never_seen'))
  assert.deepEqual(unmatchedRules(book, [], NOW_MS), { rules: [], count: 0 })
})
