// Times of traces: ISO 8601, or a number. A number is relative to the beginning of the trace while it is small, else it
// counts from 1970; which one it is follows from its size, since no trace lasts thirty years. Relative times need a
// beginning, which no file has: the operator names it, and it is never invented.

import { parseIsoMs } from '../domain/events/timestamp.ts'
import { type LineError, quote, wrongLine } from './parsed-line.ts'

/** What a number counts: seconds in CSV (BurstGPT), milliseconds in JSON (Mooncake). */
export type TimeUnit = 's' | 'ms'

/** Numbers below are relative; in milliseconds that is 11 days, in seconds 31 years. */
const RELATIVE_END = 1e9
/** Numbers from here on are epoch milliseconds (2001). */
const EPOCH_MS = 1e12

/** Reads the times of one trace. */
export class TraceClock {
  readonly #beginMs: number | undefined
  #isRelative: boolean | null = null

  /** `beginMs`: the instant that relative times count from; undefined: the operator has named none. */
  constructor(beginMs: number | undefined) {
    this.#beginMs = beginMs
  }

  /** Epoch milliseconds of a time, or what is wrong with it; `name` is its column or field. */
  read(name: string, value: string | number, unit: TimeUnit): number | LineError {
    const isoMs = typeof value === 'string' ? parseIsoMs(value) : Number.NaN
    const isNumber = typeof value === 'number' ? value >= 0 : /^\d{1,16}(\.\d{1,20})?$/.test(value)
    const number = isNumber ? Number(value) : Number.NaN
    const isRelative = number < RELATIVE_END
    const epochMs = Number.isNaN(isoMs) ? epochOf(number, unit) : isoMs
    if (!isRelative && Number.isNaN(epochMs)) return wrong(name, value, expectedOf(unit))
    if (this.#isRelative !== null && this.#isRelative !== isRelative) {
      const [is, was] = isRelative ? ['relative', 'instants'] : ['an instant', 'relative']
      return wrong(name, value, `the same kind as in the rows before: it is ${is}, they were ${was}`)
    }
    if (isRelative && this.#beginMs === undefined) {
      const found = `${name} is ${quote(String(value))}, relative to the beginning of the trace`
      return wrongLine(`${found}: say when that was with --begin INSTANT, or give --from-now`, true)
    }
    this.#isRelative = isRelative
    return isRelative ? this.#beginMs! + Math.round(unit === 's' ? number * 1000 : number) : epochMs
  }
}

function epochOf(number: number, unit: TimeUnit): number {
  if (number >= EPOCH_MS) return Math.floor(number)
  // In a format that counts milliseconds, a number of this size may be either seconds since 1970 or a long trace.
  return unit === 's' && number >= RELATIVE_END ? Math.floor(number * 1000) : Number.NaN
}

function expectedOf(unit: TimeUnit): string {
  if (unit === 's') return 'a UTC time like 2023-11-16 18:17:03.9799600, or seconds'
  return 'milliseconds from the beginning of the trace (below 1000000000) or since 1970'
}

function wrong(name: string, value: string | number, expected: string): LineError {
  return wrongLine(`${name} is ${quote(String(value))}: expected ${expected}`)
}
