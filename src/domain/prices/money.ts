// Money as integers: prices in 10⁻⁹ USD per hour, amounts in 10⁻⁹ USD, both BigInt, because a fleet's year exceeds 2⁵³
// and because a ledger that closes to the last unit cannot be made of floating-point numbers. Rounding happens once,
// here.

/** 10⁻⁹ USD in one USD. */
export const NANO_PER_USD = 1_000_000_000n
/** Milliseconds in an hour, for amounts = price × time. */
export const MS_PER_HOUR = 3_600_000n

/** A finite USD figure (an amount or a price per hour) as an integer of 10⁻⁹ USD, rounded half away from zero. */
export function nanoUsd(usd: number): bigint {
  if (!Number.isFinite(usd)) throw new RangeError(`Cannot turn ${usd} into money: expected a finite number of USD`)
  // Below a million USD the product of the usual figures is off by less than 0.1, so what is near an integer is it.
  const scaled = usd * 1e9
  const nearest = Math.round(scaled)
  if (Math.abs(scaled) < 1e15 && Math.abs(scaled - nearest) < 0.25) return BigInt(nearest)
  const negative = usd < 0
  // toFixed(9) of a double below 1e21 is exact decimal arithmetic on its value, unlike usd * 1e9.
  const [whole, fraction] = Math.abs(usd).toFixed(9).split('.') as [string, string]
  const nano = BigInt(whole) * NANO_PER_USD + BigInt(fraction)
  return negative ? -nano : nano
}

/** USD as a floating-point figure for output; exact up to 2⁵³ units, correctly rounded beyond. */
export function usd(nano: bigint): number {
  return Number(nano) / 1e9
}

/** Amount ÷ divisor, rounded half up; both must not be negative and the divisor not zero. */
export function divideRounded(amount: bigint, divisor: bigint): bigint {
  return (amount + divisor / 2n) / divisor
}
