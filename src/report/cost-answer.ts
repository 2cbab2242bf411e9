// An answer about cost as a whole: what is known before its rows, the rows as figures, and what is known only after
// them (totals, whether it is final); and the JSON document that streams them in that order. Names are the published
// contract.

import { type CostFigures, figuresOf } from './cost-figures.ts'
import type { CostRow } from './cost-grouping.ts'
import type { CostQuery } from './cost-query.ts'

/** The fields of an answer that are known before its rows. */
export interface CostHead {
  from: string
  to: string
  step: CostQuery['step']
  by: readonly string[]
  idle: CostQuery['idle']
  /** The revision asked for, null for the ledger as it is. */
  revision: number | null
}

/** The fields that are known once all rows have been read. */
export interface CostTail {
  /** Nothing in the range will change except by events that are later than allowed, or by a correction. */
  final: boolean
  /** Record time up to which every current partition has been read; null where unknown. */
  watermark: string | null
  totals: CostFigures
  /** Parts of the range without figures, and why; absent when there are none. */
  missing?: readonly { from: string; to: string; reason: string }[]
  /** What costs money in the range and should not; absent when nothing is known. */
  notes?: readonly string[]
}

export type CostAnswer = CostHead & CostTail & { rows: CostFigures[] }

export function headOf(query: CostQuery, revision: number | null): CostHead {
  const { fromMs, toMs, step, by, idle } = query
  return { from: new Date(fromMs).toISOString(), to: new Date(toMs).toISOString(), step, by, idle, revision }
}

/** An answer as JSON, streamed: rows before the fields that are known only after them. */
export async function* streamedJson(
  head: CostHead,
  rows: AsyncIterable<CostRow>,
  tail: () => CostTail | Promise<CostTail>,
): AsyncGenerator<string> {
  yield `${JSON.stringify(head).slice(0, -1)},"rows":[`
  let isFirst = true
  for await (const row of rows) {
    yield `${isFirst ? '\n' : ',\n'}${JSON.stringify(figuresOf(row))}`
    isFirst = false
  }
  yield `\n],${JSON.stringify(await tail()).slice(1)}\n`
}
