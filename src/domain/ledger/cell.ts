// What a minute of the GPUs of one host cost and who it was for: ONE pure function of the raw events around a cell and
// of a price book. Every cell of the ledger comes from here, whether it is computed the first time, again after late
// events, or by `verify`. The ledger closes: per slot and minute, busy + loaded idle + unallocated = price × (covered +
// assumed time), exactly, in integers of 10⁻⁹ USD that are rounded once per slot, minute and category, and then only
// split. Rules: docs/cost-model.md (with worked examples), docs/adr/0002-ledger-rules.md (gaps that were closed).

import type { PriceBook } from '../prices/price-book.ts'
import { CELL_MS } from './buckets.ts'
import { type CoveredInterval, firstPerInstant, SlotCoverage } from './coverage.ts'
import { minuteWithTokens } from './minute-with-tokens.ts'
import { minuteWithoutTokens } from './minute-without-tokens.ts'
import { compareRows, isNothing } from './rows.ts'
import { isUsage, keptName, keptNames, usageBySlot } from './token-totals.ts'
import type { Cell, CellRow, LedgerSample, TokenTotals } from './types.ts'

export interface CellInput {
  /** Start of the minute, epoch milliseconds. */
  startMs: number
  host: string | null
  /** Samples of the host with start − G ≤ ts < start + 60 s + G, in any order; further ones change nothing. */
  samples: readonly LedgerSample[]
  /** Token usage of the host with start ≤ ts < start + 60 s, grouped. */
  tokenTotals: readonly TokenTotals[]
  book: PriceBook
}

/**
 * The rows of one cell. Any order of samples and groups gives the same rows; nothing but the input counts. The input is
 * trusted: documents have passed the schemas, the book its check.
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
  const withoutTokens = coverages.filter((coverage) => !used.has(coverage.gpuIndex))
  const kept = keptNames(totals, loadedModelsOf(withoutTokens), limits)
  const usages = usageBySlot(totals, kept)
  const rows: CellRow[] = []
  for (const coverage of coverages) {
    const usage = usages.get(coverage.gpuIndex)
    if (usage !== undefined) rows.push(...minuteWithTokens(coverage, usage, book.weights))
    else {
      const covered = coverage.covered.map((interval) => withKeptModel(interval, kept.models))
      rows.push(...minuteWithoutTokens(coverage, covered))
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
  for (const { covered } of coverages) {
    for (const { modelLoaded } of covered) if (modelLoaded !== null) yield modelLoaded
  }
}

function withKeptModel(interval: CoveredInterval, models: ReadonlySet<string> | null): CoveredInterval {
  return models === null ? interval : { ...interval, modelLoaded: keptName(interval.modelLoaded, models) }
}
