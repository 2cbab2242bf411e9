// The seed file's checks, and the pairs that are made from it.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { checkEvent } from '../../src/domain/events/decode.ts'
import { type PairOptions, pairs, parseSeed, SeedError, type SeedGpu, type SeedPair } from '../../src/producers/seed.ts'

const START_MS = Date.UTC(2026, 0, 5, 8)
const OPTIONS: PairOptions = { startMs: START_MS, seedNumber: 1, hostname: 'box' }
const EXAMPLE = readFileSync(new URL('../../examples/gpu_seed.json', import.meta.url), 'utf8')

test('the example seed has four GPUs', () => {
  const seed = parseSeed(EXAMPLE, 'examples/gpu_seed.json')
  assert.deepEqual(
    seed.map((gpu) => gpu.gpu_index),
    [0, 1, 2, 3],
  )
})

test('a seed without indexes is numbered by place; unknown fields and nulls are left out', () => {
  assert.deepEqual(parseSeed('\ufeff[{"name": "A", "colour": "red", "host": null}, {"power_w": 30}]'), [
    { gpu_index: 0, name: 'A' },
    { gpu_index: 1, power_w: 30 },
  ])
})

test('all issues of a seed are reported at once, with index, field, value and what is allowed', () => {
  const text = JSON.stringify([
    { gpu_index: -1, utilization: 70 },
    { gpu_index: 1, name: '', mem_used_mb: 20, mem_total_mb: 10, prompt_tokens: 1.5 },
    'GPU',
    { gpu_index: 1, price_per_hour_usd: '2' },
  ])
  assert.throws(
    () => parseSeed(text, 'my.json'),
    (error) => {
      assert.ok(error instanceof SeedError)
      assert.deepEqual(error.issues, [
        { index: 0, field: 'gpu_index', value: -1, expected: 'an integer from 0 to 1023' },
        {
          index: 0,
          field: 'utilization',
          value: 70,
          expected: 'a number from 0 to 1 (it looks like per cent: divide by 100)',
        },
        { index: 1, field: 'name', value: '', expected: 'text of 1 to 256 characters' },
        { index: 1, field: 'prompt_tokens', value: 1.5, expected: 'an integer from 0 to 1000000000' },
        { index: 1, field: 'mem_used_mb', value: 20, expected: 'at most mem_total_mb, which is 10' },
        { index: 2, field: null, value: 'GPU', expected: 'an object that describes one GPU' },
        { index: 3, field: 'price_per_hour_usd', value: '2', expected: 'a number from 0 to 1000000' },
        { index: 3, field: 'gpu_index', value: 1, expected: 'an index that GPU 1 of the same host does not have' },
      ])
      assert.match(
        error.message,
        /^Cannot use seed "my.json": \[0\]\.gpu_index is -1, expected an integer from 0 to 1023; /,
      )
      return true
    },
  )
})

test('a seed that is no array of GPUs is refused as a whole', () => {
  for (const text of ['', '{', '{}', '[]', 'null', '"x"']) {
    assert.throws(
      () => parseSeed(text),
      (error) => error instanceof SeedError && error.issues.length === 1 && error.issues[0]!.index === null,
      text,
    )
  }
})

test('pairs go round the GPUs, obey the schemas and stay near the figures of the seed', () => {
  const seed = parseSeed(EXAMPLE)
  const made = take(seed, OPTIONS, 400)
  for (const [i, { gpu, token }] of made.entries()) {
    const figures = seed[i % seed.length]!
    assert.equal(checkEvent('gpu', { ...gpu }, START_MS), null)
    assert.equal(checkEvent('token', { ...token }, START_MS), null)
    assert.equal(Date.parse(gpu.ts as string), START_MS + i * 500)
    assert.deepEqual([token.ts, token.host, token.gpu_index], [gpu.ts, gpu.host, gpu.gpu_index])
    assert.deepEqual(
      [gpu.host, gpu.gpu_index, gpu.name, gpu.price_per_hour_usd],
      ['box', figures.gpu_index, figures.name, figures.price_per_hour_usd],
    )
    assert.ok(Math.abs(gpu.utilization! / figures.utilization! - 1) < 0.051)
    assert.ok(Math.abs(gpu.power_w! / figures.power_w! - 1) < 0.051)
    assert.equal(token.model, figures.model)
  }
  assert.ok(new Set(made.map(({ gpu }) => gpu.utilization)).size > 100)
  assert.equal(new Set(made.map(({ gpu }) => gpu.event_id)).size, 400)
})

test('figures at their bounds stay within them, and what the seed does not say is not made up', () => {
  const seed: SeedGpu[] = [{ gpu_index: 0, utilization: 1, mem_used_mb: 100, mem_total_mb: 100 }]
  for (const { gpu } of take(seed, OPTIONS, 100)) {
    assert.ok(gpu.utilization! <= 1 && gpu.mem_used_mb! <= 100)
    assert.deepEqual(Object.keys(gpu), [
      'ts',
      'host',
      'gpu_index',
      'utilization',
      'mem_used_mb',
      'mem_total_mb',
      'event_id',
    ])
  }
})

test('pairs are spread over hosts and GPUs as asked', () => {
  const one: SeedGpu[] = [{ gpu_index: 5, host: 'own', uuid: 'GPU-1' }]
  const two: SeedGpu[] = [...one, { gpu_index: 5, host: 'other' }]
  const cases: [seed: SeedGpu[], options: Partial<PairOptions>, slots: string[]][] = [
    [[{ gpu_index: 5 }], {}, ['box/5']],
    [one, {}, ['own/5/GPU-1']],
    [one, { gpus: 2 }, ['own/0/GPU-1', 'own/1']],
    [one, { eventHosts: 1 }, ['box/0/GPU-1']],
    [one, { eventHosts: 2, gpus: 2 }, ['box-1/0/GPU-1', 'box-1/1', 'box-2/0', 'box-2/1']],
    [two, { eventHosts: 2 }, ['box-1/0/GPU-1', 'box-1/1', 'box-2/0', 'box-2/1']],
  ]
  for (const [seed, options, slots] of cases) {
    const made = take(seed, { ...OPTIONS, ...options }, slots.length + 1)
    const found = made.map(({ gpu }) =>
      [gpu.host, gpu.gpu_index, ...(gpu.uuid === undefined ? [] : [gpu.uuid])].join('/'),
    )
    assert.deepEqual(found, [...slots, slots[0]], JSON.stringify(options))
  }
})

test('the same options give the same pairs; a clock that is handed in gives their times', () => {
  const seed = parseSeed(EXAMPLE)
  assert.deepEqual(take(seed, OPTIONS, 20), take(seed, OPTIONS, 20))
  assert.notDeepEqual(take(seed, { ...OPTIONS, seedNumber: 2 }, 1), take(seed, OPTIONS, 1))
  let nowMs = START_MS
  const paced = take(seed, { ...OPTIONS, nowMs: () => (nowMs += 70) }, 2)
  assert.deepEqual(
    paced.map(({ token }) => Date.parse(token.ts as string) - START_MS),
    [70, 140],
  )
})

test('options out of their bounds are refused by name', () => {
  for (const name of ['eventHosts', 'gpus', 'intervalMs'] as const) {
    for (const value of [0, 1.5, Number.NaN]) {
      assert.throws(
        () => pairs([{ gpu_index: 0 }], { ...OPTIONS, [name]: value }),
        new RegExp(`${name} is ${value}, expected`),
      )
    }
  }
  assert.throws(() => pairs([], OPTIONS), /the seed is empty/)
})

function take(seed: readonly SeedGpu[], options: PairOptions, count: number): SeedPair[] {
  const made = pairs(seed, options)
  return Array.from({ length: count }, () => made.next().value)
}
