// The log's time of a record, where it is one. Kafka stores whatever a producer sends: -1 (Kafka's own "none"), 0, or
// seconds, micro- or nanoseconds where milliseconds belong. Such a value is no time: it bounds no event, and becomes no
// Date, which above 8.64e15 would be an invalid one.

/** The oldest time of an event, and of a record: 2015, milliseconds. */
export const OLDEST_MS = Date.UTC(2015, 0, 1)
/** How far event time may be ahead of the log's time of the record, milliseconds. */
export const MAX_AHEAD_MS = 3_600_000
/** The last event time where nothing else bounds it: ISO 8601 has four digits for the year. */
export const LATEST_MS = Date.UTC(9999, 11, 31)
/** Seconds are before 2015, microseconds after 2100. */
const LATEST_RECORD_MS = Date.UTC(2100, 0, 1)

/** The log's time of a record, epoch milliseconds; null where the value is no time between 2015 and 2100. */
export function recordTimeOf(timestampMs: number): number | null {
  return timestampMs >= OLDEST_MS && timestampMs < LATEST_RECORD_MS ? timestampMs : null
}

/** The same as a Date. */
export function recordDateOf(timestampMs: number): Date | null {
  const ms = recordTimeOf(timestampMs)
  return ms === null ? null : new Date(ms)
}
