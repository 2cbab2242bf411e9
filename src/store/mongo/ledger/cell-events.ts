// Raw events as the ledger reads them one by one, with its fields only and straight from their bytes
// (reading/bson-reader.ts), and the range of time that there are events for. Only documents that pertoken wrote;
// foreign ones may lie between them in any number, so the search for the first and last of ours proceeds in bounded
// steps.

import type { Document } from 'mongodb'
import type { EventKind } from '../../../domain/events/event.ts'
import type { LedgerSample, LedgerToken } from '../../../domain/ledger/types.ts'
import { COLLECTION_OF_KIND } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { BsonReader, type FieldKind, type ReadDocument } from '../reading/bson-reader.ts'
import { documentOf } from '../reading/find-page.ts'
import { OWN_IDS, pagesInOrder } from '../reading/ordered-scan.ts'
import { readAhead } from '../reading/read-ahead.ts'

const PAGE_DOCUMENTS = 2_000
const STEP_EVENTS = 50_000
const KINDS: readonly EventKind[] = ['gpu', 'token']

export type HostSample = LedgerSample & { host: string | null }

/** Samples of a range by (ts, _id), in pages. */
export function readLedgerSamples(
  connection: MongoConnection,
  fromMs: number,
  toMs: number,
): AsyncGenerator<HostSample[]> {
  return pagesOf(connection, 'gpu', { fromMs, toMs, read: sampleOf }) as AsyncGenerator<never>
}

/** Token usage of a range by (ts, _id), in pages. */
export function readLedgerTokens(
  connection: MongoConnection,
  fromMs: number,
  toMs: number,
): AsyncGenerator<LedgerToken[]> {
  return pagesOf(connection, 'token', { fromMs, toMs, read: tokenOf }) as AsyncGenerator<never>
}

function pagesOf(
  connection: MongoConnection,
  kind: EventKind,
  range: { fromMs: number; toMs: number; read: ReadDocument<Document> },
): AsyncGenerator<Document[]> {
  const events = { db: connection.db, collection: COLLECTION_OF_KIND[kind], filter: OWN_IDS }
  return readAhead(pagesInOrder({ ...events, pageDocuments: PAGE_DOCUMENTS, ...range }))
}

/** The sample of a document, with the ledger's fields and possibly others. */
export function sampleOf(bytes: Buffer, start = 0): HostSample {
  return SAMPLE.tryRead(bytes, start) ?? (documentOf(bytes, start) as HostSample)
}

/** The token usage of a document, with the ledger's fields and possibly others. */
export function tokenOf(bytes: Buffer, start = 0): LedgerToken {
  return TOKEN.tryRead(bytes, start) ?? (documentOf(bytes, start) as LedgerToken)
}

const SAMPLE = new BsonReader<HostSample>(
  {
    _id: 'text',
    ts: 'date',
    host: 'text',
    gpu_index: 'number',
    uuid: 'text',
    name: 'text',
    utilization: 'number',
    mem_used_mb: 'number',
    mem_total_mb: 'number',
    power_w: 'number',
    energy_j: 'number',
    price_per_hour_usd: 'number',
    model_loaded: 'text',
  } satisfies Record<keyof HostSample, FieldKind>,
  () => ({}) as HostSample,
)

const TOKEN = new BsonReader<LedgerToken>(
  {
    _id: 'text',
    ts: 'date',
    host: 'text',
    gpu_index: 'number',
    gpus: 'numbers',
    model: 'text',
    tenant: 'text',
    prompt_tokens: 'number',
    completion_tokens: 'number',
    cached_prompt_tokens: 'number',
    requests: 'number',
    interval_s: 'number',
  } satisfies Record<keyof LedgerToken, FieldKind>,
  () => ({}) as LedgerToken,
)

/** The range of event time of both kinds. */
export async function rawRange(connection: MongoConnection): Promise<{ fromMs: number; toMs: number } | null> {
  const edges = KINDS.flatMap((kind) => [edgeMs(connection, kind, 1), edgeMs(connection, kind, -1)])
  const times = (await Promise.all(edges)).filter((ms) => ms !== null)
  return times.length === 0 ? null : { fromMs: Math.min(...times), toMs: Math.max(...times) + 1 }
}

/** Time of the first (1) or last (-1) event of ours; null when there is none. */
async function edgeMs(connection: MongoConnection, kind: EventKind, direction: 1 | -1): Promise<number | null> {
  const events = connection.db.collection(COLLECTION_OF_KIND[kind])
  const options = { maxTimeMS: connection.queryTimeMs, projection: { _id: 0, ts: 1 } }
  const [behind, upTo] = direction === 1 ? (['$gt', '$lte'] as const) : (['$lt', '$gte'] as const)
  const extreme = new Date(8.64e15 * -direction)
  for (let range: Document = { [`${behind}e`]: extreme }; ; ) {
    const inOrder = (filter: Document) => events.find(filter, options).sort({ ts: direction }).limit(1)
    const stepEnd = await inOrder({ ts: range }).skip(STEP_EVENTS).next()
    const step = stepEnd === null ? range : { ...range, [upTo]: stepEnd['ts'] }
    const found = await inOrder({ ...OWN_IDS, ts: step }).next()
    if (found !== null) return (found['ts'] as Date).getTime()
    if (stepEnd === null) return null
    range = { [behind]: stepEnd['ts'], [upTo]: new Date(8.64e15 * direction) }
  }
}
