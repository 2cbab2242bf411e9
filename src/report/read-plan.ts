// Which spans of the ledger answer a question: days for whole days, hours for whole hours, minutes for the edges. Hours
// and days are sums of minutes, so totals are equal whichever are read; the plan only decides how many rows that costs.

import { CELL_MS, DAY_MS, floorTo, HOUR_MS } from '../domain/ledger/buckets.ts'
import type { RowTotals } from '../domain/ledger/types.ts'
import type { CostQuery } from './cost-query.ts'

/** Spans of one level with a start in [fromMs, toMs). */
export interface PlannedRead {
  level: 'minute' | 'hour' | 'day'
  fromMs: number
  toMs: number
}

/**
 * Reads that cover [fromMs, toMs), both whole minutes, in order of time and without overlap. A span is never longer than
 * the step, so that each lies in one step; `longest` caps it further (idle is spread over slot-hours, so not by days).
 */
export function plan(
  fromMs: number,
  toMs: number,
  step: CostQuery['step'],
  options: { longest?: 'hour' | 'day' } = {},
): PlannedRead[] {
  if (step === '1m') return readsOf('minute', fromMs, toMs)
  if (step === '1h' || options.longest === 'hour') return around(fromMs, toMs, HOUR_MS, hourReads, minuteReads)
  return around(fromMs, toMs, DAY_MS, dayReads, (from, to) => around(from, to, HOUR_MS, hourReads, minuteReads))
}

/** The plan of a question. */
export function planOf({ fromMs, toMs, step, idle }: CostQuery): PlannedRead[] {
  return plan(fromMs, toMs, step, idle === 'spread' ? { longest: 'hour' } : {})
}

/**
 * Which sums of a span will do for a question, in place of all its rows: those by model where no tenant and no GPU is
 * named, those by tenant where no model and no GPU is; null where only the rows themselves will.
 */
export function sumsFor({ by, model, tenant, idle }: CostQuery): keyof RowTotals | null {
  if (by.includes('gpu') || idle === 'spread') return null
  if (!by.includes('tenant') && tenant === undefined) return 'model'
  return by.includes('model') || model !== undefined ? null : 'tenant'
}

type Reads = (fromMs: number, toMs: number) => PlannedRead[]

/** Whole spans of a length by `whole`, what is left at both edges by `edge`. */
function around(fromMs: number, toMs: number, lengthMs: number, whole: Reads, edge: Reads): PlannedRead[] {
  const firstMs = Math.ceil(fromMs / lengthMs) * lengthMs
  const lastMs = floorTo(lengthMs, toMs)
  if (firstMs >= lastMs) return edge(fromMs, toMs)
  return [...edge(fromMs, firstMs), ...whole(firstMs, lastMs), ...edge(lastMs, toMs)]
}

const minuteReads: Reads = (fromMs, toMs) => readsOf('minute', fromMs, toMs)
const hourReads: Reads = (fromMs, toMs) => readsOf('hour', fromMs, toMs)
const dayReads: Reads = (fromMs, toMs) => readsOf('day', fromMs, toMs)

function readsOf(level: PlannedRead['level'], fromMs: number, toMs: number): PlannedRead[] {
  return fromMs < toMs ? [{ level, fromMs, toMs }] : []
}

/** Length of a level's spans, milliseconds. */
export const LEVEL_MS = { minute: CELL_MS, hour: HOUR_MS, day: DAY_MS } as const
