// The time that a token event sums over: [ts − interval_s, ts); without `interval_s` the event is an instant. A count
// belongs to the time in which it was made, so whoever files tokens by time spreads them evenly over the interval, as
// whole numbers. The floor of a running share is taken, not rounded parts: so cuts at any instants add up to the count,
// and a single request is counted where its interval ends.

/** The longest interval that one event may sum over, seconds. */
export const MAX_INTERVAL_S = 3600

/** Products below this are whole numbers that doubles hold exactly, and so is the floor of each quotient. */
const EXACT = 2 ** 52

/**
 * Length of the interval that ends at `ts`, milliseconds; 0 for an instant. A stored event with a longer one, which an
 * older pertoken took without reading it, stays the instant that it was.
 */
export function intervalMs({ interval_s: seconds }: { interval_s?: number }): number {
  return seconds === undefined || seconds > MAX_INTERVAL_S ? 0 : Math.round(seconds * 1000)
}

/** How much of `count` was made in the first `passedMs` of `lengthMs`: whole, never falling, all of it at the end. */
export function madeWithin(count: number, passedMs: number, lengthMs: number): number {
  const product = count * passedMs
  if (product < EXACT) return Math.floor(product / lengthMs)
  return Number((BigInt(count) * BigInt(passedMs)) / BigInt(lengthMs))
}
