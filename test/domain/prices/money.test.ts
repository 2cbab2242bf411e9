// Figures become whole units as a calculator rounds them: by the decimals that are written, not by the double beside.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decimalUnits, nanoUsd } from '../../../src/domain/prices/money.ts'

/** The figure's own text, written out without an exponent and cut by hand, half away from zero. */
function byDecimals(figure: number, places: number): bigint {
  const [text, exponent = '0'] = String(Math.abs(figure)).split('e') as [string, string?]
  const [whole, fraction = ''] = text.split('.') as [string, string?]
  const point = whole.length + Number(exponent)
  const digits = `${'0'.repeat(Math.max(0, 1 - point))}${whole}${fraction}`
  const at = Math.max(point, 1)
  const padded = digits.padEnd(at + places + 1, '0')
  const units = BigInt(padded.slice(0, at + places)) + (padded[at + places]! >= '5' ? 1n : 0n)
  return figure < 0 ? -units : units
}

test('whole units are the nearest ones to the figure as it is written', () => {
  const figure = fc.oneof(
    fc.double({ min: -1e7, max: 1e7, noNaN: true }),
    fc.double({ min: -1, max: 1, noNaN: true }),
    fc.double({ min: -1e21, max: 1e21, noNaN: true }),
    fc
      .tuple(fc.integer({ min: -1e9, max: 1e9 }), fc.integer({ min: 0, max: 12 }))
      .map(([n, places]) => n / 10 ** places),
    // In the middle between two units.
    fc
      .tuple(fc.integer({ min: -1e9, max: 1e9 }), fc.constantFrom(3, 4, 9))
      .map(([n, places]) => Number(`${n}5e-${places + 1}`)),
  )
  fc.assert(
    fc.property(figure, fc.constantFrom(3, 4, 9), (one, places) => {
      assert.equal(decimalUnits(one, places), byDecimals(one, places))
    }),
    { numRuns: 20_000 },
  )
})

test('halves are rounded as a calculator does it', () => {
  const cases = [
    [0.00015, 4, 2n],
    [0.57895, 4, 5790n],
    [1.005, 2, 101n],
    [-1.005, 2, -101n],
    [1.0000000005, 9, 1_000_000_001n],
    [123_456_789.1, 9, 123_456_789_100_000_000n],
    [1e15, 3, 10n ** 18n],
    [5e-324, 9, 0n],
  ] as const
  for (const [figure, places, units] of cases) assert.equal(decimalUnits(figure, places), units, String(figure))
  assert.equal(nanoUsd(0.85), 850_000_000n)
})
