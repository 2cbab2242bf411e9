// Splits an integer amount in proportion to integer weights so that the parts add up to it exactly: each part gets the
// floor of its share, and the remaining units go to the parts with the largest remainders, ties to the part that comes
// first. Callers put the parts in the order of their keys, so "first" is "smallest key" whatever the input's order.
// Hamilton's method of apportionment (largest remainder).

/**
 * The parts of `total` (not negative) in proportion to `weights` (not negative, their sum not 0 unless `total` is 0),
 * in the weights' order.
 */
export function apportion(total: bigint, weights: readonly bigint[]): bigint[] {
  if (total === 0n) return weights.map(() => 0n)
  if (weights.length === 1) return [total]
  let sum = 0n
  for (const weight of weights) sum += weight
  if (sum === 0n) throw new RangeError(`Cannot split ${total}: all ${weights.length} weights are 0`)
  if (total * sum < SMALL) return apportionSmall(Number(total), weights, Number(sum))
  const parts = new Array<bigint>(weights.length)
  const remainders = new Array<bigint>(weights.length)
  let left = total
  for (let i = 0; i < weights.length; i++) {
    const share = total * weights[i]!
    const part = share / sum
    parts[i] = part
    remainders[i] = share - part * sum
    left -= part
  }
  if (left === 0n) return parts
  const order = remainders.map((_, i) => i).sort((a, b) => compare(remainders[b]!, remainders[a]!) || a - b)
  for (let i = 0; i < Number(left); i++) parts[order[i]!]!++
  return parts
}

/** Below this all products are whole numbers that doubles hold exactly, and so is the floor of each quotient. */
const SMALL = 2n ** 52n

/** The same in numbers, for the usual minute: a third of the time, and hardly any BigInt to collect. */
function apportionSmall(total: number, weights: readonly bigint[], sum: number): bigint[] {
  const parts = new Array<number>(weights.length)
  const remainders = new Array<number>(weights.length)
  let left = total
  for (let i = 0; i < weights.length; i++) {
    const share = total * Number(weights[i]!)
    const part = Math.floor(share / sum)
    parts[i] = part
    remainders[i] = share - part * sum
    left -= part
  }
  if (left > 0) {
    const order = remainders.map((_, i) => i).sort((a, b) => remainders[b]! - remainders[a]! || a - b)
    for (let i = 0; i < left; i++) parts[order[i]!]!++
  }
  return parts.map(BigInt)
}

function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0
}
