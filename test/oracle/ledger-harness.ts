// Runs the real ledger over a handful of raw events as a keeper would: cell by cell, each with the samples within G
// around it and the token usage of its minute, grouped as a database groups. Its rows come out in the shape of the
// batch oracle, so that tests can compare the two, or look at one.

import type { GpuDocument, TokenDocument } from '../../src/domain/events/event.ts'
import { computeCell } from '../../src/domain/ledger/cell.ts'
import { compareRows } from '../../src/domain/ledger/rows.ts'
import { partsOf } from '../../src/domain/ledger/token-parts.ts'
import { totalsOfEvent } from '../../src/domain/ledger/token-totals.ts'
import type { Cell, CellRow, TokenCounts, TokenTotals } from '../../src/domain/ledger/types.ts'
import type { PriceBook } from '../../src/domain/prices/price-book.ts'

const MINUTE_MS = 60_000

/** Events as tests write them: what the ledger reads, nothing else. */
export type Sample = Partial<GpuDocument> & Pick<GpuDocument, '_id' | 'ts' | 'host' | 'gpu_index'>
export type Usage = Partial<TokenDocument> &
  Pick<TokenDocument, 'ts' | 'host' | 'model' | 'prompt_tokens' | 'completion_tokens'>

/** Totals grouped by (gpus, model, tenant), as both stores do it. */
export function groupTotals(usages: readonly Usage[]): TokenTotals[] {
  const groups = new Map<string, TokenTotals>()
  for (const usage of usages) {
    const one = totalsOfEvent(usage as TokenDocument)
    const key = JSON.stringify([one.gpus, one.model, one.tenant])
    const group = groups.get(key)
    if (group === undefined) groups.set(key, one)
    else {
      group.events = Number(group.events) + Number(one.events)
      for (const field of Object.keys(one.sum) as (keyof TokenCounts)[]) {
        group.sum[field] = Number(group.sum[field]) + Number(one.sum[field])
        group.each[field] = Number(group.each[field]) + Number(one.each[field])
      }
    }
  }
  return [...groups.values()]
}

/** The parts of all events, each in its minute. */
export function cutAtMinutes(usages: readonly Usage[]): Usage[] {
  return usages.flatMap((usage) => partsOf(usage as TokenDocument) as unknown as Usage[])
}

/** The cell of a host and minute. */
export function cellOf(
  events: { samples: readonly Sample[]; usages: readonly Usage[] },
  at: { host: string | null; startMs: number },
  book: PriceBook,
): Cell {
  const { host, startMs } = at
  const fromMs = startMs - book.maxSampleGapMs
  const toMs = startMs + MINUTE_MS + book.maxSampleGapMs
  const names = book.hosts.namesOf(host)
  const within = (event: Pick<Sample, 'host' | 'ts'>, from: number, to: number) =>
    names.includes(event.host) && event.ts.getTime() >= from && event.ts.getTime() < to
  return computeCell({
    startMs,
    host,
    // Every other minute gets all samples of the host: those farther away must change nothing.
    samples: events.samples.filter((one) =>
      startMs % 120_000 === 0 ? names.includes(one.host) : within(one, fromMs, toMs),
    ),
    tokenTotals: groupTotals(cutAtMinutes(events.usages).filter((part) => within(part, startMs, startMs + MINUTE_MS))),
    book,
  })
}

/** All rows of all hosts over [fromMs, toMs), with `start` and `host`, sorted. */
export function ledgerRows(
  events: { samples: readonly Sample[]; usages: readonly Usage[] },
  range: { fromMs: number; toMs: number },
  book: PriceBook,
): (CellRow & { start: number; host: string | null })[] {
  const hosts = new Set([...events.samples, ...events.usages].flatMap((event) => book.hosts.cellsOf(event.host)))
  for (const host of book.committedHosts(range.fromMs, range.toMs)) hosts.add(host)
  const rows: (CellRow & { start: number; host: string | null })[] = []
  for (let startMs = range.fromMs; startMs < range.toMs; startMs += MINUTE_MS) {
    for (const host of hosts) {
      for (const row of cellOf(events, { host, startMs }, book).rows) rows.push({ ...row, start: startMs, host })
    }
  }
  return rows.sort(compareCellRows)
}

/** Order of rows over cells: minute, host (null first), then the rows' own order. */
export function compareCellRows(
  a: { start: number; host: string | null },
  b: { start: number; host: string | null },
): number {
  const byHost = a.host === b.host ? 0 : a.host === null ? -1 : b.host === null ? 1 : a.host < b.host ? -1 : 1
  return a.start - b.start || byHost || compareRows(a as unknown as CellRow, b as unknown as CellRow)
}
