// What a minute of GPUs on one host cost and who it was for: ONE pure function of the raw events around a cell and of a
// price book. Every cell of the ledger comes from here, whether it is computed the first time, again after late events,
// or by `verify`. The ledger closes: per slot and minute, busy + loaded idle + unallocated = price × (covered + assumed
// time), exactly, in integers of 10⁻⁹ USD that are rounded once per slot, minute and category, and then only split.
// Rules: DESIGN.md section 4, docs/cost-model.md (worked examples), docs/adr/0002-ledger-rules.md (gaps that were closed).

import type { PriceBook } from '../prices/price-book.ts'
import { CELL_MS } from './buckets.ts'
import { type CoveredInterval, firstPerInstant, SlotCoverage } from './coverage.ts'
import { usageRows } from './minute-with-tokens.ts'
import { idleRows, uncoveredRows } from './minute-without-tokens.ts'
import { compareRows, isNothing } from './rows.ts'
import { isUsage, keptName, keptNames, usageBySlot } from './token-totals.ts'
import type { Cell, CellRow, LedgerSample, TokenTotals } from './types.ts'

export interface CellInput {
  /** Start of the minute, epoch milliseconds. */
  startMs: number
  host: string | null
  /**
   * Samples of the host with start − G ≤ ts < start + 60 s + G, in any order; more of them change nothing.
   */
  samples: readonly LedgerSample[]
  /** Token usage of the host with start ≤ ts < start + 60 s, grouped. */
  tokenTotals: readonly TokenTotals[]
  book: PriceBook
}

/**
 * The rows of one cell. Any order of samples and groups gives the same rows; nothing else than the input counts.
 * Trusts its input: documents have passed the schemas, the book its check.
 */
export function computeCell(input: CellInput): Cell {
  const { startMs, host, book } = input
  const totals = input.tokenTotals.filter(isUsage)
  const samplesByIndex = Map.groupBy(input.samples, (sample) => sample.gpu_index)
  const indexes = new Set([
    ...samplesByIndex.keys(),
    ...totals.flatMap((group) => group.gpus),
    ...book.committedIndexes(host, startMs, startMs + CELL_MS),
  ])
  const coverages = [...indexes].map((gpuIndex) => {
    const samples = firstPerInstant(samplesByIndex.get(gpuIndex) ?? [])
    return new SlotCoverage({ host, gpuIndex }, startMs, { samples, book })
  })
  const limits = { models: book.maxModelsPerCell, tenants: book.maxTenantsPerCell }
  const used = new Set(totals.flatMap((group) => group.gpus))
  const untold = coverages.filter((coverage) => !used.has(coverage.gpuIndex))
  const kept = keptNames(totals, loadedModelsOf(untold), limits)
  const usages = usageBySlot(totals, kept)
  const rows: CellRow[] = []
  for (const coverage of coverages) {
    const usage = usages.get(coverage.gpuIndex)
    if (usage !== undefined) rows.push(...usageRows(coverage, usage, book.weights))
    else {
      const covered = coverage.covered.map((span) => withKeptModel(span, kept.models))
      rows.push(...uncoveredRows(coverage, idleRows(coverage, covered)))
    }
  }
  return {
    startMs,
    host,
    bookVersion: book.version,
    rows: rows.filter((row) => !isNothing(row)).sort(compareRows),
    overflow: kept.overflow,
  }
}

function* loadedModelsOf(coverages: readonly SlotCoverage[]): Iterable<string> {
  for (const { covered } of coverages) for (const span of covered) if (span.modelLoaded !== null) yield span.modelLoaded
}

function withKeptModel(span: CoveredInterval, models: ReadonlySet<string> | null): CoveredInterval {
  return models === null ? span : { ...span, modelLoaded: keptName(span.modelLoaded, models) }
}
