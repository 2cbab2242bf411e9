// The JSON answer about cost, whole or streamed. The figures that come last (totals, final) are known only when all rows
// have been read, so that a streamed answer has its rows first and a whole one has the order of CONTRACT.md.

import { type CostFigures, figuresOf } from './cost-figures.ts'
import type { CostRow } from './cost-grouping.ts'
import type { CostQuery } from './cost-query.ts'

/** What is said about an answer beside its rows. */
export interface CostHead {
  from: string
  to: string
  step: CostQuery['step']
  by: readonly string[]
  idle: CostQuery['idle']
  /** The revision that was asked for, null for the ledger as it is. */
  revision: number | null
}

/** What is known at the end. */
export interface CostTail {
  /** Nothing of the range will change but by events that are later than allowed, or by a correction. */
  final: boolean
  /** Record time up to which every current partition has been read; null where it is not known. */
  watermark: string | null
  totals: CostFigures
  /** Parts of the range that cannot be answered, and why; there when there are some. */
  missing?: readonly { from: string; to: string; reason: string }[]
}

export type CostAnswer = CostHead & CostTail & { rows: CostFigures[] }

/** The head of a question's answer. */
export function headOf(query: CostQuery, revision: number | null): CostHead {
  const { fromMs, toMs, step, by, idle } = query
  return { from: new Date(fromMs).toISOString(), to: new Date(toMs).toISOString(), step, by, idle, revision }
}

/** An answer as text, piece by piece; `tail` is asked when the rows are through. */
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
