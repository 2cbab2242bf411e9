// Good events with random damage: fields replaced, removed, added, renamed; numbers rewritten; bytes flipped, cut,
// repeated; envelopes, headers and record times of every kind. Each of them is a document or a rejection, never an
// exception, and a document goes all the way: live price, store, ledger. One record must not stop those behind it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { BSON } from 'mongodb'
import { decodeRecord } from '../../../src/domain/events/decode.ts'
import type { EventKind, GpuDocument, TokenDocument } from '../../../src/domain/events/event.ts'
import { GpuSampleSchema, TokenUsageSchema } from '../../../src/domain/events/event.ts'
import { recordDateOf } from '../../../src/domain/events/record-time.ts'
import { REASON_CODES, Rejection } from '../../../src/domain/events/rejection.ts'
import { computeCell } from '../../../src/domain/ledger/cell.ts'
import { totalsOfEvent } from '../../../src/domain/ledger/token-totals.ts'
import { SlidingWindow } from '../../../src/domain/live/sliding-window.ts'
import { initialBook } from '../../../src/domain/prices/book-defaults.ts'
import { PriceBook } from '../../../src/domain/prices/price-book.ts'
import { goodSample, goodToken } from '../../bad-records.ts'
import { openSqlite } from '../../processor/ledger/ledger-place.ts'

const NOW = Date.UTC(2026, 10, 27, 20)
const RUNS = 100_000
const seed = Number(process.env['FAST_CHECK_SEED'] ?? Date.now() % 0x7fffffff)

const NAMES = [
  ...Object.keys(GpuSampleSchema.properties),
  ...Object.keys(TokenUsageSchema.properties),
  ...['specversion', 'data', 'data_base64', 'source', 'id', 'type', 'time', 'extra', '__proto__', '_bsontype', ''],
]
const RAW = [
  ...['null', 'true', '""', '"x"', '[]', '{}', '-1', '0', '-0', '0.5', '1.0000001', '1e400', '-1e400', '1e300'],
  ...['9007199254740993', '1524831183200260097', '1764279000000.25', '1795809600', '1795809600000000'],
  ...['"2026-11-27T20:00Z"', '"20261127T2000+01"', '"2026-11-28T04:00:00"', '"\\u0000"', '"\\ud800"', '[null]'],
  ...['{"a":{"__proto__":1}}', '{"specversion":"1.0"}', '"e30="', '[0,0]', '[1,0]', '{"_bsontype":"Long"}'],
]

type Damage = (text: string) => string

const anyName = fc.oneof(fc.constantFrom(...NAMES), fc.string())
const anyRaw = fc.oneof(fc.constantFrom(...RAW), fc.json())
const setField = fc.tuple(anyName, anyRaw).map(([name, raw]): Damage => {
  return (text) => `${text.slice(0, -1)},${JSON.stringify(name)}:${raw}}`
})
const replaceField = fc.tuple(fc.nat(), anyRaw).map(([at, raw]): Damage => {
  return (text) => {
    const values = [...text.matchAll(/(?<=":)("[^"]*"|[\d.eE+-]+)/g)]
    const found = values[at % Math.max(1, values.length)]
    return found === undefined ? text : text.slice(0, found.index) + raw + text.slice(found.index + found[0].length)
  }
})
const renameField = fc.tuple(fc.nat(), anyName).map(([at, name]): Damage => {
  return (text) => {
    const names = [...text.matchAll(/"[a-z_]+"(?=:)/g)]
    const found = names[at % Math.max(1, names.length)]
    if (found === undefined) return text
    return text.slice(0, found.index) + JSON.stringify(name) + text.slice(found.index + found[0].length)
  }
})
const wrap = fc.constantFrom<Damage>(
  (text) => `{"specversion":"1.0","source":"s","id":"1","type":"t","data":${text}}`,
  (text) => `{"specversion":"1.0","source":"s","id":"1","type":"t","time":"2026-11-27T20:00Z","data":${text}}`,
  () => `{"specversion":"1.0","source":"s","id":"1","type":"t","data_base64":"bm8gSlNPTg=="}`,
  (text) =>
    `{"specversion":"1.0","source":"s","id":"1","type":"t","data_base64":"${Buffer.from(text).toString('base64')}"}`,
  (text) => `[${text}]`,
)
const cut = fc.nat(400).map(
  (at): Damage =>
    (text) =>
      text.slice(0, at),
)
const mostlyNull = <T>(other: fc.Arbitrary<T>) =>
  fc.oneof({ arbitrary: fc.constant(null), weight: 9 }, { arbitrary: other, weight: 1 })
const flipped = mostlyNull(fc.tuple(fc.nat(), fc.nat(255)))
const header = fc.tuple(
  fc.constantFrom('ce_specversion', 'ce_source', 'ce_id', 'ce_type', 'ce_time', 'ce_x', 'content-type', 'pertoken_id'),
  fc.option(
    fc.oneof(
      fc.constantFrom('1.0', 's', 'application/cloudevents+json', 'pt1l:x:0:1:2').map((text) => Buffer.from(text)),
      fc.uint8Array({ maxLength: 4 }).map((bytes) => Buffer.from(bytes)),
    ),
  ),
)
const recordTime = fc.constantFrom(NOW, -1, 0, NOW / 1000, NOW * 1000, NOW * 1e6, Number.NaN, -8.64e16)

const mutated = fc.record({
  kind: fc.constantFrom<EventKind>('gpu', 'token'),
  damage: fc.array(
    fc.oneof(
      { arbitrary: replaceField, weight: 12 },
      { arbitrary: setField, weight: 4 },
      { arbitrary: renameField, weight: 2 },
      { arbitrary: wrap, weight: 2 },
      { arbitrary: cut, weight: 1 },
    ),
    {
      maxLength: 4,
    },
  ),
  flipped,
  headers: mostlyNull(fc.array(header, { maxLength: 6 })),
  timestampMs: recordTime,
})

/** What becomes of documents behind the decoder. */
class Downstream {
  readonly #window = new SlidingWindow({
    windowSeconds: 30,
    allowedLatenessSeconds: 10,
    priceOf: () => ({ usdPerHour: 1, basis: 'sample' }),
  })
  readonly #book = new PriceBook(initialBook(0.85), 1)
  readonly #opened = openSqlite()
  #samples: GpuDocument[] = []
  #tokens: TokenDocument[] = []
  #waiting: Promise<unknown> = Promise.resolve()
  readonly total = { stored: 0, duplicate: 0, sent: 0 }

  async prepare(): Promise<void> {
    await this.#opened.store.prepare()
  }

  take(kind: EventKind, document: GpuDocument | TokenDocument): void {
    const host = document.host
    const startMs = Math.floor(document.ts.getTime() / 60_000) * 60_000
    const at = { startMs, host, book: this.#book }
    if (kind === 'token') {
      const token = document as TokenDocument
      this.#window.price(token, NOW)
      computeCell({ ...at, samples: [], tokenTotals: [totalsOfEvent(token)] })
      this.#tokens.push(token)
    } else {
      const sample = document as GpuDocument
      this.#window.observe(sample)
      const before = { ...sample, _id: `${sample._id}0`, ts: new Date(sample.ts.getTime() - 30_000) }
      computeCell({ ...at, samples: [before, sample], tokenTotals: [] })
      this.#samples.push(sample)
    }
    // As the driver of MongoDB encodes it; a field of this name has a way of its own.
    if (!JSON.stringify(document).includes('_bsontype')) BSON.serialize(document)
    if (this.#samples.length + this.#tokens.length === 3000) this.#send()
  }

  #send(): void {
    const { store } = this.#opened
    const [samples, tokens] = [this.#samples, this.#tokens]
    this.#samples = []
    this.#tokens = []
    this.total.sent += samples.length + tokens.length
    this.#waiting = this.#waiting.then(async () => {
      const { stored, duplicate } = await store.writeDocuments(samples, tokens)
      this.total.stored += stored
      this.total.duplicate += duplicate
    })
  }

  /** Resolves with how many documents were read back. */
  async end(): Promise<number> {
    const { store } = this.#opened
    this.#send()
    this.#window.live(NOW, 90_000)
    await this.#waiting
    let read = 0
    for await (const _ of store.readEvents('gpu', 0, NOW * 2)) read++
    for await (const _ of store.readEvents('token', 0, NOW * 2)) read++
    return read
  }

  dispose(): Promise<void> {
    return this.#opened.dispose()
  }
}

test(`${RUNS} mutated events end as a document or a rejection (FAST_CHECK_SEED=${seed})`, async (t) => {
  t.diagnostic(`FAST_CHECK_SEED=${seed}`)
  const seen = new Map<string, number>()
  const downstream = new Downstream()
  t.after(() => downstream.dispose())
  await downstream.prepare()
  let offset = 0
  fc.assert(
    fc.property(mutated, ({ kind, damage, flipped, headers, timestampMs }) => {
      const good = JSON.stringify(kind === 'gpu' ? goodSample(NOW) : goodToken(NOW))
      const value = Buffer.from(damage.reduce((text, change) => change(text), good))
      if (flipped !== null && value.length > 0) value[flipped[0] % value.length] = flipped[1]
      const record = { offset: offset++, timestampMs, value, headers: headers === null ? null : new Map(headers) }
      const outcome = decodeRecord(kind, 'pt1l:t:0:', record, crc32, () => NOW)
      const date = recordDateOf(timestampMs)
      assert.ok(date === null || !Number.isNaN(date.getTime()))
      if (outcome instanceof Rejection) {
        assert.ok(outcome.reason in REASON_CODES)
        assert.ok(outcome.message.length > 0)
      } else {
        assert.ok(outcome.ts.getTime() >= Date.UTC(2015, 0, 1) && outcome.ts.getTime() <= NOW + 3_600_000)
        assert.match(outcome._id, /^pt1/)
        for (const field of Object.values(outcome)) assert.ok(typeof field !== 'number' || Number.isFinite(field))
        downstream.take(kind, outcome)
      }
      const name = outcome instanceof Rejection ? outcome.reason : 'document'
      seen.set(name, (seen.get(name) ?? 0) + 1)
    }),
    { numRuns: RUNS, seed },
  )
  // The damage must be neither too small nor too large to try every step of the decoder.
  const expected = ['document', 'not_json', 'wrong_type', 'missing_field', 'out_of_range', 'bad_cloudevent']
  const read = await downstream.end()
  const { stored, duplicate, sent } = downstream.total
  assert.deepEqual([read, stored + duplicate], [stored, sent])
  for (const name of expected) assert.ok((seen.get(name) ?? 0) > RUNS / 200, `${name}: ${JSON.stringify([...seen])}`)
})
