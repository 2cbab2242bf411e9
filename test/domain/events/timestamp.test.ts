import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseIsoMs } from '../../../src/domain/events/timestamp.ts'

const CASES: [string, string | null][] = [
  ['2026-11-22T17:39:12Z', '2026-11-22T17:39:12.000Z'],
  ['2026-11-22T17:39:12', '2026-11-22T17:39:12.000Z'],
  ['2023-11-16 18:17:03.9799600', '2023-11-16T18:17:03.979Z'],
  ['2026-11-22T17:39:12.123456789Z', '2026-11-22T17:39:12.123Z'],
  ['2026-11-22T17:39:12,5Z', '2026-11-22T17:39:12.500Z'],
  ['2026-11-22T17:39:12+02:00', '2026-11-22T15:39:12.000Z'],
  ['2026-11-22T17:39:12.25-0530', '2026-11-22T23:09:12.250Z'],
  ['2026-11-22T00:39:12+01', '2026-11-21T23:39:12.000Z'],
  ['2016-12-31T23:59:60Z', '2017-01-01T00:00:00.000Z'],
  ['2024-02-29T00:00:00Z', '2024-02-29T00:00:00.000Z'],
  ['2023-02-29T00:00:00Z', null],
  ['2026-11-31T00:00:00Z', null],
  ['2026-11-22T24:00:00Z', null],
  ['2026-11-22T17:39:61Z', null],
  ['2026-11-22', null],
  ['2026-11-22T17:39Z', '2026-11-22T17:39:00.000Z'],
  ['2026-11-22T17:39', '2026-11-22T17:39:00.000Z'],
  ['2026-11-22 17:39+02:00', '2026-11-22T15:39:00.000Z'],
  ['2026-11-22T17:39-0530', '2026-11-22T23:09:00.000Z'],
  ['2026-11-22T00:39+01', '2026-11-21T23:39:00.000Z'],
  ['2026-11-22T17:39:12+0100', '2026-11-22T16:39:12.000Z'],
  ['20261122T173912Z', '2026-11-22T17:39:12.000Z'],
  ['20261122T173912.25+0100', '2026-11-22T16:39:12.250Z'],
  ['20261122T1739+01', '2026-11-22T16:39:00.000Z'],
  ['20261122T1739', '2026-11-22T17:39:00.000Z'],
  ['20261322T1739Z', null],
  ['20261122T17', null],
  ['1764279000000', null],
  ['2026-11-22T17:39.5Z', null],
  ['2026-11-22T17:39:', null],
  ['2026-11-22T17:39:1', null],
  ['2026-11-22T17:3Z', null],
  ['2026-11-22T17Z', null],
  ['2026-11-22T17:39:12.Z', null],
  ['2026-11-22T17:39:12Zx', null],
  ['2026-11-22T17:39:12+2', null],
  ['22/11/2026 17:39:12', null],
  ['', null],
]

for (const [text, expected] of CASES) {
  test(`"${text}" is ${expected ?? 'no time'}`, () => {
    const ms = parseIsoMs(text)
    assert.equal(Number.isNaN(ms) ? null : new Date(ms).toISOString(), expected)
  })
}

test('a time without seconds is the same minute at 0 seconds, in both formats and with any zone', () => {
  const zones = ['', 'Z', '+00:00', '+0100', '-03', '+14:00']
  fc.assert(
    fc.property(
      fc.date({ min: new Date('2015-01-01'), max: new Date('2099-12-31'), noInvalidDate: true }),
      fc.constantFrom(...zones),
      (date, zone) => {
        const minute = date.toISOString().slice(0, 16)
        const expected = parseIsoMs(`${minute}:00${zone}`)
        assert.ok(expected > 0)
        assert.equal(parseIsoMs(minute + zone), expected)
        assert.equal(parseIsoMs(minute.replaceAll(/[-:]/g, '') + zone), expected)
      },
    ),
  )
})

test('every time that Date prints is read back', () => {
  fc.assert(
    fc.property(fc.date({ min: new Date('0001-01-01'), max: new Date('9999-12-31'), noInvalidDate: true }), (date) => {
      assert.equal(parseIsoMs(date.toISOString()), date.getTime())
    }),
  )
})
