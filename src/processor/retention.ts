// Retention of raw events by whole days of event time. (Being written; the interface stands.)

import type { LedgerStore } from '../store/ledger-store.ts'
import type { Logger } from './logger.ts'

export interface RetentionOptions {
  /** Days of event time that raw events are kept, RAW_RETENTION_DAYS; 0: keeps all, `run` returns at once. */
  days: number
  log: Logger
  now?: () => number
  /** How long a day is closing before it may freeze, milliseconds. */
  closingMs?: number
  /** How long a day must have been quiet (nothing computed for it) before it may close, milliseconds. */
  quietMs?: number
  /** Pause between passes, milliseconds. */
  intervalMs?: number
}

export class Retention {
  constructor(_ledger: LedgerStore, _options: RetentionOptions) {}

  /** Works until the signal aborts; never rejects. Several processors may do so at once. */
  async run(_signal: AbortSignal): Promise<void> {
    throw new Error('being written')
  }

  /** Moves each day by at most one state; what was moved. Rejects with a StoreError. */
  async pass(): Promise<{ closing: string[]; frozen: string[]; purged: string[] }> {
    throw new Error('being written')
  }
}
