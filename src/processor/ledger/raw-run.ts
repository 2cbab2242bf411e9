// The raw events of a run of minutes, as the store groups them: one grouped read of token usage and one streamed read of
// samples for the whole run, handed out minute by minute in order. The keeper computes cells from this; long ranges are
// computed from single documents (raw-minutes.ts).

import { CELL_MS, MAX_SAMPLE_GAP_MS } from '../../domain/ledger/buckets.ts'
import { computeCell } from '../../domain/ledger/cell.ts'
import type { Cell, TokenTotals } from '../../domain/ledger/types.ts'
import type { PriceBook } from '../../domain/prices/price-book.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'
import { SampleWindow } from './sample-window.ts'

type HostTotals = Map<string | null, TokenTotals[]>

export class GroupedCellInputs {
  /** Groups of token usage in the run: what its memory hangs on. */
  readonly groups: number
  readonly #window: SampleWindow
  readonly #totals: Map<number, HostTotals>
  #startMs = Number.NaN

  private constructor(window: SampleWindow, totals: Map<number, HostTotals>, groups: number) {
    this.#window = window
    this.#totals = totals
    this.groups = groups
  }

  /** Opens a run of whole minutes, of these hosts; `close` it. Rejects with a StoreError. */
  static async open(
    ledger: LedgerStore,
    range: { fromMs: number; toMs: number },
    hosts: ReadonlySet<string | null>,
  ): Promise<GroupedCellInputs> {
    const { fromMs, toMs } = range
    const groups = await ledger.tokenTotals(fromMs, toMs, [...hosts])
    const totals = new Map<number, HostTotals>()
    for (const group of groups) {
      const ofMinute = totals.get(group.startMs) ?? new Map<string | null, TokenTotals[]>()
      totals.set(group.startMs, ofMinute)
      const ofHost = ofMinute.get(group.host)
      if (ofHost === undefined) ofMinute.set(group.host, [group])
      else ofHost.push(group)
    }
    const samples = ledger.readLedgerSamples(fromMs - MAX_SAMPLE_GAP_MS, toMs + MAX_SAMPLE_GAP_MS)
    return new GroupedCellInputs(new SampleWindow(samples, (host) => hosts.has(host)), totals, groups.length)
  }

  /** Goes on to a minute, which is not before the one it was at. */
  async moveTo(startMs: number): Promise<void> {
    // What is behind is not asked again.
    for (const minute of this.#totals.keys()) if (minute < startMs) this.#totals.delete(minute)
    await this.#window.moveTo(startMs)
    this.#startMs = startMs
  }

  /** The cell of the minute and a host. */
  cell(host: string | null, book: PriceBook): Cell {
    return computeCell({
      startMs: this.#startMs,
      host,
      samples: this.#window.of(host),
      tokenTotals: this.#totals.get(this.#startMs)?.get(host) ?? [],
      book,
    })
  }

  close(): Promise<void> {
    return this.#window.close()
  }
}

/** Groups of token usage that a run should hold at most: some 50 MB. */
const GROUPS_PER_RUN = 50_000
const FIRST_RUN_MINUTES = 5
/** The longest run: the minutes of an hour. */
const MAX_RUN_MINUTES = 60

/** How many minutes the next run may have, learned from the runs before: the keeper's memory bound. */
export class RunLength {
  #minutes = FIRST_RUN_MINUTES

  get ms(): number {
    return this.#minutes * CELL_MS
  }

  /** Tells of a run: its length and the groups that came. */
  learn(ms: number, groups: number): void {
    const perMinute = groups / (ms / CELL_MS)
    const fitting = perMinute === 0 ? MAX_RUN_MINUTES : Math.floor(GROUPS_PER_RUN / perMinute)
    // It may shrink at once, and grow to twice as much.
    this.#minutes = Math.max(1, Math.min(MAX_RUN_MINUTES, this.#minutes * 2, fitting))
  }
}
