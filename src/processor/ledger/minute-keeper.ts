// Computes a run of dirty minutes, in the order that makes it safe against any other keeper, processor and crash:
// read marks → read revs → read raw events → replace where the rev is unchanged → mark the hour → look at the price books
// again → delete exactly the marks that were read. Each step's place is argued in docs/adr/0003-keeper-protocol.md and
// held by test/processor/protocol/protocol-model.test.ts. Nothing is skipped when a cell comes out as it was: see there.

import { CELL_MS, floorTo, HOUR_MS } from '../../domain/ledger/buckets.ts'
import { rowTotalsOf } from '../../domain/ledger/rows.ts'
import type { Logger } from '../../runtime/logger.ts'
import type { LedgerBucket, LedgerStore, Mark } from '../../store/ledger-store.ts'
import { dayText, FrozenDays } from '../frozen-days.ts'
import type { PriceBookVersions } from '../prices/price-book-versions.ts'
import type { KeeperCounters } from './keeper-counters.ts'
import { GroupedCellInputs, type RunLength } from './raw-run.ts'

/** Rows that are held before they are written. */
const MAX_ROWS_PER_WRITE = 5000

export interface KeeperDependencies {
  ledger: LedgerStore
  books: PriceBookVersions
  counters: KeeperCounters
  log: Logger
  now: () => number
}

interface Plan {
  startMs: number
  marks: Mark[]
  hosts: Set<string | null>
  revs: Map<string | null, number>
}

interface Computed {
  plan: Plan
  spans: LedgerBucket[]
}

export class MinuteKeeper {
  readonly #parts: KeeperDependencies
  readonly #length: RunLength

  constructor(parts: KeeperDependencies, length: RunLength) {
    this.#parts = parts
    this.#length = length
  }

  /** Computes these minutes, ascending; answers how many still had marks. Rejects with a StoreError. */
  async compute(starts: readonly number[]): Promise<number> {
    const plans = await this.#plan(starts)
    const first = plans[0]
    if (first === undefined) return 0
    const range = { fromMs: first.startMs, toMs: plans.at(-1)!.startMs + CELL_MS }
    const hosts = new Set(plans.flatMap((plan) => [...plan.hosts]))
    const run = await GroupedCellInputs.open(this.#parts.ledger, range, hosts)
    try {
      this.#length.learn(range.toMs - range.fromMs, run.groups)
      let batch: Computed[] = []
      let rows = 0
      for (const plan of plans) {
        await run.moveTo(plan.startMs)
        const spans = this.#cells(run, plan)
        batch.push({ plan, spans })
        rows += spans.reduce((sum, span) => sum + span.rows.length, 0)
        if (rows < MAX_ROWS_PER_WRITE) continue
        await this.#finish(batch)
        batch = []
        rows = 0
      }
      await this.#finish(batch)
    } finally {
      await run.close()
    }
    return plans.length
  }

  /** Marks first, then revs; raw events come after both. Marks of frozen days are dropped. */
  async #plan(starts: readonly number[]): Promise<Plan[]> {
    const { ledger } = this.#parts
    const plans: Plan[] = []
    for (const startMs of starts) {
      const marks = await ledger.readMarks('minute', startMs)
      // Another keeper was here.
      if (marks.length === 0) continue
      plans.push({ startMs, marks, hosts: new Set(marks.flatMap((mark) => mark.hosts)), revs: new Map() })
    }
    const open = plans.length === 0 ? [] : await dropFrozen(this.#parts, plans)
    for (const plan of open) plan.revs = await ledger.readRevs('minute', plan.startMs, [...plan.hosts])
    return open
  }

  #cells(run: GroupedCellInputs, { startMs, hosts, revs }: Plan): LedgerBucket[] {
    const { books, counters, now } = this.#parts
    const book = books.bookFor(startMs)
    const computedMs = now()
    counters.cellsComputed += hosts.size
    return [...hosts].map((host) => {
      const { bookVersion, rows, capped } = run.cell(host, book)
      counters.namesCapped += capped
      return {
        level: 'minute',
        startMs,
        host,
        rev: revs.get(host) ?? 0,
        bookVersions: [bookVersion],
        rows,
        totals: rowTotalsOf(rows),
        capped,
        computedMs,
      }
    })
  }

  async #finish(batch: readonly Computed[]): Promise<void> {
    if (batch.length === 0) return
    const { ledger, books, counters, now } = this.#parts
    const spans = batch.flatMap((one) => one.spans)
    const replaced = await ledger.replaceBuckets(spans)
    const won = spans.filter((_, i) => replaced[i])
    counters.cellsReplaced += won.length
    counters.racesLost += spans.length - won.length
    if (won.length > 0) await ledger.insertMarks('hour', hoursOf(won), now())
    // A revision that was made meanwhile marked the cells that it saw. One that was only just written it may not have seen.
    await books.refresh()
    const wonHosts = Map.groupBy(won, (span) => span.startMs)
    const done: string[] = []
    for (const { plan } of batch) {
      const version = books.versionFor(plan.startMs)
      const right = (wonHosts.get(plan.startMs) ?? []).filter((span) => span.bookVersions[0] === version)
      const hosts = new Set(right.map((span) => span.host))
      for (const mark of plan.marks) if (mark.hosts.every((host) => hosts.has(host))) done.push(mark.id)
    }
    await ledger.deleteMarks(done)
    counters.marksDeleted += done.length
  }
}

function hoursOf(cells: readonly LedgerBucket[]): { startMs: number; hosts: (string | null)[] }[] {
  const hours = new Map<number, Set<string | null>>()
  for (const { startMs, host } of cells) {
    const hourMs = floorTo(HOUR_MS, startMs)
    hours.set(hourMs, (hours.get(hourMs) ?? new Set()).add(host))
  }
  return [...hours].map(([startMs, hosts]) => ({ startMs, hosts: [...hosts] }))
}

/** Deletes the marks of spans in frozen days, counted and said; answers the other spans. */
export async function dropFrozen<T extends { startMs: number; marks: readonly Mark[] }>(
  { ledger, counters, log }: KeeperDependencies,
  spans: readonly T[],
): Promise<T[]> {
  const days = await FrozenDays.read(ledger)
  const frozen = spans.filter(({ startMs }) => days.has(startMs))
  if (frozen.length === 0) return [...spans]
  const ids = frozen.flatMap(({ marks }) => marks.map(({ id }) => id))
  await ledger.deleteMarks(ids)
  counters.marksDropped += ids.length
  const names = [...new Set(frozen.map(({ startMs }) => dayText(startMs)))]
  log.warn({ days: names, marks: ids.length }, 'Dropped marks of frozen days: their ledger stays as it is')
  return spans.filter(({ startMs }) => !days.has(startMs))
}
