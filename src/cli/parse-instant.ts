// Instants typed by people on the command line: ISO 8601, a date (its midnight, UTC), epoch milliseconds, `now`, or a
// duration: before now (90m, 24h, 7d), for an expiry after now. Anything else is a UsageError that names the flag.

import { parseInstantMs } from '../domain/events/timestamp.ts'
import { type CommandContext, textFlag, UsageError } from './command.ts'

const UNIT_MS: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000 }
const LAST_INSTANT_MS = 8.64e15

/** The instant that a flag names, epoch milliseconds; undefined when the flag is not given. */
export function instantFlag(flags: CommandContext['flags'], name: string, nowMs: number): number | undefined {
  const text = textFlag(flags, name)
  if (text === undefined) return undefined
  const ms = parseInstant(text.trim(), nowMs)
  if (ms >= 0 && ms <= LAST_INSTANT_MS) return ms
  const allowed = '2026-01-31, 2026-01-31T12:00:00Z, epoch milliseconds, now, or so long ago: 90m, 24h, 7d'
  throw new UsageError(`Flag --${name} is "${text}": expected an instant like ${allowed}`)
}

/** Epoch milliseconds; a duration counts back from now. NaN when the text is no instant. */
export function parseInstant(text: string, nowMs: number): number {
  if (text === 'now') return nowMs
  const ago = /^(\d{1,6})([mhd])$/.exec(text)
  if (ago !== null) return nowMs - Number(ago[1]) * UNIT_MS[ago[2]!]!
  return /^\d{11,16}$/.test(text) ? Number(text) : parseInstantMs(text)
}

/** Epoch milliseconds; a duration of days or hours counts forward from now. NaN when the text is neither. */
export function parseExpiry(text: string, nowMs: number): number {
  const fromNow = /^(\d{1,5})([dh])$/.exec(text)
  return fromNow === null ? parseInstant(text, nowMs) : nowMs + Number(fromNow[1]) * UNIT_MS[fromNow[2]!]!
}
