// Rows of the ledger for tests of reports: what is not given is 0. Minutes are random fleets from a seed, and hours and
// days are their sums, as the keeper makes them.

import { floorTo, LEVELS } from '../../src/domain/ledger/buckets.ts'
import { noAmounts, RowAccumulator } from '../../src/domain/ledger/rows.ts'
import type { CellRow, LedgerAmounts } from '../../src/domain/ledger/types.ts'
import { type CostBucket, CostGrouping, type CostRow } from '../../src/report/cost-grouping.ts'
import type { CostQuery, PlannedRead } from '../../src/report/cost-query.ts'

/** 2026-06-01, a Monday and the first of a month. */
export const START_MS = Date.UTC(2026, 5, 1)

export function row(change: Partial<CellRow>): CellRow {
  const key = { gpu_index: 0, gpu_uuid: null, gpu_name: null, model: null, tenant: null, price_kind: 'sample' } as const
  return { ...key, ...noAmounts(), ...change }
}

/** A row with tokens: a minute of a GPU at 3.60 USD/h, half of it busy. */
export function usedRow(change: Partial<CellRow> = {}): CellRow {
  return row({
    model: 'llama',
    tenant: 'chat',
    requests: 2n,
    prompt_tokens: 600n,
    cached_prompt_tokens: 100n,
    completion_tokens: 200n,
    measured_tokens: 800n,
    covered_ms: 60_000n,
    busy_nano_usd: 30_000_000n,
    loaded_idle_nano_usd: 30_000_000n,
    input_nano_usd: 37_500_000n,
    cached_nano_usd: 7_500_000n,
    output_nano_usd: 15_000_000n,
    basis: 'measured',
    method: 'weighted-tokens',
    ...change,
  })
}

/** The rows of one host summed by their key, sorted. */
export function sumRows(rows: Iterable<CellRow>): CellRow[] {
  const sum = new RowAccumulator()
  sum.add(rows)
  return sum.rows()
}

/** The rows and totals of an answer that is read from these buckets, which are in order of time. */
export function groupBuckets(
  query: CostQuery,
  buckets: Iterable<CostBucket>,
): { rows: CostRow[]; totals: LedgerAmounts } {
  const grouping = new CostGrouping(query)
  const rows: CostRow[] = []
  for (const bucket of buckets) rows.push(...grouping.add(bucket))
  rows.push(...grouping.finish())
  return { rows, totals: grouping.totals }
}

/** Numbers from 0 to 1 that a seed decides. */
export function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

/** Cells of some minutes in [fromMs, toMs): two hosts, three GPUs, some rows without a model. */
export function randomCells(fromMs: number, toMs: number, random: () => number): CostBucket[] {
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!
  const amount = () => BigInt(Math.floor(random() * 1e9))
  const cells: CostBucket[] = []
  for (let startMs = fromMs; startMs < toMs; startMs += 60_000 * Math.ceil(random() * 25)) {
    for (const host of ['h1', null]) {
      const rows = Array.from({ length: 4 }, () => {
        const model = pick(['llama', 'qwen', null])
        const money = { loaded_idle_nano_usd: amount(), unallocated_nano_usd: model === null ? amount() : 0n }
        return usedRow({
          ...{ gpu_index: pick([0, 1, 2]), model, tenant: model === null ? null : pick(['a', 'b']) },
          ...{ busy_nano_usd: amount(), ...money, price_kind: pick(['spot', 'sample'] as const) },
        })
      })
      cells.push({ startMs, host, rows: sumRows(rows) })
    }
  }
  return cells.sort((a, b) => a.startMs - b.startMs || Number(a.host !== null) - Number(b.host !== null))
}

/** What a store that holds these cells, and the hours and days that are their sums, gives for a plan. */
export function readPlan(cells: readonly CostBucket[], plan: readonly PlannedRead[]): CostBucket[] {
  return plan.flatMap(({ level, fromMs, toMs }) => {
    const { lengthMs } = LEVELS[level]
    const spans = new Map<string, CostBucket & { rows: CellRow[] }>()
    for (const { startMs, host, rows } of cells) {
      const start = floorTo(lengthMs, startMs)
      if (start < fromMs || start >= toMs) continue
      const key = JSON.stringify([start, host])
      const span = spans.get(key)
      if (span === undefined) spans.set(key, { startMs: start, host, rows: [...rows] })
      else span.rows.push(...rows)
    }
    return [...spans.values()].map((span) => ({ ...span, rows: sumRows(span.rows) }))
  })
}
