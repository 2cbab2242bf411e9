// Money as integers: prices in 10⁻⁹ USD per hour, amounts in 10⁻⁹ USD, both BigInt, because a fleet's year exceeds 2⁵³
// and because a ledger that closes to the last unit cannot be made of floating-point numbers. Rounding happens once,
// here.

/** 10⁻⁹ USD in one USD. */
export const NANO_PER_USD = 1_000_000_000n
/** Milliseconds in an hour, for amounts = price × time. */
export const MS_PER_HOUR = 3_600_000n

/** A finite USD figure (an amount or a price per hour) as an integer of 10⁻⁹ USD, rounded as `decimalUnits` does. */
export function nanoUsd(usd: number): bigint {
  if (!Number.isFinite(usd)) throw new RangeError(`Cannot turn ${usd} into money: expected a finite number of USD`)
  return decimalUnits(usd, 9)
}

/**
 * A finite figure in units of 10⁻ᵖˡᵃᶜᵉˢ, rounded half away from zero as it is written in decimals: 0.57895 is 5,790 of
 * 10⁻⁴, as a calculator has it, though the double next to it is less than that.
 */
export function decimalUnits(figure: number, places: number): bigint {
  const scaled = figure * 10 ** places
  const nearest = Math.round(scaled)
  // Figure and product are each off by half a unit of their last place at most: only near a middle does it matter.
  if (Math.abs(scaled - nearest) < 0.5 - Math.abs(scaled) * 2 ** -51) return BigInt(nearest)
  const [digits, exponent] = Math.abs(figure).toExponential().split('e') as [string, string]
  const decimals = digits.length - (digits.length > 1 ? 2 : 1)
  const power = Number(exponent) - decimals + places
  const whole = BigInt(digits.replace('.', ''))
  const units = power >= 0 ? whole * 10n ** BigInt(power) : divideRounded(whole, 10n ** BigInt(-power))
  return figure < 0 ? -units : units
}

/** USD as a floating-point figure for output; exact up to 2⁵³ units, correctly rounded beyond. */
export function usd(nano: bigint): number {
  return Number(nano) / 1e9
}

/** Amount ÷ divisor, rounded half up; both must not be negative and the divisor not zero. */
export function divideRounded(amount: bigint, divisor: bigint): bigint {
  return (amount + divisor / 2n) / divisor
}
