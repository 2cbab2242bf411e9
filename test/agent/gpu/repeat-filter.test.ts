// Which readings of a source that repeats are sampled.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { GpuReading } from '../../../src/agent/gpu/gpu-source.ts'
import { repeatFilter } from '../../../src/agent/gpu/repeat-filter.ts'
import { reading } from '../agent-fixture.ts'

/** At which seconds a reading is sampled, of one reading a second whose energy is what `energyAt` returns. */
function sampledAt(seconds: number, energyAt: (second: number) => number): number[] {
  let second = 0
  const isWorthSampling = repeatFilter(() => second * 1000)
  const sampled: number[] = []
  for (; second < seconds; second++) {
    const readings: GpuReading[] = [reading({ energyJ: energyAt(second) })]
    if (isWorthSampling(readings)) sampled.push(second)
  }
  return sampled
}

test('figures that change with each reading are all sampled', () => {
  assert.deepEqual(
    sampledAt(20, (second) => second),
    [0, ...Array.from({ length: 18 }, (_, i) => i + 2)],
  )
})

test('figures that rest are sampled every ten seconds, and not at once when they change', () => {
  const everyHalfMinute = (second: number) => Math.floor((second + 3) / 30)
  assert.deepEqual(sampledAt(60, everyHalfMinute), [0, 10, 20, 30, 40, 50])
})

test('a counter never seems to rise in less than ten seconds by what it rose in thirty', () => {
  const energyAt = (second: number) => 700 * 30 * Math.floor(second / 30)
  const sampled = sampledAt(600, energyAt)
  for (const [i, second] of sampled.entries()) {
    if (i === 0) continue
    const watts = (energyAt(second) - energyAt(sampled[i - 1]!)) / (second - sampled[i - 1]!)
    assert.ok(watts <= 2100, `${watts} W at ${second} s`)
  }
  assert.equal(energyAt(sampled.at(-1)!), energyAt(590))
})
