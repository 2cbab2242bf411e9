// A step: some consecutive records of some partitions, decoded, priced, and ready to be written. The processor fills
// it, the step writer writes it.

import type { GpuDocument, TokenDocument } from '../../domain/events/event.ts'
import type { Rejection } from '../../domain/events/rejection.ts'
import { TouchedCells } from '../../domain/ledger/buckets.ts'
import type { LogRecord, Position, RecordBatch } from '../../log/event-log.ts'
import type { WriteResult } from '../../store/event-store.ts'

/** Where a document came from. */
export interface Origin {
  batch: RecordBatch
  record: LogRecord
}

/** A rejected record and where it lay. */
export interface RejectedRecord extends Origin {
  refusal: Rejection
}

export interface Step {
  samples: GpuDocument[]
  tokens: TokenDocument[]
  /** The record of each sample and token event, in order, should one be rejected after all; empty where none can be. */
  sampleOrigins: Origin[]
  tokenOrigins: Origin[]
  rejected: RejectedRecord[]
  cells: TouchedCells
  /** Where each partition of the step stands once the step is done. */
  positions: Position[]
  records: number
  /** Newest event time of its documents, epoch milliseconds; null when there are none. */
  newestMs: number | null
  /** Length of the records' values, bytes. */
  bytes: number
  /** Steps of a revoked assignment still finish; their positions are only ever moved forward. */
  done: boolean
}

export function emptyStep(): Step {
  return {
    samples: [],
    tokens: [],
    sampleOrigins: [],
    tokenOrigins: [],
    rejected: [],
    cells: new TouchedCells(),
    positions: [],
    records: 0,
    newestMs: null,
    bytes: 0,
    done: false,
  }
}

/**
 * Touches the cells of the documents that existed before a write. A crash between documents and marks may have left
 * them unmarked, and they need not be the cells of what was delivered now, for whose host another may be inferred.
 */
export function touchExisting(cells: TouchedCells, { samples, tokens }: WriteResult['existing']): void {
  for (const { host, ts } of samples) cells.touchAround(host, ts.getTime())
  for (const token of tokens) cells.touchToken(token)
}
