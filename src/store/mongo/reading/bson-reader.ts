// Reads the fields that the ledger needs straight from a document's bytes. `verify` and `reprice` read single events by
// the million, and decoding was most of their time: the driver makes an object of every field of every document, from
// which a second object would be made here. Reading single documents this way, in pages without cursors (find-page.ts),
// is what took `reprice` from 57,000 to 120,000 events/s (docs/adr/0003-keeper-protocol.md). Only the types that our
// own documents have are supported; a document with any other is left to the driver. Wire format:
// https://bsonspec.org/spec.html, version 1.1.

import { endianness } from 'node:os'

const DOUBLE = 0x01
const STRING = 0x02
const DOCUMENT = 0x03
const ARRAY = 0x04
const BINARY = 0x05
const OBJECT_ID = 0x07
const BOOLEAN = 0x08
const DATE = 0x09
const NULL = 0x0a
const INT32 = 0x10
const TIMESTAMP = 0x11
const INT64 = 0x12

/** A document with a type that our own documents do not have, or not in that field. */
export class UnsupportedBson extends Error {
  override name = 'UnsupportedBson'
}

/** Makes something of the document that begins at `start`. */
export type ReadDocument<T = unknown> = (bytes: Buffer, start: number) => T

/** What a field becomes: null stays null, an `integer` is a BigInt, a function means an array of what it reads. */
export type FieldKind = 'number' | 'integer' | 'text' | 'date' | 'numbers' | ReadDocument

interface Field {
  name: string
  /** The name with its terminating zero. */
  bytes: Buffer
  kind: FieldKind
  /** The field that most likely follows in a document. */
  next: Field
}

/** Reads documents of one shape; unknown fields are skipped. */
export class BsonReader<T extends object = object> {
  readonly #first: Field
  /** By hash of the name. */
  readonly #fields = new Map<number, Field>()
  readonly #blank: () => T

  /** Fastest if `fields` are in the documents' order; `blank` makes the result of a document that has none of them. */
  constructor(fields: Readonly<Record<string, FieldKind>>, blank: () => T) {
    this.#blank = blank
    const all: Field[] = []
    for (const [name, kind] of Object.entries(fields)) {
      const field = { name, bytes: Buffer.from(`${name}\0`), kind } as Field
      const hash = hashOf(field.bytes, 0, field.bytes.length - 1)
      if (this.#fields.has(hash))
        throw new RangeError(`Cannot distinguish "${name}" from another field by hash: rename it`)
      this.#fields.set(hash, field)
      all.push(field)
    }
    for (const [i, field] of all.entries()) field.next = all[(i + 1) % all.length]!
    this.#first = all[0]!
  }

  /** The document that begins at `start`; null if it is not of a supported form. */
  tryRead(bytes: Buffer, start = 0): T | null {
    try {
      return this.read(bytes, start)
    } catch (error) {
      if (error instanceof UnsupportedBson) return null
      throw error
    }
  }

  /** The document that begins at `start`. Throws UnsupportedBson. */
  read(bytes: Buffer, start = 0): T {
    const into = this.#blank() as Record<string, unknown>
    const end = start + bytes.readInt32LE(start) - 1
    let likely = this.#first
    for (let at = start + 4; at < end; ) {
      const type = bytes[at++]!
      let field: Field | undefined = likely
      if (isAt(likely.bytes, bytes, at)) at += likely.bytes.length
      else {
        const nameAt = at
        let hash = 0
        for (let byte = bytes[at]!; byte !== 0; byte = bytes[++at]!) hash = (Math.imul(hash, 31) + byte) | 0
        at++
        field = this.#fields.get(hash)
        if (field !== undefined && !isAt(field.bytes, bytes, nameAt)) field = undefined
      }
      if (field !== undefined) {
        into[field.name] = readValue(field.kind, type, bytes, at)
        likely = field.next
      }
      at += lengthOf(type, bytes, at)
    }
    return into as T
  }
}

function readValue(kind: FieldKind, type: number, bytes: Buffer, at: number): unknown {
  if (type === NULL) return null
  switch (kind) {
    case 'number':
      return numberAt(type, bytes, at)
    case 'integer':
      return integerAt(type, bytes, at)
    case 'text':
      if (type !== STRING) throw new UnsupportedBson()
      return textAt(bytes, at)
    case 'date':
      if (type !== DATE) throw new UnsupportedBson()
      return new Date(int64At(bytes, at))
    case 'numbers':
      return itemsOf(type, bytes, at, numberAt)
    default:
      return itemsOf(type, bytes, at, (itemType, _, itemAt) => {
        if (itemType !== DOCUMENT) throw new UnsupportedBson()
        return kind(bytes, itemAt)
      })
  }
}

function numberAt(type: number, bytes: Buffer, at: number): number {
  if (type === INT32) return bytes.readInt32LE(at)
  if (type === DOUBLE) return bytes.readDoubleLE(at)
  if (type === INT64) return int64At(bytes, at)
  throw new UnsupportedBson()
}

/** An integer of any size; beyond 2⁶³ they are stored as decimal text. */
function integerAt(type: number, bytes: Buffer, at: number): bigint {
  if (type === INT64) return bigInt64At(bytes, at)
  if (type === STRING) return BigInt(textAt(bytes, at))
  return BigInt(numberAt(type, bytes, at))
}

/** The nearest number. */
function int64At(bytes: Buffer, at: number): number {
  return bytes.readInt32LE(at + 4) * 2 ** 32 + bytes.readUInt32LE(at)
}

/** Allocates one BigInt; Buffer.readBigInt64LE allocates three. */
const halves = new Int32Array(2)
const whole = new BigInt64Array(halves.buffer)
const [LOW, HIGH] = endianness() === 'LE' ? ([0, 1] as const) : ([1, 0] as const)

function bigInt64At(bytes: Buffer, at: number): bigint {
  halves[LOW] = bytes.readInt32LE(at)
  halves[HIGH] = bytes.readInt32LE(at + 4)
  return whole[0]!
}

/** The items of an array; their names are their indexes and skipped. */
function itemsOf<I>(
  type: number,
  bytes: Buffer,
  start: number,
  itemAt: (type: number, bytes: Buffer, at: number) => I,
): I[] {
  if (type !== ARRAY) throw new UnsupportedBson()
  const items: I[] = []
  const end = start + bytes.readInt32LE(start) - 1
  for (let at = start + 4; at < end; ) {
    const itemType = bytes[at]!
    at = bytes.indexOf(0, at + 1) + 1
    items.push(itemAt(itemType, bytes, at))
    at += lengthOf(itemType, bytes, at)
  }
  return items
}

/** Length of a value in bytes. */
function lengthOf(type: number, bytes: Buffer, at: number): number {
  switch (type) {
    case DOUBLE:
    case DATE:
    case TIMESTAMP:
    case INT64:
      return 8
    case INT32:
      return 4
    case STRING:
      return 4 + bytes.readInt32LE(at)
    case BOOLEAN:
      return 1
    case NULL:
      return 0
    case OBJECT_ID:
      return 12
    case DOCUMENT:
    case ARRAY:
      return bytes.readInt32LE(at)
    case BINARY:
      return 5 + bytes.readInt32LE(at)
    default:
      throw new UnsupportedBson()
  }
}

/** Recently read texts, by hash: hosts, models and tenants recur in every row. */
const KNOWN_TEXTS = 4096
const MAX_KNOWN_LENGTH = 64
const known = new Array<string>(KNOWN_TEXTS).fill('')

function textAt(bytes: Buffer, at: number): string {
  const from = at + 4
  const to = from + bytes.readInt32LE(at) - 1
  if (to - from > MAX_KNOWN_LENGTH) return bytes.toString('utf8', from, to)
  const slot = hashOf(bytes, from, to) & (KNOWN_TEXTS - 1)
  const text = known[slot]!
  if (isText(text, bytes, from, to)) return text
  const fresh = bytes.toString('utf8', from, to)
  known[slot] = fresh
  return fresh
}

function hashOf(bytes: Buffer, from: number, to: number): number {
  let hash = 0
  for (let i = from; i < to; i++) hash = (Math.imul(hash, 31) + bytes[i]!) | 0
  return hash
}

/** Whether bytes are this text. Only ASCII has one byte per UTF-16 unit; other texts are decoded each time. */
function isText(text: string, bytes: Buffer, from: number, to: number): boolean {
  if (text.length !== to - from) return false
  for (let i = 0; i < text.length; i++) {
    const byte = bytes[from + i]!
    if (byte > 0x7f || text.charCodeAt(i) !== byte) return false
  }
  return true
}

/** Whether the expected bytes are at `at`; beyond the buffer's end nothing equals them. */
function isAt(expected: Buffer, bytes: Buffer, at: number): boolean {
  for (let i = 0; i < expected.length; i++) if (expected[i] !== bytes[at + i]) return false
  return true
}
