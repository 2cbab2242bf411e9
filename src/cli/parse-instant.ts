// Instants as people type them on the command line: ISO 8601, a date (its midnight, UTC), epoch milliseconds, `now`, or
// so long ago: 90m, 24h, 7d. All wrong ones are a UsageError that names the flag.

import { parseInstantMs } from '../domain/prices/price-rule.ts'
import { type CommandContext, textFlag, UsageError } from './command.ts'

const UNIT_MS: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000 }
const LAST_INSTANT_MS = 8.64e15

/** A flag's instant, epoch milliseconds; undefined when it is not given. */
export function instantFlag(flags: CommandContext['flags'], name: string, nowMs: number): number | undefined {
  const text = textFlag(flags, name)
  if (text === undefined) return undefined
  const ms = parseInstant(text.trim(), nowMs)
  if (ms >= 0 && ms <= LAST_INSTANT_MS) return ms
  const allowed = '2026-01-31, 2026-01-31T12:00:00Z, epoch milliseconds, now, or so long ago: 90m, 24h, 7d'
  throw new UsageError(`Flag --${name} is "${text}": expected an instant like ${allowed}`)
}

/** Epoch milliseconds, NaN when it is no instant. */
export function parseInstant(text: string, nowMs: number): number {
  if (text === 'now') return nowMs
  const ago = /^(\d{1,6})([mhd])$/.exec(text)
  if (ago !== null) return nowMs - Number(ago[1]) * UNIT_MS[ago[2]!]!
  return /^\d{11,16}$/.test(text) ? Number(text) : parseInstantMs(text)
}
