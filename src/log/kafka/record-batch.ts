// Reads Kafka's record batches (message format v2) out of a fetch response. The library can do this too, but allocates
// several objects and BigInts per record; this allocates one object and shares the response's bytes. Measured like with
// like (parse, validate, encode): 546,000 events/s against 255,000 through the library's stream. Two passes on purpose:
// `offsetAfter` reads batch headers only, so that the next request can be sent before `RecordReader` unpacks and
// decodes.
// Format: https://kafka.apache.org/39/documentation.html#recordbatch

import { compressionsAlgorithmsByBitmask } from '@platformatic/kafka'
import type { LogRecord } from '../event-log.ts'

const LENGTH = 8
const BEFORE_LENGTH_ENDS = 12
const MAGIC = 16
const ATTRIBUTES = 21
const LAST_OFFSET_DELTA = 23
const FIRST_TIMESTAMP = 27
const MAX_TIMESTAMP = 35
const PRODUCER_ID = 43
const COUNT = 57
const RECORDS = 61

const CODEC_MASK = 0b111
const LOG_APPEND_TIME = 1 << 3
const TRANSACTIONAL = 1 << 4
const CONTROL = 1 << 5

/** A transaction that was aborted: its records from this offset on must not be returned. */
export interface AbortedTransaction {
  producerId: bigint
  firstOffset: bigint
}

/** Offset after the last complete batch, `from` when there is none. A response may end in the middle of a batch. */
export function offsetAfter(bytes: Buffer, from: number): number {
  let next = from
  for (const at of wholeBatches(bytes)) {
    next = int64(bytes, at) + bytes.readInt32BE(at + LAST_OFFSET_DELTA) + 1
  }
  // A response starts with the batch that holds the requested offset, so it may begin earlier but never end earlier.
  return Math.max(next, from)
}

/**
 * Returns the records of one partition's response, from offset `from` on and a bounded part at a time, because
 * compressed batches may unpack to many times their size. Transaction markers and records of aborted transactions are
 * skipped.
 */
export class RecordReader {
  readonly #bytes: Buffer
  readonly #from: number
  readonly #batches: Iterator<number>
  readonly #pending: AbortedTransaction[]
  readonly #rolledBack = new Set<bigint>()
  #at: number | undefined
  /** Position after what was handed out. */
  next: number

  constructor(bytes: Buffer, from: number, aborted: readonly AbortedTransaction[] = []) {
    this.#bytes = bytes
    this.#from = from
    this.next = from
    this.#pending = aborted.toSorted((a, b) => (a.firstOffset < b.firstOffset ? -1 : 1))
    this.#batches = wholeBatches(bytes)
    this.#at = this.#batches.next().value
  }

  get done(): boolean {
    return this.#at === undefined
  }

  /** Whether the rest is compressed, so that its size is known only after unpacking. */
  get packed(): boolean {
    return this.#at !== undefined && (this.#bytes.readInt16BE(this.#at + ATTRIBUTES) & CODEC_MASK) !== 0
  }

  /** Reads at least one batch, and no further one once `maxBytes` are reached. */
  read(maxBytes: number): { records: LogRecord[]; bytes: number } {
    const records: LogRecord[] = []
    let bytes = 0
    do {
      if (this.#at === undefined) break
      bytes += this.#readAt(this.#at, records)
      this.#at = this.#batches.next().value
    } while (bytes < maxBytes)
    return { records, bytes }
  }

  /** Discards the rest. Returns 0, the bytes that this read. */
  skip(): number {
    this.#at = undefined
    return 0
  }

  #readAt(at: number, into: LogRecord[]): number {
    const bytes = this.#bytes
    const magic = bytes.readInt8(at + MAGIC)
    if (magic !== 2)
      throw new Error(`Cannot read records: message format v${magic}, only v2 (Kafka 0.11 and later) is known`)
    const attributes = bytes.readInt16BE(at + ATTRIBUTES)
    const baseOffset = int64(bytes, at)
    const lastOffset = baseOffset + bytes.readInt32BE(at + LAST_OFFSET_DELTA)
    const seen = this.#isSeen(at, attributes, lastOffset)
    const size =
      seen && lastOffset >= this.#from ? readBatch(bytes, at, { attributes, baseOffset, from: this.#from, into }) : 0
    this.next = Math.max(this.next, lastOffset + 1)
    return size
  }

  #isSeen(at: number, attributes: number, lastOffset: number): boolean {
    const isControl = (attributes & CONTROL) !== 0
    if ((attributes & TRANSACTIONAL) === 0) return !isControl
    while (this.#pending.length > 0 && Number(this.#pending[0]!.firstOffset) <= lastOffset) {
      this.#rolledBack.add(this.#pending.shift()!.producerId)
    }
    const producerId = this.#bytes.readBigInt64BE(at + PRODUCER_ID)
    // The first marker after an aborted transaction's records is the one that ends it.
    if (isControl) this.#rolledBack.delete(producerId)
    return !isControl && !this.#rolledBack.has(producerId)
  }
}

/** A record whose key becomes a Buffer only when it is read: most keys never are, and a Buffer is expensive. */
class KafkaRecord implements LogRecord {
  readonly offset: number
  readonly timestampMs: number
  readonly value: Buffer | null
  readonly headers: LogRecord['headers']
  readonly #bytes: Buffer
  readonly #keyAt: number
  readonly #keyLength: number

  constructor(record: Omit<LogRecord, 'key'>, bytes: Buffer, keyAt: number, keyLength: number) {
    this.offset = record.offset
    this.timestampMs = record.timestampMs
    this.value = record.value
    this.headers = record.headers
    this.#bytes = bytes
    this.#keyAt = keyAt
    this.#keyLength = keyLength
  }

  get key(): Buffer | null {
    return this.#keyLength < 0 ? null : this.#bytes.subarray(this.#keyAt, this.#keyAt + this.#keyLength)
  }
}

interface BatchContext {
  attributes: number
  baseOffset: number
  from: number
  into: LogRecord[]
}

function readBatch(bytes: Buffer, at: number, { attributes, baseOffset, from, into }: BatchContext): number {
  const end = at + BEFORE_LENGTH_ENDS + bytes.readInt32BE(at + LENGTH)
  const appendTime = (attributes & LOG_APPEND_TIME) !== 0
  const firstTimestampMs = int64(bytes, at + (appendTime ? MAX_TIMESTAMP : FIRST_TIMESTAMP))
  const count = bytes.readInt32BE(at + COUNT)
  const cursor = new Cursor(unpack(bytes.subarray(at + RECORDS, end), attributes & CODEC_MASK))
  for (let i = 0; i < count; i += 1) {
    const length = cursor.varint()
    const next = cursor.at + length
    if (length < 0 || next > cursor.bytes.length) throw new Error('Cannot read records: a record ends beyond its batch')
    // No version of Kafka uses the record's own attributes.
    cursor.at += 1
    const timestampDelta = cursor.varlong()
    const offset = baseOffset + cursor.varint()
    // A compressed batch is returned whole, even when an offset in its middle was requested.
    if (offset >= from) {
      const keyLength = cursor.varint()
      const keyAt = cursor.at
      if (keyLength > 0) cursor.at += keyLength
      const timestampMs = appendTime ? firstTimestampMs : firstTimestampMs + timestampDelta
      const value = cursor.slice()
      into.push(
        new KafkaRecord({ offset, timestampMs, value, headers: readHeaders(cursor) }, cursor.bytes, keyAt, keyLength),
      )
    }
    cursor.at = next
  }
  return cursor.bytes.length
}

function readHeaders(cursor: Cursor): Map<string, Buffer | null> | null {
  const count = cursor.varint()
  if (count <= 0) return null
  const headers = new Map<string, Buffer | null>()
  for (let i = 0; i < count; i += 1) headers.set(cursor.slice()?.toString('utf8') ?? '', cursor.slice())
  return headers
}

function unpack(bytes: Buffer, codec: number): Buffer {
  if (codec === 0) return bytes
  const algorithm = (compressionsAlgorithmsByBitmask as Record<number, Codec | undefined>)[codec]
  if (!algorithm) throw new Error(`Cannot read records: compression codec ${codec} is not known`)
  return algorithm.decompressSync(bytes)
}

interface Codec {
  decompressSync(bytes: Buffer): Buffer
}

function* wholeBatches(bytes: Buffer): Generator<number> {
  for (let at = 0; at + RECORDS <= bytes.length; ) {
    const next = at + BEFORE_LENGTH_ENDS + bytes.readInt32BE(at + LENGTH)
    if (next > bytes.length || next <= at) return
    yield at
    at = next
  }
}

function int64(bytes: Buffer, at: number): number {
  return bytes.readInt32BE(at) * 4_294_967_296 + bytes.readUInt32BE(at + 4)
}

/** Reads varints and slices. Lengths are checked per record by the caller, not per byte. */
class Cursor {
  readonly bytes: Buffer
  at = 0

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  varint(): number {
    let byte = this.bytes[this.at++]!
    let value = byte & 0x7f
    for (let shift = 7; byte >= 0x80; shift += 7) {
      byte = this.bytes[this.at++]!
      value |= (byte & 0x7f) << shift
    }
    return (value >>> 1) ^ -(value & 1)
  }

  /** Wider than 32 bits, as a number: timestamps and their differences stay below 2⁵³. */
  varlong(): number {
    let byte = this.bytes[this.at++]!
    let value = byte & 0x7f
    for (let factor = 128; byte >= 0x80; factor *= 128) {
      byte = this.bytes[this.at++]!
      value += (byte & 0x7f) * factor
    }
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2
  }

  slice(): Buffer | null {
    const length = this.varint()
    if (length < 0) return null
    const from = this.at
    this.at += length
    return this.bytes.subarray(from, this.at)
  }
}
