// The keeper of this process, for Prometheus: how far behind the ledger is, and counters of its work.

import { Counter, Gauge, type Registry } from 'prom-client'
import type { KeeperStatus } from '../../processor/ledger/keeper.ts'

const WORK = {
  cells_computed: 'cellsComputed',
  cells_replaced: 'cellsReplaced',
  sums_computed: 'sumsComputed',
  races_lost: 'racesLost',
  marks_deleted: 'marksDeleted',
  marks_dropped: 'marksDropped',
  failures: 'failures',
  names_capped: 'namesCapped',
} as const satisfies Record<string, keyof KeeperStatus>

export class KeeperGauges {
  readonly #status: () => KeeperStatus
  readonly #backlog: Gauge<'level'>
  readonly #oldest: Gauge
  readonly #work: Counter<'what'>

  constructor(status: () => KeeperStatus, registry: Registry) {
    this.#status = status
    const registers = [registry]
    const backlogHelp = 'Span starts of the ledger that wait to be computed'
    this.#backlog = new Gauge({
      name: 'pertoken_ledger_backlog_spans',
      help: backlogHelp,
      labelNames: ['level'],
      registers,
    })
    const oldestHelp = 'Age of the oldest mark of the ledger; 0 without one'
    this.#oldest = new Gauge({ name: 'pertoken_ledger_oldest_mark_seconds', help: oldestHelp, registers })
    const workHelp = 'What the keeper of this process has done since it started'
    this.#work = new Counter({ name: 'pertoken_ledger_work_total', help: workHelp, labelNames: ['what'], registers })
  }

  /** Sets all figures to the current status. */
  set(): void {
    const status = this.#status()
    for (const [level, spans] of Object.entries(status.backlog)) this.#backlog.set({ level }, spans)
    this.#oldest.set((status.oldestDirtyAgeMs ?? 0) / 1000)
    this.#work.reset()
    for (const [what, field] of Object.entries(WORK)) this.#work.inc({ what }, status[field])
  }
}
