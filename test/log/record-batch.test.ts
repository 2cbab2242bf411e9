// Our reading of Kafka's record batches against the library's writing of them, codec by codec, and the cases that a
// broker's response has: cut off at the end, begun before the requested offset, markers, rolled back transactions.
// What Java clients write (their snappy and lz4 framing differ) is read in kafka-log.test.ts from a real broker; record
// times more than 2³¹ ms apart in one batch too, since the library (2.12.1) writes those wrongly.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type CompressionAlgorithmValue, createRecordsBatch } from '@platformatic/kafka'
import type { LogRecord } from '../../src/log/event-log.ts'
import { type AbortedTransaction, offsetAfter, RecordReader } from '../../src/log/kafka/record-batch.ts'

const AT_MS = 1_764_000_000_000

interface BatchOptions {
  base?: number
  count?: number
  compression?: CompressionAlgorithmValue
  producerId?: bigint
  attributes?: number
}

function batch({ base = 0, count = 3, compression = 'none', producerId = -1n, attributes = 0 }: BatchOptions): Buffer {
  const messages = Array.from({ length: count }, (_, i) => ({
    topic: 't',
    partition: 0,
    timestamp: BigInt(AT_MS + i * 4_000_000),
    ...(i % 3 === 1 ? {} : { key: Buffer.from(`key ${base + i}`) }),
    value: Buffer.from(`value ${base + i} ${'x'.repeat(i % 200)}`),
    headers: i % 3 === 2 ? new Map([[Buffer.from('h'), Buffer.from(String(i))]]) : new Map(),
  }))
  const bytes = Buffer.from(createRecordsBatch(messages as never, { compression, producerId }).buffer)
  bytes.writeBigInt64BE(BigInt(base), 0)
  bytes.writeInt16BE(bytes.readInt16BE(21) | attributes, 21)
  return bytes
}

function decodeRecords(bytes: Buffer, from: number, aborted: AbortedTransaction[] = []): LogRecord[] {
  return new RecordReader(bytes, from, aborted).read(Number.POSITIVE_INFINITY).records
}

function offsets(bytes: Buffer, from: number, aborted: AbortedTransaction[] = []): number[] {
  return decodeRecords(bytes, from, aborted).map((record) => record.offset)
}

for (const compression of ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const) {
  test(`records of a batch packed with ${compression} come out as they went in`, () => {
    const records = decodeRecords(batch({ base: 5_000_000_000, count: 500, compression }), 0)
    assert.equal(records.length, 500)
    for (const [i, record] of records.entries()) {
      assert.equal(record.offset, 5_000_000_000 + i)
      assert.equal(record.timestampMs, AT_MS + i * 4_000_000)
      assert.equal(record.key?.toString() ?? null, i % 3 === 1 ? null : `key ${record.offset}`)
      assert.equal(record.value?.toString(), `value ${record.offset} ${'x'.repeat(i % 200)}`)
      assert.equal(record.headers?.get('h')?.toString(), i % 3 === 2 ? String(i) : undefined)
    }
  })
}

test('a response that is cut off at its end is read up to its last whole batch', () => {
  const whole = batch({ base: 0 })
  const bytes = Buffer.concat([whole, batch({ base: 3 })])
  for (const [length, records, next] of [
    [0, [], 0],
    [40, [], 0],
    [whole.length - 1, [], 0],
    [whole.length, [0, 1, 2], 3],
    [whole.length + 70, [0, 1, 2], 3],
    [bytes.length, [0, 1, 2, 3, 4, 5], 6],
  ] as const) {
    assert.deepEqual(offsets(bytes.subarray(0, length), 0), records)
    assert.equal(offsetAfter(bytes.subarray(0, length), 0), next)
  }
})

test('records before the requested offset are left out', () => {
  const bytes = Buffer.concat([batch({ base: 10 }), batch({ base: 13, compression: 'lz4' })])
  assert.deepEqual(offsets(bytes, 12), [12, 13, 14, 15])
  assert.deepEqual(offsets(bytes, 14), [14, 15])
  assert.equal(offsetAfter(batch({ base: 10 }), 99), 99)
})

test('a gap that compaction left, and a marker, only move the position', () => {
  const marker = batch({ base: 30, count: 1, producerId: 7n, attributes: 0b110000 })
  const bytes = Buffer.concat([batch({ base: 10 }), batch({ base: 20 }), marker])
  assert.deepEqual(offsets(bytes, 0), [10, 11, 12, 20, 21, 22])
  assert.equal(offsetAfter(bytes, 10), 31)
})

test('records of a transaction that was rolled back are left out, those around it are not', () => {
  const transactional = 0b010000
  const marker = batch({ base: 9, count: 1, producerId: 7n, attributes: 0b110000 })
  const bytes = Buffer.concat([
    batch({ base: 0, producerId: 7n, attributes: transactional }),
    batch({ base: 3, producerId: 7n, attributes: transactional }),
    batch({ base: 6, producerId: 8n, attributes: transactional }),
    marker,
    batch({ base: 10, producerId: 7n, attributes: transactional }),
  ])
  assert.deepEqual(offsets(bytes, 0, [{ producerId: 7n, firstOffset: 3n }]), [0, 1, 2, 6, 7, 8, 10, 11, 12])
  assert.deepEqual(offsets(bytes, 0), [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12])
})

test('the log’s append time is the time of each record where the topic is configured so', () => {
  const bytes = batch({ attributes: 0b1000 })
  assert.deepEqual(
    decodeRecords(bytes, 0).map((record) => record.timestampMs),
    [AT_MS + 8_000_000, AT_MS + 8_000_000, AT_MS + 8_000_000],
  )
})

test('what cannot be read is an error, never skipped', () => {
  const old = batch({})
  old.writeInt8(1, 16)
  assert.throws(() => decodeRecords(old, 0), /message format v1/)
  const torn = batch({})
  torn.writeInt8(-2, 61)
  assert.throws(() => decodeRecords(torn, 0), /ends beyond its batch|cannot|Cannot/)
  const unknown = batch({ attributes: 0b111 })
  assert.throws(() => decodeRecords(unknown, 0), /codec 7/)
})

test('packed batches are unpacked a part at a time, with the position and open transactions kept between', () => {
  const transactional = 0b010000
  const bytes = Buffer.concat([
    batch({ base: 0, count: 500, compression: 'zstd' }),
    batch({ base: 500, count: 500, compression: 'zstd', producerId: 7n, attributes: transactional }),
    batch({ base: 1000, count: 500, compression: 'zstd', producerId: 7n, attributes: transactional }),
    batch({ base: 1500, count: 1, producerId: 7n, attributes: 0b110000 }),
  ])
  const reader = new RecordReader(bytes, 100, [{ producerId: 7n, firstOffset: 500n }])
  assert.equal(reader.packed, true)
  assert.equal(reader.read(10_000).records.length, 400)
  assert.deepEqual([reader.next, reader.done], [500, false])
  assert.deepEqual(reader.read(10_000).records, [])
  assert.deepEqual([reader.next, reader.done], [1501, true])
})
