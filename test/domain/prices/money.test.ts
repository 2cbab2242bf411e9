// The quick way of turning a figure into whole 10⁻⁹ USD gives what exact decimal arithmetic gives.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { nanoUsd } from '../../../src/domain/prices/money.ts'

/** The exact decimal value of a double (toFixed is that, up to 100 digits), rounded half away from zero by hand. */
function byDecimals(usd: number): bigint {
  const [whole, fraction] = Math.abs(usd).toFixed(100).split('.') as [string, string]
  const nano = BigInt(whole + fraction.slice(0, 9)) + (fraction[9]! >= '5' ? 1n : 0n)
  return usd < 0 ? -nano : nano
}

test('whole 10⁻⁹ USD are the nearest ones, whatever the figure', () => {
  const figure = fc.oneof(
    fc.double({ min: -1e7, max: 1e7, noNaN: true }),
    fc.double({ min: -1, max: 1, noNaN: true }),
    fc
      .tuple(fc.integer({ min: -1e9, max: 1e9 }), fc.integer({ min: 0, max: 12 }))
      .map(([n, places]) => n / 10 ** places),
    // Near the middle between two units.
    fc.integer({ min: -1e9, max: 1e9 }).map((n) => (n + 0.5) / 1e9),
  )
  fc.assert(
    fc.property(figure, (usd) => assert.equal(nanoUsd(usd), byDecimals(usd))),
    { numRuns: 5000 },
  )
})
