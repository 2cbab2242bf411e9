// Our BSON reader against the driver's: whatever a document contains, both read the same.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { BSON, Decimal128, Long, ObjectId } from 'mongodb'
import { rowFromJson, rowToJson } from '../../src/domain/ledger/row-json.ts'
import { AMOUNT_FIELDS, noAmounts } from '../../src/domain/ledger/rows.ts'
import type { CellRow } from '../../src/domain/ledger/types.ts'
import { bucketOf } from '../../src/store/mongo/ledger/bucket-documents.ts'
import { sampleOf, tokenOf } from '../../src/store/mongo/ledger/cell-events.ts'
import { BsonReader, UnsupportedBson } from '../../src/store/mongo/reading/bson-reader.ts'

const READER = new BsonReader<Record<string, unknown>>(
  { a: 'number', name: 'text', at: 'date', list: 'numbers', 'm b': 'number' },
  () => ({}),
)

const text = fc.string({ unit: 'binary', maxLength: 80 })
const number = fc.oneof(
  fc.integer(),
  fc.double({ noNaN: true }).map((n) => (n === 0 ? 0 : n)),
  fc.integer({ min: -(2 ** 52), max: 2 ** 52 }).map((n) => n * 2),
)
const known = fc.record(
  {
    a: fc.oneof(number, fc.constant(null)),
    name: fc.oneof(text, fc.constantFrom('tenant-1', 'tenant-2', null)),
    at: fc.date({ noInvalidDate: true }),
    list: fc.array(number, { maxLength: 20 }),
    'm b': number,
  },
  { requiredKeys: [] },
)
const other = fc.dictionary(
  fc
    .string({ minLength: 1, maxLength: 12 })
    .filter((key) => !key.includes('\0') && !/^(a|name|at|list|m b|__proto__)$/.test(key)),
  fc.oneof(
    fc
      .anything({ maxDepth: 2, key: fc.constantFrom('a', 'name', 'x'), values: [text, number, fc.boolean()] })
      .filter((one) => one !== undefined),
    fc.constantFrom(new ObjectId(), Long.fromString('9007199254740993'), Buffer.from('bytes'), true),
  ),
  { maxKeys: 6 },
)

test('known fields are read as the driver reads them, and all others passed over', () => {
  fc.assert(
    fc.property(known, other, fc.boolean(), (fields, others, isFirst) => {
      const bytes = BSON.serialize(isFirst ? { ...fields, ...others } : { ...others, ...fields }, {
        ignoreUndefined: true,
      })
      assert.deepStrictEqual(READER.read(Buffer.from(bytes)), { ...fields })
    }),
    { numRuns: 500 },
  )
})

test('types that our documents do not have are left to the driver', () => {
  const bytes = (document: object) => Buffer.from(BSON.serialize(document))
  for (const odd of [Decimal128.fromString('1'), /x/, new BSON.MinKey(), new BSON.Code('x')]) {
    assert.throws(() => READER.read(bytes({ other: odd })), UnsupportedBson)
  }
  for (const wrong of [{ a: 'x' }, { name: 1 }, { at: 1 }, { list: [{}] }, { list: 1 }]) {
    assert.throws(() => READER.read(bytes(wrong)), UnsupportedBson)
  }
  const sample = { _id: 'pt1:x', ts: new Date(5), host: 'h', gpu_index: 0, power_w: Decimal128.fromString('1.5') }
  assert.deepEqual(sampleOf(bytes(sample)), sample)
  const token = { _id: 'pt1:x', ts: new Date(5), host: null, gpus: [2, 1], model: 'm', prompt_tokens: true }
  assert.deepEqual(tokenOf(bytes(token)), token)
})

test('a bucket is what was written, by either way to read it', () => {
  const integer = fc.bigInt({ min: 0n, max: 2n ** 70n })
  const row = fc
    .record({
      gpu_index: fc.nat(1023),
      gpu_uuid: fc.option(text),
      gpu_name: fc.option(text),
      model: fc.option(text),
      tenant: fc.option(text),
      price_kind: fc.constantFrom('spot' as const, 'default' as const),
      amounts: fc.array(integer, { minLength: AMOUNT_FIELDS.length, maxLength: AMOUNT_FIELDS.length }),
      energy_mj: fc.option(integer),
      basis: fc.constantFrom('measured' as const, 'none' as const),
      method: fc.constantFrom('weighted-tokens' as const, 'none' as const),
    })
    .map(({ amounts, ...rest }): CellRow => {
      const named = Object.fromEntries(AMOUNT_FIELDS.map((field, i) => [field, amounts[i]!]))
      return { ...noAmounts(), ...rest, ...named }
    })
  const bucket = fc.record({ rows: fc.array(row, { maxLength: 8 }), host: fc.option(text), capped: fc.nat() })
  fc.assert(
    fc.property(bucket, fc.boolean(), fc.boolean(), ({ rows, host, capped }, isUnusual, hasSums) => {
      const expected = rows.map((one) => rowFromJson(rowToJson(one)))
      const stored = {
        _id: 'm:x',
        level: 'minute',
        start: new Date(60_000),
        host,
        rev: 3,
        rows: rows.map((one) => asLongs(one)),
        ...(hasSums ? { model_sums: rows.map((one) => asLongs(one)), tenant_sums: [] } : {}),
        book_versions: [1, 2],
        capped,
        computed_at: new Date(1),
        write_id: new ObjectId(),
        // By hand into the database: nothing of ours, and the driver's way has to do.
        ...(isUnusual ? { note: /x/ } : {}),
      }
      assert.deepStrictEqual(bucketOf(Buffer.from(BSON.serialize(stored))), {
        level: 'minute',
        startMs: 60_000,
        host,
        rev: 3,
        bookVersions: [1, 2],
        rows: expected,
        totals: hasSums ? { model: expected, tenant: [] } : null,
        capped,
        computedMs: 1,
      })
    }),
    { numRuns: 200 },
  )
})

/** A row as the store writes it: longs where they fit, text beyond. */
function asLongs(row: CellRow): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(rowToJson(row)).map(([field, value]) => {
      const integer = (row as unknown as Record<string, unknown>)[field]
      return [field, typeof integer === 'bigint' && BigInt.asIntN(64, integer) === integer ? integer : value]
    }),
  )
}
