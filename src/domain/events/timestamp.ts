// Event times as they come in: ISO 8601 strings of any precision, or epoch milliseconds. Parsed by hand because it is
// on the path of every event, and because Date.parse reads a string without zone as local time: here it is UTC, which
// is what producers mean that print a naive time (Python's utcnow().isoformat()). A leap second's `:60` is the next
// second's `:00`, as in POSIX time. Digits beyond the millisecond are truncated, never rounded up into the next one.
// Seconds may be absent: Java prints none where they are 0.

const DAYS_BEFORE_MONTH = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334]
const DAYS_IN_MONTH = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

/** The basic format, without separators: date, time and the rest. */
const BASIC = /^(\d{4})(\d\d)(\d\d)([T t])(\d\d)(\d\d)(\d\d)?(.*)$/

/**
 * Milliseconds since 1970 (UTC) of an ISO 8601 date-time `YYYY-MM-DDTHH:MM[:SS[.fraction]][Z|±HH[[:]MM]]`, or of its
 * basic format `YYYYMMDDTHHMM[SS[.fraction]]` with the same zones; a space or `t` may stand for `T`. NaN when it is
 * none: a wrong month, the 30th of February, 24:00, a fraction of a minute and a missing time are none.
 */
export function parseIsoMs(text: string): number {
  const length = text.length
  if (length < 13 || length > 40) return Number.NaN
  if (text.charCodeAt(4) !== 45) return parseBasicMs(text)
  if (text.charCodeAt(7) !== 45) return Number.NaN
  const separator = text.charCodeAt(10)
  if (separator !== 84 && separator !== 32 && separator !== 116) return Number.NaN
  if (text.charCodeAt(13) !== 58) return Number.NaN
  const end = text.charCodeAt(16) === 58 ? 19 : 16
  const year = twoDigits(text, 0) * 100 + twoDigits(text, 2)
  const month = twoDigits(text, 5)
  const day = twoDigits(text, 8)
  const hour = twoDigits(text, 11)
  const minute = twoDigits(text, 14)
  const second = end === 19 ? twoDigits(text, 17) : 0
  // Each comparison is written so that NaN (no digit) fails it.
  if (!(month >= 1 && month <= 12 && hour <= 23 && minute <= 59 && second <= 60)) return Number.NaN
  const leapDay = month === 2 && isLeapYear(year) ? 1 : 0
  if (!(day >= 1 && day <= DAYS_IN_MONTH[month - 1]! + leapDay)) return Number.NaN
  const days = daysBeforeYear(year) + DAYS_BEFORE_MONTH[month - 1]! + (month > 2 && isLeapYear(year) ? 1 : 0) + day - 1
  const base = days * 86_400_000 + hour * 3_600_000 + minute * 60_000 + second * 1000
  return length === end ? base : base + fractionAndZoneMs(text, end)
}

function parseBasicMs(text: string): number {
  const parts = BASIC.exec(text)
  if (parts === null) return Number.NaN
  const [, year, month, day, separator, hour, minute, second, rest] = parts
  const seconds = second === undefined ? '' : `:${second}`
  return parseIsoMs(`${year}-${month}-${day}${separator}${hour}:${minute}${seconds}${rest}`)
}

/** The same, or a date like 2026-01-31, which is its midnight (UTC); NaN when it is neither. */
export function parseInstantMs(text: string): number {
  return parseIsoMs(text.length === 10 ? `${text}T00:00:00Z` : text)
}

function fractionAndZoneMs(text: string, from: number): number {
  let at = from
  let fractionMs = 0
  const point = text.charCodeAt(at)
  if (from === 19 && (point === 46 || point === 44)) {
    let weight = 100
    const start = ++at
    for (; at < text.length; at++) {
      const digit = text.charCodeAt(at) - 48
      if (digit < 0 || digit > 9) break
      fractionMs += digit * weight
      weight = weight === 100 ? 10 : weight === 10 ? 1 : 0
    }
    if (at === start) return Number.NaN
  }
  if (at === text.length) return fractionMs
  const zone = text.charCodeAt(at)
  if (zone === 90 || zone === 122) return at + 1 === text.length ? fractionMs : Number.NaN
  if (zone !== 43 && zone !== 45) return Number.NaN
  const colon = text.charCodeAt(at + 3) === 58 ? 1 : 0
  const hours = twoDigits(text, at + 1)
  const minutes = at + 3 === text.length ? 0 : twoDigits(text, at + 3 + colon)
  const end = at + 3 === text.length ? at + 3 : at + 5 + colon
  if (!(hours <= 23 && minutes <= 59) || end !== text.length) return Number.NaN
  const offsetMs = (hours * 60 + minutes) * 60_000
  return zone === 43 ? fractionMs - offsetMs : fractionMs + offsetMs
}

function twoDigits(text: string, at: number): number {
  const tens = text.charCodeAt(at) - 48
  const ones = text.charCodeAt(at + 1) - 48
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : Number.NaN
}

function isLeapYear(year: number): boolean {
  return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
}

function daysBeforeYear(year: number): number {
  const y = year - 1
  return y * 365 + Math.floor(y / 4) - Math.floor(y / 100) + Math.floor(y / 400) - 719_162
}
