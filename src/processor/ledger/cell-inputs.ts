// What the cells of a range are computed from, minute by minute in order of time: the samples around the minute and the
// token usage in it. Samples are always streamed. Token usage comes from one of two sources, which cost differently
// (docs/adr/0003-keeper-protocol.md): the keeper lets the store group the few minutes that are due, which is less to
// send than their events; long ranges (`verify`, `reprice`, "what if", old revisions) are read as single documents, so
// that the store reads on while this process groups and computes.

import { CELL_MS, MAX_SAMPLE_GAP_MS } from '../../domain/ledger/buckets.ts'
import { computeCell } from '../../domain/ledger/cell.ts'
import type { Cell, LedgerSample, TokenTotals } from '../../domain/ledger/types.ts'
import type { PriceBook } from '../../domain/prices/price-book.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'
import { OrderedStream } from './ordered-stream.ts'
import { MinuteTokenAggregator } from './token-aggregator.ts'

/** Whole minutes, epoch milliseconds, `toMs` exclusive. */
export interface MinuteRange {
  fromMs: number
  toMs: number
}

/** Token usage of one minute at a time. */
export interface MinuteTokens {
  /** Moves on to the minute that starts at `startMs`, which is after the current one. */
  moveTo(startMs: number): Promise<void>
  /** Hosts with token usage in the minute. */
  readonly hosts: Iterable<string | null>
  totals(host: string | null): readonly TokenTotals[]
  close(): Promise<void>
}

export class CellInputs<Tokens extends MinuteTokens> {
  readonly tokens: Tokens
  readonly samples: SampleWindow
  #startMs = Number.NaN

  constructor(tokens: Tokens, samples: SampleWindow) {
    this.tokens = tokens
    this.samples = samples
  }

  /** Moves on to a minute, which is after the current one. */
  async moveTo(startMs: number): Promise<void> {
    await this.tokens.moveTo(startMs)
    await this.samples.moveTo(startMs)
    this.#startMs = startMs
  }

  /** Hosts with token usage in the minute or samples around it. */
  get hosts(): Set<string | null> {
    return new Set([...this.tokens.hosts, ...this.samples.hosts])
  }

  /** The cell of the minute and a host: of the events under all names that the book joins under it. */
  cell(host: string | null, book: PriceBook): Cell {
    const names = book.hosts.namesOf(host)
    const samples = names.length === 1 ? this.samples.of(names[0]!) : names.flatMap((name) => this.samples.of(name))
    const tokenTotals = names.flatMap((name) => this.tokens.totals(name))
    return computeCell({ startMs: this.#startMs, host, samples, tokenTotals, book })
  }

  /** Ends the reads; to be called also when the range was not read to its end. */
  async close(): Promise<void> {
    await Promise.all([this.tokens.close(), this.samples.close()])
  }
}

/** Inputs of the cells of these hosts as the store groups them; to be closed. Rejects with a StoreError. */
export async function groupedInputs(
  ledger: LedgerStore,
  range: MinuteRange,
  hosts: ReadonlySet<string | null>,
): Promise<CellInputs<GroupedTokens>> {
  const groups = await ledger.tokenTotals(range.fromMs, range.toMs, [...hosts])
  return new CellInputs(
    new GroupedTokens(groups),
    samplesOf(ledger, range, (host) => hosts.has(host)),
  )
}

/** Inputs of all cells from single documents; to be closed. */
export function documentInputs(ledger: LedgerStore, range: MinuteRange): CellInputs<MinuteTokenAggregator> {
  return new CellInputs(new MinuteTokenAggregator(ledger, range), samplesOf(ledger, range))
}

function samplesOf(
  ledger: LedgerStore,
  { fromMs, toMs }: MinuteRange,
  isWanted?: (host: string | null) => boolean,
): SampleWindow {
  return new SampleWindow(ledger.readLedgerSamples(fromMs - MAX_SAMPLE_GAP_MS, toMs + MAX_SAMPLE_GAP_MS), isWanted)
}

/** Token usage that the store grouped: all groups of the range, held until their minute has passed. */
export class GroupedTokens implements MinuteTokens {
  /** Groups in the range, which determine its memory. */
  readonly count: number
  readonly #minutes: Map<number, Map<string | null, TokenTotals[]>>
  #minute: ReadonlyMap<string | null, TokenTotals[]> = new Map()

  constructor(groups: readonly (TokenTotals & { startMs: number; host: string | null })[]) {
    this.count = groups.length
    const minutes = Map.groupBy(groups, ({ startMs }) => startMs)
    this.#minutes = new Map([...minutes].map(([startMs, all]) => [startMs, Map.groupBy(all, ({ host }) => host)]))
  }

  async moveTo(startMs: number): Promise<void> {
    this.#minute = this.#minutes.get(startMs) ?? new Map()
    for (const minuteMs of this.#minutes.keys()) if (minuteMs < startMs) this.#minutes.delete(minuteMs)
  }

  get hosts(): Iterable<string | null> {
    return this.#minute.keys()
  }

  totals(host: string | null): readonly TokenTotals[] {
    return this.#minute.get(host) ?? []
  }

  async close(): Promise<void> {}
}

/**
 * The samples around a minute, those within G before and after it, from one read of a longer range. While the minutes
 * go by the window moves along, takes in what comes and forgets what is behind, so a read of any length holds the
 * samples of about four minutes.
 */
class SampleWindow {
  readonly #samples: OrderedStream<LedgerSample & { host: string | null }>
  readonly #byHost = new Map<string | null, LedgerSample[]>()
  readonly #isWanted: (host: string | null) => boolean

  /** `samples` by time, from G before the first minute; those of hosts that are not wanted are skipped. */
  constructor(
    samples: AsyncIterable<LedgerSample & { host: string | null }>,
    isWanted: (host: string | null) => boolean = () => true,
  ) {
    this.#samples = new OrderedStream(samples, ({ ts }) => ts.getTime())
    this.#isWanted = isWanted
  }

  /** Samples that were read. */
  get count(): number {
    return this.#samples.count
  }

  /** Moves on to a minute, which is after the current one. */
  async moveTo(startMs: number): Promise<void> {
    const fromMs = startMs - MAX_SAMPLE_GAP_MS
    for (const [host, samples] of this.#byHost) {
      const kept = samples.filter((sample) => sample.ts.getTime() >= fromMs)
      if (kept.length === 0) this.#byHost.delete(host)
      else this.#byHost.set(host, kept)
    }
    await this.#samples.take(fromMs, startMs + CELL_MS + MAX_SAMPLE_GAP_MS, (sample) => {
      if (!this.#isWanted(sample.host)) return
      const samples = this.#byHost.get(sample.host)
      if (samples === undefined) this.#byHost.set(sample.host, [sample])
      else samples.push(sample)
    })
  }

  /** Hosts with samples around the minute. */
  get hosts(): Iterable<string | null> {
    return this.#byHost.keys()
  }

  /** Samples of a host around the minute. */
  of(host: string | null): readonly LedgerSample[] {
    return this.#byHost.get(host) ?? []
  }

  close(): Promise<void> {
    return this.#samples.close()
  }
}
