// The samples around a minute, from one read of a longer range in order of time. A minute needs those within G before and
// after it; while the minutes go by in order, the window moves along, takes in what comes and forgets what is behind.
// So a read of any length holds the samples of about four minutes.

import { CELL_MS, MAX_SAMPLE_GAP_MS } from '../../domain/ledger/buckets.ts'
import type { LedgerSample } from '../../domain/ledger/types.ts'

export type HostSample = LedgerSample & { host: string | null }

export class SampleWindow {
  /** Samples that were read. */
  read = 0
  readonly #samples: AsyncIterator<HostSample>
  readonly #byHost = new Map<string | null, LedgerSample[]>()
  readonly #isWanted: (host: string | null) => boolean
  #next: HostSample | null = null
  #isDone = false

  /** `samples` by time, from G before the first minute; those of hosts that are not wanted are passed over. */
  constructor(samples: AsyncIterable<HostSample>, isWanted: (host: string | null) => boolean = () => true) {
    this.#samples = samples[Symbol.asyncIterator]()
    this.#isWanted = isWanted
  }

  /** Moves to the minute that starts at `startMs`, which is not before the one it was at. */
  async moveTo(startMs: number): Promise<void> {
    const fromMs = startMs - MAX_SAMPLE_GAP_MS
    const toMs = startMs + CELL_MS + MAX_SAMPLE_GAP_MS
    for (const [host, samples] of this.#byHost) {
      const kept = samples.filter((sample) => sample.ts.getTime() >= fromMs)
      if (kept.length === 0) this.#byHost.delete(host)
      else this.#byHost.set(host, kept)
    }
    while (!this.#isDone) {
      if (this.#next === null) {
        const { done, value } = await this.#samples.next()
        if (done === true) {
          this.#isDone = true
          return
        }
        this.read++
        this.#next = value as HostSample
      }
      const tsMs = this.#next.ts.getTime()
      if (tsMs >= toMs) return
      if (tsMs >= fromMs) this.#add(this.#next)
      this.#next = null
    }
  }

  /** Samples of a host around the minute; none where it has none. */
  of(host: string | null): readonly LedgerSample[] {
    return this.#byHost.get(host) ?? []
  }

  /** Hosts with samples around the minute. */
  get hosts(): Iterable<string | null> {
    return this.#byHost.keys()
  }

  /** Ends the read; to be called also when the range was not read to its end. */
  async close(): Promise<void> {
    this.#isDone = true
    await this.#samples.return?.()
  }

  #add(sample: HostSample): void {
    if (!this.#isWanted(sample.host)) return
    const samples = this.#byHost.get(sample.host)
    if (samples === undefined) this.#byHost.set(sample.host, [sample])
    else samples.push(sample)
  }
}
