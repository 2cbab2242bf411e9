// An event that sums over an interval, cut at minutes: parts are whole, add up and lie where the time lies; and what an
// hour's event, sums of some minutes and a request of two minutes cost.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { reachMinutes, TouchedCells } from '../../../src/domain/ledger/buckets.ts'
import { totalNanoUsd } from '../../../src/domain/ledger/rows.ts'
import { partsOf } from '../../../src/domain/ledger/token-parts.ts'
import type { CellRow, LedgerToken } from '../../../src/domain/ledger/types.ts'
import { initialBook } from '../../../src/domain/prices/book-defaults.ts'
import { PriceBook } from '../../../src/domain/prices/price-book.ts'
import { ledgerRows, type Sample, type Usage } from '../../oracle/ledger-harness.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const T0 = Date.UTC(2026, 10, 20, 7)
const book = new PriceBook(initialBook(3.6), 1)

function event(atMs: number, fields: Partial<LedgerToken> = {}): LedgerToken & Usage {
  const where = { host: 'box-3', gpu_index: 0, model: 'mixtral' }
  return { _id: `pt1e:${atMs}`, ts: new Date(T0 + atMs), ...where, prompt_tokens: 0, completion_tokens: 0, ...fields }
}

/** `minute: requests uncached cached completion` of each part. */
function cut(one: LedgerToken): string[] {
  return partsOf(one).map(({ ts, requests, prompt_tokens, cached_prompt_tokens: cached = 0, completion_tokens }) => {
    const minute = Math.floor((ts.getTime() - T0) / MINUTE)
    return `${minute}: ${requests} ${prompt_tokens - cached} ${cached} ${completion_tokens}`
  })
}

test('an instant, and an interval within a minute, is its own part', () => {
  for (const interval_s of [undefined, 0, 0.0004, 5, 30]) {
    const one = event(30_000, interval_s === undefined ? {} : { interval_s })
    assert.deepEqual(partsOf(one), [one])
    assert.equal(reachMinutes(one), 0)
  }
})

test('counts are spread evenly over the interval as whole numbers, each for itself', () => {
  const counts = { requests: 3, prompt_tokens: 1000, cached_prompt_tokens: 10, completion_tokens: 7 }
  assert.deepEqual(cut(event(150_000, { interval_s: 150, ...counts })), [
    '0: 1 396 4 2',
    '1: 1 396 4 3',
    '2: 1 198 2 2',
  ])
  assert.deepEqual(cut(event(90_000, { interval_s: 60, prompt_tokens: 3 })), ['0: 0 1 0 0', '1: 1 2 0 0'])
})

test('an interval that ends with a minute has nothing in the next one', () => {
  assert.deepEqual(cut(event(MINUTE, { interval_s: 5, prompt_tokens: 100 })), ['0: 1 100 0 0'])
  assert.deepEqual(cut(event(MINUTE + 1, { interval_s: 0.002, prompt_tokens: 100 })), ['0: 0 50 0 0', '1: 1 50 0 0'])
})

test('a single request without tokens is counted where the interval ends; minutes without a whole token have no part', () => {
  assert.deepEqual(cut(event(30 * MINUTE, { interval_s: 1800 })), ['29: 1 0 0 0'])
  assert.deepEqual(cut(event(4 * MINUTE, { interval_s: 240, requests: 0, prompt_tokens: 2 })), [
    '1: 0 1 0 0',
    '3: 0 1 0 0',
  ])
  assert.deepEqual(cut(event(4 * MINUTE, { interval_s: 240, requests: 0 })), [])
})

test('more than an hour, which only an older version took, is an instant', () => {
  const day = event(30_000, { interval_s: 86_400, prompt_tokens: 5 })
  assert.deepEqual(partsOf(day), [day])
  assert.equal(partsOf(event(30_000, { interval_s: 3600, prompt_tokens: 1e9 })).length, 61)
})

test('parts add up, lie in the interval, are in proportion to its minutes, and are all touched', () => {
  const count = fc.oneof(fc.nat(20), fc.nat(1_000_000_000), fc.constantFrom(2 ** 52 + 1, Number.MAX_SAFE_INTEGER))
  const anyEvent = fc.record({
    atMs: fc.integer({ min: -HOUR, max: HOUR }),
    interval_s: fc.oneof(fc.constantFrom(0.001, 60, 3600), fc.double({ min: 0, max: 3600, noNaN: true })),
    prompt: count,
    cached: fc.nat(100),
    completion: count,
    requests: fc.option(count, { nil: undefined }),
  })
  fc.assert(
    fc.property(anyEvent, ({ atMs, interval_s, prompt, cached, completion, requests }) => {
      const whole = { interval_s, prompt_tokens: Math.max(prompt, cached), cached_prompt_tokens: cached }
      const one = event(atMs, {
        ...whole,
        completion_tokens: completion,
        ...(requests === undefined ? {} : { requests }),
      })
      const lengthMs = Math.round(interval_s * 1000)
      const [fromMs, toMs] = [one.ts.getTime() - lengthMs, one.ts.getTime()]
      const parts = partsOf(one)
      const sum = (of: (part: LedgerToken) => number) => parts.reduce((all, part) => all + BigInt(of(part)), 0n)
      assert.equal(
        sum((part) => part.prompt_tokens),
        BigInt(one.prompt_tokens),
      )
      assert.equal(
        sum((part) => part.cached_prompt_tokens ?? 0),
        BigInt(cached),
      )
      assert.equal(
        sum((part) => part.completion_tokens),
        BigInt(completion),
      )
      assert.equal(
        sum((part) => part.requests ?? 1),
        BigInt(requests ?? 1),
      )
      const cells = new TouchedCells()
      cells.touchToken(one)
      const touched = cells.dirtyMinutes().map(({ startMs }) => startMs)
      if (reachMinutes(one) === 0) return
      assert.deepEqual(touched.length, Math.ceil(toMs / MINUTE) - Math.floor(fromMs / MINUTE))
      for (const { ts, completion_tokens, interval_s: left } of parts) {
        const startMs = Math.floor(ts.getTime() / MINUTE) * MINUTE
        assert.ok(touched.includes(startMs) && left === undefined)
        const ms = Math.min(toMs, startMs + MINUTE) - ts.getTime()
        assert.ok(ts.getTime() >= fromMs && ms > 0)
        assert.ok(Math.abs(completion_tokens - (completion / lengthMs) * ms) <= 1 + completion * 1e-15)
      }
    }),
    { numRuns: 300 },
  )
})

/** A sample a minute at 80 %. */
function samples(count: number): Sample[] {
  return Array.from({ length: count }, (_, i) => {
    return { _id: `pt1e:s${i}`, ts: new Date(T0 + i * MINUTE), host: 'box-3', gpu_index: 0, utilization: 0.8 }
  })
}

function costOf(
  usages: Usage[],
  minutes: number,
): { usd: number; tokens: number; perMillion: number; rows: CellRow[] } {
  const rows = ledgerRows({ samples: samples(minutes + 1), usages }, { fromMs: T0 - HOUR, toMs: T0 + 2 * HOUR }, book)
  const mine = rows.filter(({ model }) => model === 'mixtral')
  const usd = Number(mine.reduce((sum, row) => sum + totalNanoUsd(row), 0n)) / 1e9
  const tokens = Number(mine.reduce((sum, row) => sum + row.prompt_tokens + row.completion_tokens, 0n))
  return { usd, tokens, perMillion: (usd / tokens) * 1e6, rows }
}

const million = { prompt_tokens: 1_000_000, completion_tokens: 200_000, requests: 500 }

test('an hour of 1.2 million tokens on a GPU of 3.60 USD/h is 3.00 USD per million, not 0.05', () => {
  const aligned = costOf([event(HOUR, { interval_s: 3600, ...million })], 60)
  assert.deepEqual([aligned.usd, aligned.tokens, aligned.perMillion], [3.6, 1_200_000, 3])
  assert.ok(aligned.rows.every(({ model }) => model === 'mixtral'))
  // Ten seconds lie before the first sample: tokens show that the GPU was present then too, for that minute.
  const early = costOf([event(HOUR - 10_000, { interval_s: 3600, ...million })], 60)
  assert.deepEqual([early.usd, early.tokens], [3.66, 1_200_000])
  const hour = early.rows.filter(({ assumed_ms }) => assumed_ms === 0n)
  assert.equal(
    hour.reduce((sum, row) => sum + totalNanoUsd(row), 0n),
    3_600_000_000n,
  )
  assert.equal(
    hour.reduce((sum, row) => sum + row.requests, 0n),
    499n,
  )
})

test('sums of three minutes cost three minutes each', () => {
  const three = [1, 2, 3].map((n) => event(n * 3 * MINUTE, { interval_s: 180, prompt_tokens: 60_000 }))
  assert.deepEqual([costOf(three, 9).usd, costOf(three, 9).tokens], [0.54, 180_000])
})

test('a request of two minutes pays for two minutes, next to one of an instant in each', () => {
  const long = event(121_000, { interval_s: 120, completion_tokens: 8000, tenant: 'long' })
  const tiny = [30_000, 90_000].map((atMs) => event(atMs, { completion_tokens: 10, tenant: 'tiny' }))
  const { rows } = costOf([long, ...tiny], 3)
  const usd = (of: string) =>
    Number(rows.filter(({ tenant }) => tenant === of).reduce((sum, row) => sum + totalNanoUsd(row), 0n)) / 1e9
  assert.ok(usd('long') > 0.179 && usd('tiny') < 0.001, `${usd('long')} and ${usd('tiny')}`)
})
