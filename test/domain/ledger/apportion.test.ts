// Splitting by largest remainder: the parts add up, each is its share's floor or one more, and the quick way in numbers
// gives what the way in BigInts gives.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { apportion } from '../../../src/domain/ledger/apportion.ts'

const sizes = [0n, 9n, 10_000n, 2n ** 26n, 2n ** 51n]
const amount = fc.constantFrom(...sizes).chain((max) => fc.bigInt({ min: 0n, max }))
const weights = fc.array(amount, { minLength: 1, maxLength: 25 }).filter((all) => all.some((weight) => weight > 0n))

test('parts add up, are fair to the unit, and depend on the proportion of the weights only', () => {
  fc.assert(
    fc.property(amount, weights, (total, shares) => {
      const parts = apportion(total, shares)
      const sum = shares.reduce((a, b) => a + b)
      assert.equal(
        parts.reduce((a, b) => a + b),
        total,
      )
      for (const [i, part] of parts.entries()) {
        const floor = (total * shares[i]!) / sum
        assert.ok(part === floor || part === floor + 1n, `${part} of ${total}, weight ${shares[i]} of ${sum}`)
      }
      // So large that only BigInts can hold the products.
      const large = shares.map((weight) => weight * 2n ** 60n)
      assert.deepEqual(apportion(total, large), parts)
    }),
    { numRuns: 3000 },
  )
})

test('the units that are left go to the largest remainders, ties to the first', () => {
  const cases: [bigint, bigint[], bigint[]][] = [
    [10n, [1n, 1n, 1n], [4n, 3n, 3n]],
    [10n, [3n, 3n, 1n], [4n, 4n, 2n]],
    [1n, [1n, 2n, 2n], [0n, 1n, 0n]],
    [0n, [0n, 0n], [0n, 0n]],
    [5n, [0n], [5n]],
  ]
  for (const [total, shares, parts] of cases) assert.deepEqual(apportion(total, shares), parts)
  assert.throws(() => apportion(1n, [0n, 0n]), /all 2 weights are 0/)
})
