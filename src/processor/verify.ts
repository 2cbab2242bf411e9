// Recomputes the ledger from the single raw documents and compares. (Being written; the interface stands.)

import type { EventStore } from '../store/event-store.ts'
import type { LedgerStore, SpanLevel } from '../store/ledger-store.ts'

export interface VerifyOptions {
  events: EventStore
  ledger: LedgerStore
  /** Whole minutes, epoch milliseconds, `toMs` exclusive. */
  fromMs: number
  toMs: number
  /** Minutes that ended less than 105 s before this are not due yet and counted as pending. */
  nowMs: number
  /** Marks what differs, so that the keeper computes it anew. */
  repair?: boolean
  onProgress?: (progress: { doneToMs: number; fromMs: number; toMs: number; events: number; cells: number }) => void
  signal?: AbortSignal
}

/** One span that is not what the raw documents say. */
export interface Difference {
  level: SpanLevel
  /** Start of the span, ISO 8601. */
  start: string
  host: string | null
  /** What differs: `missing`, `rows`, `book version`, `sum`, `token totals`. */
  what: string
  expected: string
  found: string
}

export interface VerifyResult {
  from: string
  to: string
  events: number
  cellsCompared: number
  hoursCompared: number
  daysCompared: number
  /** The first 20. */
  differences: Difference[]
  differenceCount: number
  /** Spans with pending marks or not due yet: not compared. */
  pending: number
  /** Frozen and purged days, as 2026-01-31: skipped. */
  skippedDays: string[]
  /** How many differing spans were marked. */
  repaired: number
}

/** Compares a range. Rejects with the signal's reason when aborted, or with a StoreError. */
export async function verify(_options: VerifyOptions): Promise<VerifyResult> {
  throw new Error('being written')
}
