// How long the spans of the ledger are.

import { CELL_MS, DAY_MS, HOUR_MS } from '../../domain/ledger/buckets.ts'
import type { BucketLevel } from '../../store/ledger-store.ts'

/** Lengths of spans by level, milliseconds. */
export const BUCKET_MS: Record<BucketLevel, number> = { minute: CELL_MS, hour: HOUR_MS, day: DAY_MS }
