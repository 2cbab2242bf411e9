// The raw events of a range, minute by minute, from single documents: what computes cells of long ranges reads through this
// (`verify`, `reprice`, "what if", old revisions). The keeper does not: the few minutes that are due are grouped by the
// store (raw-run.ts), which costs less than to send their events, while over a long range the two work side by side.

import { CELL_MS, MAX_SAMPLE_GAP_MS } from '../../domain/ledger/buckets.ts'
import { computeCell } from '../../domain/ledger/cell.ts'
import type { Cell, LedgerSample, TokenTotals } from '../../domain/ledger/types.ts'
import type { PriceBook } from '../../domain/prices/price-book.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'
import { SampleWindow } from './sample-window.ts'
import { MinuteTokenAggregator, type PlainCounts } from './token-aggregator.ts'

/** One minute's raw events; memory holds the samples of four minutes and the groups of one. */
export class EventCellInputs {
  readonly #usage: MinuteTokenAggregator
  readonly #samples: SampleWindow
  #startMs = Number.NaN

  /** Of a range of whole minutes; `close` it. */
  constructor(ledger: LedgerStore, { fromMs, toMs }: { fromMs: number; toMs: number }) {
    this.#usage = new MinuteTokenAggregator(ledger.readLedgerTokens(fromMs, toMs))
    this.#samples = new SampleWindow(ledger.readLedgerSamples(fromMs - MAX_SAMPLE_GAP_MS, toMs + MAX_SAMPLE_GAP_MS))
  }

  /** Goes on to a minute, which is after the one it was at. */
  async moveTo(startMs: number): Promise<void> {
    await this.#usage.moveTo(startMs)
    await this.#samples.moveTo(startMs)
    this.#startMs = startMs
  }

  /** Hosts with events in the minute or samples around it. */
  get hosts(): Set<string | null> {
    return new Set([...this.#usage.hosts, ...this.#samples.hosts])
  }

  /** Documents that were read. */
  get read(): number {
    return this.#usage.read + this.#samples.read
  }

  /** What the cell of the minute and a host is computed from. */
  events(host: string | null): { samples: readonly LedgerSample[]; tokenTotals: readonly TokenTotals[] } {
    return { samples: this.#samples.of(host), tokenTotals: this.#usage.totals(host) }
  }

  /** Counts of a host's token usage in the minute. */
  counts(host: string | null): PlainCounts {
    return this.#usage.counts(host)
  }

  /** The cell of the minute and a host. */
  cell(host: string | null, book: PriceBook): Cell {
    return computeCell({ startMs: this.#startMs, host, ...this.events(host), book })
  }

  async close(): Promise<void> {
    await Promise.all([this.#usage.close(), this.#samples.close()])
  }
}

/** The minutes of a range in order, each good until the next is asked for. Opens and closes what it reads from. */
export async function* eventCellInputs(
  ledger: LedgerStore,
  range: { fromMs: number; toMs: number },
): AsyncGenerator<{ startMs: number; minute: EventCellInputs }, void, undefined> {
  const minute = new EventCellInputs(ledger, range)
  try {
    for (let startMs = range.fromMs; startMs < range.toMs; startMs += CELL_MS) {
      await minute.moveTo(startMs)
      yield { startMs, minute }
    }
  } finally {
    await minute.close()
  }
}
