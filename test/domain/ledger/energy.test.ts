// What energy costs where counters are wrong: another GPU's, gone back, in another unit, stopped, or read in steps. An
// owned GPU at 1 USD/h and 300 W: each minute is 18,000 J, and with a PUE of 1 and 0.20 USD/kWh 0.0177 USD.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { totalNanoUsd } from '../../../src/domain/ledger/rows.ts'
import { PriceBook } from '../../../src/domain/prices/price-book.ts'
import type { PriceRuleData } from '../../../src/domain/prices/price-book-schema.ts'
import { ledgerRows, type Sample } from '../../oracle/ledger-harness.ts'

const T0 = Date.UTC(2026, 0, 15, 12)
const MINUTE_MS = 60_000

function bookOf(pue: number): PriceBook {
  const rule = {
    id: 'own',
    match: { host: 'h' },
    kind: 'owned',
    purchase_usd: 26_280,
    life_years: 3,
    usd_per_kwh: 0.2,
    pue,
  }
  return new PriceBook({ currency: 'USD', default_usd_per_hour: 9, rules: [rule as PriceRuleData] }, 1)
}

/** Samples from the first instant on, every ten seconds unless said otherwise, at 300 W. */
function samplesOf(readings: Partial<Sample>[], everySeconds = 10): Sample[] {
  return readings.map((reading, i) => ({
    ...{
      _id: `pt1e:${String(i).padStart(6, '0')}`,
      ts: new Date(T0 + i * everySeconds * 1000),
      host: 'h',
      gpu_index: 0,
    },
    ...{ uuid: 'GPU-a', name: 'NVIDIA H100', utilization: 0.5, power_w: 300 },
    ...reading,
  }))
}

/** What some minutes cost, 10⁻⁹ USD, and their energy in whole J. */
function costOf(samples: Sample[], { minutes = 1, pue = 1 } = {}): [bigint, number] {
  const rows = ledgerRows({ samples, usages: [] }, { fromMs: T0, toMs: T0 + minutes * MINUTE_MS }, bookOf(pue))
  const energyMj = rows.reduce((sum, row) => sum + (row.energy_mj ?? 0n), 0n)
  return [rows.reduce((sum, row) => sum + totalNanoUsd(row), 0n), Number(energyMj) / 1000]
}

const counting = (times: number, startJ: number, stepJ = 3000) =>
  Array.from({ length: times }, (_, i) => startJ + i * stepJ)
const readingsOf = (energies: (number | undefined)[]) =>
  energies.map((energy_j) => (energy_j === undefined ? {} : { energy_j }) as Partial<Sample>)

const RIGHT: [bigint, number] = [17_666_667n, 18_000]
const GOOD = readingsOf(counting(7, 1_000_000))
const at = (index: number, reading: Partial<Sample>) =>
  GOOD.map((good, i) => (i === index ? { ...good, ...reading } : good))

const CASES: [string, Partial<Sample>[], [bigint, number]][] = [
  ['a counter that counts', GOOD, RIGHT],
  [
    'another GPU has the index from the middle on, with a counter of its own',
    GOOD.map((good, i) => (i < 3 ? good : { uuid: 'GPU-b', energy_j: 9e9 + i * 3000 })),
    RIGHT,
  ],
  [
    'the same by name alone, where no sample has a uuid',
    GOOD.map((good, i) => ({
      ...(i < 3 ? good : { name: 'NVIDIA A100', energy_j: 1_050_000 + i * 3000 }),
      uuid: undefined as never,
    })),
    RIGHT,
  ],
  ['a new name of the same uuid is the same GPU', at(3, { name: 'H100', power_w: 1 }), RIGHT],
  ['one reading of 0, and back', at(3, { energy_j: 0 }), RIGHT],
  ['one reading in mJ', at(3, { energy_j: 1_009_000_000 }), RIGHT],
  ['one reading too large to be an integer of mJ', at(3, { energy_j: 1e15 }), RIGHT],
  ['a counter that starts again', GOOD.map((good, i) => (i < 3 ? good : { energy_j: i * 3000 })), RIGHT],
  ['a counter that has stopped', GOOD.map(() => ({ energy_j: 1_000_000 })), RIGHT],
  [
    'a counter that rests in a GPU that sleeps',
    GOOD.map(() => ({ energy_j: 1_000_000, power_w: 20 })),
    [16_666_667n, 0],
  ],
  [
    'a counter that rests where no power is known',
    GOOD.map(() => ({ energy_j: 5, power_w: undefined as never })),
    [16_666_667n, 0],
  ],
  [
    'a counter that is read every 30 s, and repeated between',
    readingsOf([1_000_000, 1_000_000, 1_000_000, 1_009_000, 1_009_000, 1_009_000, 1_018_000]),
    RIGHT,
  ],
  [
    'neither a counter to believe nor power',
    at(3, { energy_j: 0, power_w: undefined as never }),
    [17_500_000n, 15_000],
  ],
]

for (const [title, readings, expected] of CASES) {
  test(`energy: ${title}`, () => assert.deepEqual(costOf(samplesOf(readings)), expected))
}

test('a difference may be up to 10 kW, or four times the power of either sample', () => {
  const energyJ = (riseJ: number, before: number, after: number) =>
    costOf(
      samplesOf(
        [
          { energy_j: 0, power_w: before },
          { energy_j: riseJ, power_w: after },
        ],
        60,
      ),
    )[1]
  assert.equal(energyJ(600_000, 0, 0), 600_000)
  assert.equal(energyJ(600_000.001, 0, 0), 0)
  assert.equal(energyJ(720_000, 3000, 100), 720_000)
  assert.equal(energyJ(720_000, 100, 3000), 720_000)
  assert.equal(energyJ(720_000.001, 3000, 100), 6000)
})

test('five minutes with one reading of 0 cost what they do without', () => {
  const counts = counting(31, 15_152_422)
  const right: [bigint, number] = [90_333_335n, 90_000]
  const options = { minutes: 5, pue: 1.4 }
  assert.deepEqual(costOf(samplesOf(readingsOf(counts)), options), right)
  assert.deepEqual(costOf(samplesOf(readingsOf(counts.with(9, 0))), options), right)
  assert.deepEqual(costOf(samplesOf(readingsOf(counts.map((_, i) => counts[Math.min(i, 3)]))), options), right)
})
