// Keeps a ledger with a clock that is turned forward, as after a processor was down: passes until nothing is marked.
// A measurement must not wait for minutes to settle, so the clock jumps when a pass finds all that is left not due.

import { DAY_MS, HOUR_MS } from '../../../src/domain/ledger/buckets.ts'
import { Keeper } from '../../../src/processor/ledger/keeper.ts'
import { ensureDefault, PriceBookVersions } from '../../../src/processor/prices/price-book-versions.ts'
import type { EventStore } from '../../../src/store/event-store.ts'
import { quiet } from './feed.ts'
import { USD_PER_HOUR } from './fleet.ts'

export class TurnedClock {
  #aheadMs: number

  constructor(nowMs: number) {
    this.#aheadMs = nowMs - Date.now()
  }

  readonly now = (): number => Date.now() + this.#aheadMs

  turn(ms: number): void {
    this.#aheadMs += ms
  }
}

/** Makes a store ready for a ledger whose events end at `endMs`. */
export async function prepareLedger(store: EventStore, endMs: number): Promise<void> {
  await store.prepare()
  await ensureDefault(store.ledger, USD_PER_HOUR, endMs - 365 * DAY_MS)
}

/** Computes all that is marked; returns in seconds how long it took until the last minute was there, and all of it. */
export async function keepAll(
  store: EventStore,
  clock: TurnedClock,
): Promise<{ cells: number; minutesSeconds: number; seconds: number }> {
  const options = { log: quiet, now: clock.now, jitterMs: 0, random: () => 0 }
  const keeper = new Keeper(store.ledger, new PriceBookVersions(store.ledger), options)
  const startedMs = performance.now()
  let minutesSeconds = 0
  for (;;) {
    const { minutes, left, waiting } = await keeper.pass()
    const { failures, cellsComputed } = keeper.counters
    const seconds = (performance.now() - startedMs) / 1000
    if (failures > 0) throw new Error('The keeper could not compute a part of the ledger')
    if (minutes > 0) minutesSeconds = seconds
    else if (left === 0 && waiting === 0) return { cells: cellsComputed, minutesSeconds, seconds }
    else if (left === 0) clock.turn(HOUR_MS)
  }
}
