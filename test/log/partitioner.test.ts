// Keys must land where Kafka's Java client puts them. The vectors come from kafka-clients 3.9.1 itself:
// `Utils.murmur2(bytes)` and `BuiltInPartitioner.partitionForKey(bytes, n)` for 12 and 7 partitions, run with
// `java -cp 'kafka-3.9.1/*' V.java`. The checksum runs over inputs of every length from 0 to 256, so over each tail.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { murmur2, partitionForKey, StickyPartitioner } from '../../src/log/partitioner.ts'

const VECTORS: [key: string, hash: number, of12: number, of7: number][] = [
  ['', 275646681, 9, 2],
  ['a', -1563381124, 4, 5],
  ['ab', 316155434, 2, 0],
  ['abc', 479470107, 3, 4],
  ['abcd', -1323649548, 8, 5],
  ['abcde', 461995741, 1, 4],
  ['gpu-host-01', 1096535950, 10, 6],
  ['gpu-host-02', -1234466827, 1, 3],
  ['node-17.rack-3.example.com', -2004424247, 9, 2],
  ['21', -973932308, 0, 3],
  ['foobar', -790332482, 6, 0],
  ['a-little-bit-long-string', -985981536, 8, 1],
  ['a-little-bit-longer-string', -1486304829, 11, 0],
  ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971, 5, 3],
  ['später ✓ 日本語', 1202443645, 1, 4],
  ['host/0', -499342578, 2, 2],
  ['\x00', 375494588, 8, 0],
  ['0', 971027396, 8, 3],
]

test('keys hash as in the Java client', () => {
  for (const [key, hash, of12, of7] of VECTORS) {
    const bytes = Buffer.from(key)
    assert.deepEqual([murmur2(bytes), partitionForKey(bytes, 12), partitionForKey(bytes, 7)], [hash, of12, of7], key)
  }
})

test('inputs of every length hash as in the Java client', () => {
  let sum = 0n
  for (let length = 0; length <= 256; length += 1) {
    const bytes = Uint8Array.from({ length }, (_, i) => 255 - i * 7)
    sum = (sum * 31n + BigInt(murmur2(bytes))) & 0x7fffffffn
  }
  assert.equal(sum, 535020336n)
})

test('records without a key stay together for a run, then the next partition has its turn', () => {
  const sticky = new StickyPartitioner(3)
  const seen = Array.from({ length: 12 }, () => sticky.partition(4))
  const first = seen[0]!
  assert.deepEqual(
    seen,
    [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3].map((turn) => (first + turn) % 4),
  )
  sticky.nextPartition()
  assert.notEqual(sticky.partition(4), seen.at(-1))
})
