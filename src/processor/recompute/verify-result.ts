// What `verify` is asked and what it answers.

import type { BucketLevel } from '../../domain/ledger/buckets.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'

export interface VerifyOptions {
  ledger: LedgerStore
  /** Whole minutes, epoch milliseconds, `toMs` exclusive. Hours and days are compared where they lie inside as a whole. */
  fromMs: number
  toMs: number
  /** Minutes that ended less than `lagMs` before this are not due yet and not looked at. */
  nowMs: number
  /** The keeper's lag, milliseconds; 105,000 when absent. */
  lagMs?: number
  /** Marks what differs, so that the keeper computes it anew. */
  repair?: boolean
  /** Told about once an hour of event time. */
  onProgress?: (progress: { doneToMs: number; fromMs: number; toMs: number; events: number; cells: number }) => void
  signal?: AbortSignal
}

/** One span that is not what the raw documents say. */
export interface Difference {
  level: BucketLevel
  /** Start of the span, ISO 8601. */
  start: string
  host: string | null
  /** What differs: `missing`, `rows`, `book version`, `capped`, `sum` (of an hour or day), `sums` (by model or tenant), `token totals`. */
  what: string
  expected: string
  found: string
}

export interface VerifyResult {
  /** ISO 8601; `to` is where minutes are no longer due, when that is before what was asked. */
  from: string
  to: string
  /** Documents that were read, of both kinds. */
  events: number
  cellsCompared: number
  hoursCompared: number
  daysCompared: number
  /** The first 20. */
  differences: Difference[]
  differenceCount: number
  /** Spans that differ and have marks pending, or changed meanwhile: the keeper is about to compute them. */
  pending: number
  /** Frozen and purged days, as 2026-01-31: skipped. */
  skippedDays: string[]
  /** How many differing spans were marked. */
  repaired: number
}
