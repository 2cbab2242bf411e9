// The actors of the protocol model and its wrong variants. A processor delivers a batch: documents, then marks, as the
// steps in flight do. A keeper works on one minute and its hour with the keeper's own classes. A mutation is a store
// that breaks one rule of the protocol for whoever uses it; the model has to find a stale ledger with each.

import type { GpuDocument, TokenDocument } from '../../../src/domain/events/event.ts'
import { type BucketLevel, HOUR_MS } from '../../../src/domain/ledger/buckets.ts'
import { touchExisting } from '../../../src/processor/ingest/step.ts'
import { KeeperCounters, type KeeperDependencies, MinuteKeeper } from '../../../src/processor/ledger/minute-keeper.ts'
import { RollupKeeper } from '../../../src/processor/ledger/rollup-keeper.ts'
import { RunLength } from '../../../src/processor/ledger/schedule.ts'
import { PriceBookVersions } from '../../../src/processor/prices/price-book-versions.ts'
import type { WriteResult } from '../../../src/store/event-store.ts'
import type { LedgerBucket, LedgerStore, Mark } from '../../../src/store/ledger-store.ts'
import { Lines, type Store, touchedBy } from '../ledger/ledger-place.ts'
import type { Actor } from './interleavings.ts'

export interface Batch {
  samples: GpuDocument[]
  tokens: TokenDocument[]
}

/** One step of a processor. `minutes`: mark only these, where a test looks at no others. */
export async function deliver(store: Store, batch: Batch, nowMs: number, minutes?: readonly number[]): Promise<void> {
  const { existing } = await store.writeDocuments(batch.samples, batch.tokens)
  await store.ledger.insertMarks('minute', minutesOf(batch, minutes, existing), nowMs)
}

/** Wrong: a duplicate marks the cell of what was delivered now, whose host may have been inferred otherwise. */
export async function deliverMarkingInferred(store: Store, batch: Batch, nowMs: number): Promise<void> {
  await store.writeDocuments(batch.samples, batch.tokens)
  await store.ledger.insertMarks('minute', minutesOf(batch), nowMs)
}

/** Wrong: marks, then documents. */
export async function deliverMarksFirst(store: Store, batch: Batch, nowMs: number): Promise<void> {
  await store.ledger.insertMarks('minute', minutesOf(batch), nowMs)
  await store.writeDocuments(batch.samples, batch.tokens)
}

/** Wrong: what was there already is not marked. */
export async function deliverMarkingNew(store: Store, batch: Batch, nowMs: number): Promise<void> {
  const { stored } = await store.writeDocuments(batch.samples, batch.tokens)
  if (stored > 0) await store.ledger.insertMarks('minute', minutesOf(batch), nowMs)
}

function minutesOf({ samples, tokens }: Batch, minutes?: readonly number[], existing?: WriteResult['existing']) {
  const cells = touchedBy(samples, tokens)
  if (existing !== undefined) touchExisting(cells, existing)
  const touched = cells.dirtyMinutes()
  return minutes === undefined ? touched : touched.filter(({ startMs }) => minutes.includes(startMs))
}

/** A keeper's work on a minute and, unless left out, on its hour, whoever marked them. */
export function keeperActor(name: string, minuteMs: number, options: { nowMs: number; withHour: boolean }): Actor {
  const { nowMs, withHour } = options
  const partsOn = async (store: Store): Promise<KeeperDependencies> => {
    const { ledger } = store
    const books = new PriceBookVersions(ledger)
    await books.refresh()
    return { ledger, books, counters: new KeeperCounters(), log: new Lines(), now: () => nowMs }
  }
  const hourMs = Math.floor(minuteMs / HOUR_MS) * HOUR_MS
  const minute = async (store: Store) => {
    await new MinuteKeeper(await partsOn(store), new RunLength()).compute([minuteMs])
  }
  const hour = async (store: Store) => {
    await new RollupKeeper(await partsOn(store)).compute('hour', hourMs)
  }
  return { name, phases: withHour ? [minute, hour] : [minute] }
}

type Overrides = (ledger: LedgerStore) => Partial<LedgerStore>

function withLedger(overrides: Overrides): (store: Store) => Store {
  return (store) => {
    const changed = overrides(store.ledger) as Record<string, unknown>
    const ledger = new Proxy(store.ledger, {
      get: (target, method: keyof LedgerStore) =>
        changed[method] ?? ((...args: unknown[]) => (target[method] as (...all: unknown[]) => unknown)(...args)),
    })
    return new Proxy(store, {
      get: (target, method: keyof Store) =>
        method === 'ledger'
          ? ledger
          : (...args: unknown[]) => (target[method] as (...all: unknown[]) => unknown)(...args),
    })
  }
}

/** Ways to break the protocol in the keeper. */
export const MUTATIONS = {
  'marks deleted by minute instead of by id': withLedger((ledger) => {
    let read: { level: BucketLevel; startMs: number } | null = null
    return {
      readMarks: (level, startMs) => {
        read = { level, startMs }
        return ledger.readMarks(level, startMs)
      },
      deleteMarks: async () => {
        if (read === null) return
        const marks: Mark[] = await ledger.readMarks(read.level, read.startMs)
        await ledger.deleteMarks(marks.map(({ id }) => id))
      },
    }
  }),
  'replace without a look at the rev': withLedger((ledger) => ({
    replaceBuckets: async (spans) => {
      const revised: LedgerBucket[] = []
      for (const span of spans) {
        const revs = await ledger.readRevs(span.level, span.startMs, [span.host])
        revised.push({ ...span, rev: revs.get(span.host) ?? 0 })
      }
      return ledger.replaceBuckets(revised)
    },
  })),
  'marks deleted though the race was lost': withLedger((ledger) => ({
    replaceBuckets: async (spans) => {
      await ledger.replaceBuckets(spans)
      return spans.map(() => true)
    },
  })),
  'hour marked before its cell is replaced': withLedger((ledger) => ({
    replaceBuckets: async (spans) => {
      const minutes = spans.filter((span) => span.level === 'minute')
      for (const { startMs, host, computedMs } of minutes) {
        const hourMs = Math.floor(startMs / HOUR_MS) * HOUR_MS
        await ledger.insertMarks('hour', [{ startMs: hourMs, hosts: [host] }], computedMs)
      }
      return ledger.replaceBuckets(spans)
    },
    insertMarks: async (level, spans, atMs) => {
      if (level !== 'hour') await ledger.insertMarks(level, spans, atMs)
    },
  })),
  'marks deleted before the hour is marked': withLedger((ledger) => {
    let held: [BucketLevel, { startMs: number; hosts: readonly (string | null)[] }[], number] | null = null
    return {
      insertMarks: async (level, spans, atMs) => {
        held = [level, [...spans], atMs]
      },
      deleteMarks: async (ids) => {
        await ledger.deleteMarks(ids)
        if (held !== null) await ledger.insertMarks(...held)
        held = null
      },
    }
  }),
  'hour not marked when the cell came out as it was': withLedger((ledger) => {
    let isSame = false
    return {
      replaceBuckets: async (spans) => {
        isSame = await areStored(ledger, spans)
        return ledger.replaceBuckets(spans)
      },
      insertMarks: async (level, spans, atMs) => {
        if (level !== 'hour' || !isSame) await ledger.insertMarks(level, spans, atMs)
      },
    }
  }),
  'cell not replaced when it came out as it was': withLedger((ledger) => ({
    replaceBuckets: async (spans) =>
      (await areStored(ledger, spans)) ? spans.map(() => true) : ledger.replaceBuckets(spans),
  })),
} satisfies Record<string, (store: Store) => Store>

async function areStored(ledger: LedgerStore, spans: readonly LedgerBucket[]): Promise<boolean> {
  const text = (rows: unknown) => JSON.stringify(rows, (_, one) => (typeof one === 'bigint' ? String(one) : one))
  for (const span of spans) {
    const stored: LedgerBucket[] = []
    for await (const one of ledger.readBuckets(span.level, span.startMs, span.startMs + 1, [span.host]))
      stored.push(one)
    if (stored.length === 0 || text(stored[0]!.rows) !== text(span.rows)) return false
  }
  return true
}
