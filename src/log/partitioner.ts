// Partition of a record as Kafka's Java client computes it (BuiltInPartitioner.partitionForKey), so that our producers
// and Java ones put a key into the same partition. The Kafka library's default hashes as Java does but then reads the
// hash as unsigned, which is another partition for half of the keys; and its hash runs on BigInt.
// https://github.com/apache/kafka/blob/3.9/clients/src/main/java/org/apache/kafka/clients/producer/internals/BuiltInPartitioner.java

const SEED = 0x9747b28c
const M = 0x5bd1e995
const R = 24

export function partitionForKey(key: Uint8Array, partitions: number): number {
  return (murmur2(key) & 0x7fffffff) % partitions
}

/** Java's Utils.murmur2: a signed 32-bit result. */
export function murmur2(data: Uint8Array): number {
  const length = data.length
  let h = (SEED ^ length) | 0
  let at = 0
  for (; at + 4 <= length; at += 4) {
    let k = data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24)
    k = Math.imul(k, M)
    k ^= k >>> R
    k = Math.imul(k, M)
    h = Math.imul(h, M) ^ k
  }
  const left = length - at
  if (left === 3) h ^= data[at + 2]! << 16
  if (left >= 2) h ^= data[at + 1]! << 8
  if (left >= 1) h = Math.imul(h ^ data[at]!, M)
  h ^= h >>> 13
  h = Math.imul(h, M)
  return h ^ (h >>> 15)
}

/**
 * Partitions of records without a key: consecutive records stay on one partition, so that few batches have many records
 * each, then the next partition has its turn. At most 1,000 records of a call are consecutive.
 */
export class StickyPartitioner {
  readonly #runLength: number
  #turn = Math.floor(Math.random() * 1024)
  #left = 0

  constructor(runLength = 1_000) {
    this.#runLength = runLength
  }

  /** Moves on to the next partition. To be called at the start of each append. */
  nextPartition(): void {
    this.#turn += 1
    this.#left = this.#runLength
  }

  partition(partitions: number): number {
    if (this.#left === 0) this.nextPartition()
    this.#left -= 1
    return this.#turn % partitions
  }
}
