// The time buckets of the ledger. Its unit is the cell: one minute of event time × one host (null is a host). Hours and
// days are sums of cells. Also the collection of cells that a batch of events touches, which becomes the batch's marks:
// a token event touches the cells that its interval reaches; a sample also those within G before and after it, because
// it covers time back to the sample before it and the next sample covers time back to it.

import { intervalMs } from '../events/event-interval.ts'

/** Length of a cell, milliseconds. */
export const CELL_MS = 60_000
export const HOUR_MS = 3_600_000
export const DAY_MS = 86_400_000

/** The buckets that the ledger keeps: a minute is a cell, an hour the sum of its cells, a day the sum of its hours. */
export const LEVELS = {
  minute: { lengthMs: CELL_MS },
  hour: { lengthMs: HOUR_MS, sumOf: 'minute' },
  day: { lengthMs: DAY_MS, sumOf: 'hour' },
} as const
export type BucketLevel = keyof typeof LEVELS
export type RollupLevel = 'hour' | 'day'

/** G: a sample covers the time back to its slot's previous sample if that is at most this long before, milliseconds. */
export const MAX_SAMPLE_GAP_MS = 90_000

/** The hosts of one minute whose cells are to be recomputed: the content of one mark. */
export interface DirtyMinute {
  /** Start of the minute, epoch milliseconds. */
  startMs: number
  hosts: (string | null)[]
}

/** Start of the bucket of `lengthMs` that an instant lies in. */
export function floorTo(lengthMs: number, atMs: number): number {
  return Math.floor(atMs / lengthMs) * lengthMs
}

/** In how many minutes before that of its `ts` a token event is counted too, at most 60; 0 for most events. */
export function reachMinutes(event: { ts: Date; interval_s?: number }): number {
  const lengthMs = intervalMs(event)
  if (lengthMs === 0) return 0
  const tsMs = event.ts.getTime()
  return Math.floor(tsMs / CELL_MS) - Math.floor((tsMs - lengthMs) / CELL_MS)
}

/** The cells that a batch of events touches; bounded by the batch. */
export class TouchedCells {
  readonly #hostsByMinute = new Map<number, Set<string | null>>()
  // Events of a batch come in runs of the same minute and host; remembering the last pair saves both look-ups.
  #lastMinute = Number.NaN
  #lastHost: string | null | undefined = undefined

  /** Touches the cells that a token event is counted in: those of the minutes of its interval. */
  touchToken(event: { host: string | null; ts: Date; interval_s?: number }): void {
    const tsMs = event.ts.getTime()
    const reach = reachMinutes(event)
    for (let before = reach; before > 0; before--) this.touch(event.host, tsMs - before * CELL_MS)
    // An interval that ends with a minute has nothing in the next one.
    if (reach === 0 || tsMs % CELL_MS > 0) this.touch(event.host, tsMs)
  }

  /** Touches the cell of an instant. */
  touch(host: string | null, tsMs: number): void {
    const minute = Math.floor(tsMs / CELL_MS)
    if (minute === this.#lastMinute && host === this.#lastHost) return
    this.#lastMinute = minute
    this.#lastHost = host
    this.#add(minute, host)
  }

  /** Touches the cells around a sample. */
  touchAround(host: string | null, tsMs: number): void {
    const last = Math.floor((tsMs + MAX_SAMPLE_GAP_MS) / CELL_MS)
    for (let minute = Math.floor((tsMs - MAX_SAMPLE_GAP_MS) / CELL_MS); minute <= last; minute++)
      this.#add(minute, host)
  }

  /** Adds all cells of another collection. */
  addAll(other: TouchedCells): void {
    for (const [minute, hosts] of other.#hostsByMinute) for (const host of hosts) this.#add(minute, host)
  }

  get isEmpty(): boolean {
    return this.#hostsByMinute.size === 0
  }

  /** One entry a minute, in order of time. */
  dirtyMinutes(): DirtyMinute[] {
    return [...this.#hostsByMinute]
      .sort((a, b) => a[0] - b[0])
      .map(([minute, hosts]) => ({ startMs: minute * CELL_MS, hosts: [...hosts] }))
  }

  #add(minute: number, host: string | null): void {
    const hosts = this.#hostsByMinute.get(minute)
    if (hosts === undefined) this.#hostsByMinute.set(minute, new Set([host]))
    else hosts.add(host)
  }
}
