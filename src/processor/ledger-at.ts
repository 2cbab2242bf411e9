// The ledger as it was before later revisions: `report --revision N`. (Being written; the interface stands.)

import type { LedgerStore, Span } from '../store/ledger-store.ts'

/** An old revision was asked of a day whose raw events are gone or frozen. */
export class FrozenDay extends Error {
  /** As 2026-01-31. */
  readonly days: readonly string[]

  constructor(days: readonly string[]) {
    super(`Old revisions cannot be reported for frozen days: ${days.join(', ')}`)
    this.name = 'FrozenDay'
    this.days = days
  }
}

/**
 * The cells of a range as they are with only the revisions up to `revision` (0: none), by (start, host), computed from
 * the raw events; empty cells are left out. Throws FrozenDay, or a RangeError for a revision that does not exist.
 */
export async function* ledgerAt(_options: {
  ledger: LedgerStore
  fromMs: number
  toMs: number
  revision: number
}): AsyncGenerator<Span, void, undefined> {
  throw new Error('being written')
}
