// A step: some consecutive records of some partitions, decoded, priced, and ready to be written. Decoding is synchronous
// and in the order of the log, so the live window sees events as they came; everything that waits comes later.

import { isStructured, readAttributes } from '../../domain/events/cloudevents.ts'
import { decodeRecord, type RawRecord } from '../../domain/events/decode.ts'
import type { EventKind, GpuDocument, TokenDocument } from '../../domain/events/documents.ts'
import { isOwnId, logIdPrefix } from '../../domain/events/event-id.ts'
import { Rejection } from '../../domain/events/rejection.ts'
import { TouchedCells } from '../../domain/ledger/buckets.ts'
import type { LogRecord, Position, RecordBatch } from '../../log/event-log.ts'

/** Header that carries the id which a redriven record would have had at its first place. */
export const REDRIVE_ID_HEADER = 'pertoken_id'

/** Where a document came from. */
export interface Origin {
  batch: RecordBatch
  record: LogRecord
}

/** A refused record with where it lay. */
export interface RejectedRecord extends Origin {
  refusal: Rejection
}

/** What one step writes. */
export interface Step {
  samples: GpuDocument[]
  tokens: TokenDocument[]
  /** The record of each sample and token event, in order, should one be refused after all; empty where none can be. */
  sampleOrigins: Origin[]
  tokenOrigins: Origin[]
  rejected: RejectedRecord[]
  cells: TouchedCells
  /** Where each partition of the step stands once the step is done. */
  positions: Position[]
  records: number
  /** Length of the records' values, bytes. */
  bytes: number
  /** Steps of a revoked assignment still finish; their positions are only ever moved forward. */
  done: boolean
}

/** What the decoding of a step needs from the processor. */
export interface StepContext {
  kindOf(topic: string): EventKind
  crc32(bytes: Uint8Array): number
  /** Whether records must be kept beside their documents, because a day may be closed before these are written. */
  keepsOrigins: boolean
  /** Completes a document before it is written: host, live price. */
  admitSample(document: GpuDocument): void
  admitToken(document: TokenDocument, record: LogRecord): void
}

/** Most records in a step. Measured: 1,000 cost a third more CPU than 3,000, and 8,000 gain nothing but memory. */
const MAX_STEP_RECORDS = 3000

/** Cuts what one read gave into steps, in order. */
export function* stepsOf(batches: readonly RecordBatch[], context: StepContext): Generator<Step> {
  let step = emptyStep()
  for (const batch of batches) {
    const idPrefix = logIdPrefix(batch)
    let from = 0
    do {
      const to = Math.min(batch.records.length, from + MAX_STEP_RECORDS - step.records)
      for (let i = from; i < to; i++) admit(step, batch, idPrefix, batch.records[i]!, context)
      step.records += to - from
      const offset = to === batch.records.length ? batch.nextOffset : batch.records[to - 1]!.offset + 1
      step.positions.push({ topic: batch.topic, topicId: batch.topicId, partition: batch.partition, offset })
      from = to
      if (step.records >= MAX_STEP_RECORDS) {
        yield step
        step = emptyStep()
      }
    } while (from < batch.records.length)
  }
  if (step.positions.length > 0) yield step
}

function emptyStep(): Step {
  return {
    samples: [],
    tokens: [],
    sampleOrigins: [],
    tokenOrigins: [],
    rejected: [],
    cells: new TouchedCells(),
    positions: [],
    records: 0,
    bytes: 0,
    done: false,
  }
}

function admit(step: Step, batch: RecordBatch, idPrefix: string, record: LogRecord, context: StepContext): void {
  const kind = context.kindOf(batch.topic)
  const raw = record.headers === null ? plainRecord(record) : recordWithHeaders(record)
  if (!(raw instanceof Rejection)) step.bytes += raw.value?.length ?? 0
  const document = raw instanceof Rejection ? raw : decodeRecord(kind, idPrefix, raw, context.crc32)
  if (document instanceof Rejection) {
    step.rejected.push({ batch, record, refusal: document })
  } else if (kind === 'gpu') {
    const sample = document as GpuDocument
    context.admitSample(sample)
    step.samples.push(sample)
    if (context.keepsOrigins) step.sampleOrigins.push({ batch, record })
    step.cells.touchAround(sample.host, sample.ts.getTime())
  } else {
    const token = document as TokenDocument
    context.admitToken(token, record)
    step.tokens.push(token)
    if (context.keepsOrigins) step.tokenOrigins.push({ batch, record })
    step.cells.touch(token.host, token.ts.getTime())
  }
}

function plainRecord(record: LogRecord): RawRecord {
  const { offset, timestampMs, value } = record
  return { offset, timestampMs, value, cloudEvent: null, structured: false, id: null }
}

/** Reads the CloudEvents envelope of a record's headers, if there is one; other headers are nobody's business here. */
function recordWithHeaders(record: LogRecord): RawRecord | Rejection {
  const raw = plainRecord(record)
  const attributes: Record<string, unknown> = {}
  let binary = false
  for (const [name, value] of record.headers!) {
    const lower = name.toLowerCase()
    if (lower === REDRIVE_ID_HEADER && isOwnId(value?.toString('utf8'))) raw.id = value!.toString('utf8')
    else if (lower === 'content-type' && value !== null) raw.structured = isStructured(value.toString('utf8'))
    else if (lower.startsWith('ce_')) {
      binary = true
      attributes[lower.slice(3)] = value?.toString('utf8')
    }
  }
  if (!binary || raw.structured) return raw
  const read = readAttributes(attributes)
  if (read instanceof Rejection) return read
  raw.cloudEvent = read
  return raw
}

/** Takes the documents of closed days out of a step and refuses their records by name. `closedReason` is null for an open day. */
export function refuseClosedDays(step: Step, closedReason: (tsMs: number) => string | null): void {
  const keep = <D extends GpuDocument | TokenDocument>(documents: D[], origins: Origin[]): [D[], Origin[]] => {
    const reasons = documents.map(({ ts }) => closedReason(ts.getTime()))
    if (reasons.every((reason) => reason === null)) return [documents, origins]
    if (origins.length < documents.length) {
      // Another processor has retention, this one has not: it must read the events again to refuse them by name.
      throw new Error(
        'A day was closed while its events were in flight: set RAW_RETENTION_DAYS here as well and restart',
      )
    }
    reasons.forEach((reason, i) => {
      if (reason !== null) step.rejected.push({ ...origins[i]!, refusal: Rejection.of('day_closed', reason, '/ts') })
    })
    return [documents.filter((_, i) => reasons[i] === null), origins.filter((_, i) => reasons[i] === null)]
  }
  const [samples, sampleOrigins] = keep(step.samples, step.sampleOrigins)
  const [tokens, tokenOrigins] = keep(step.tokens, step.tokenOrigins)
  Object.assign(step, { samples, sampleOrigins, tokens, tokenOrigins })
}
