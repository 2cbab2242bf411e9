// Computes a run of dirty minutes, in the order that makes it safe against any other keeper, processor and crash: read
// marks → read revs → read raw events → replace where the rev is unchanged → mark the hour → read the price books again
// → delete exactly the marks that were read. Each step's place is argued in docs/adr/0003-keeper-protocol.md and held
// by test/processor/protocol/protocol-model.test.ts. Nothing is skipped when a cell comes out unchanged: see there.

import { CELL_MS, floorTo, HOUR_MS } from '../../domain/ledger/buckets.ts'
import { rowTotalsOf } from '../../domain/ledger/rows.ts'
import type { PriceBook } from '../../domain/prices/price-book.ts'
import type { Logger } from '../../runtime/logger.ts'
import type { LedgerBucket, LedgerStore, Mark } from '../../store/ledger-store.ts'
import { ClosedDays, dayText } from '../closed-days.ts'
import type { PriceBookVersions } from '../prices/price-book-versions.ts'
import { type CellInputs, type GroupedTokens, groupedInputs } from './cell-inputs.ts'
import type { RunLength } from './schedule.ts'

/** Rows that are held before they are written. */
const MAX_ROWS_PER_WRITE = 5000

export interface KeeperDependencies {
  ledger: LedgerStore
  books: PriceBookVersions
  counters: KeeperCounters
  log: Logger
  now: () => number
}

/** What a keeper has done since it started, for /metrics. */
export class KeeperCounters {
  cellsComputed = 0
  cellsReplaced = 0
  /** Hours and days that were computed. */
  rollupsComputed = 0
  /** Buckets that another keeper replaced first; their marks stay, so they are computed again. */
  racesLost = 0
  marksDeleted = 0
  /** Marks of frozen days, which are never computed again. */
  marksDropped = 0
  /** Runs and buckets that could not be computed, and were put off. */
  failures = 0
  /** Names that were folded into `other` by the book's limits, over all computed cells. */
  namesOverflowed = 0
}

interface Plan {
  startMs: number
  marks: Mark[]
  /** Which inputs are read hangs on it, so it stays, whatever is set meanwhile. */
  book: PriceBook
  hosts: Set<string | null>
  revs: Map<string | null, number>
}

interface ComputedMinute {
  plan: Plan
  cells: LedgerBucket[]
}

export class MinuteKeeper {
  readonly #deps: KeeperDependencies
  readonly #length: RunLength

  constructor(deps: KeeperDependencies, length: RunLength) {
    this.#deps = deps
    this.#length = length
  }

  /** Computes these minutes, ascending; returns how many still had marks. Rejects with a StoreError. */
  async compute(starts: readonly number[]): Promise<number> {
    const plans = await this.#plan(starts)
    const first = plans[0]
    if (first === undefined) return 0
    const range = { fromMs: first.startMs, toMs: plans.at(-1)!.startMs + CELL_MS }
    const names = new Set(plans.flatMap(({ book, hosts }) => [...hosts].flatMap((host) => book.hosts.namesOf(host))))
    const inputs = await groupedInputs(this.#deps.ledger, range, names)
    try {
      this.#length.learn(range.toMs - range.fromMs, inputs.tokens.count)
      let batch: ComputedMinute[] = []
      let rows = 0
      for (const plan of plans) {
        await inputs.moveTo(plan.startMs)
        const cells = this.#cells(inputs, plan)
        batch.push({ plan, cells })
        rows += cells.reduce((sum, cell) => sum + cell.rows.length, 0)
        if (rows < MAX_ROWS_PER_WRITE) continue
        await this.#finish(batch)
        batch = []
        rows = 0
      }
      await this.#finish(batch)
    } finally {
      await inputs.close()
    }
    return plans.length
  }

  /** Marks first, then revs; raw events come after both. Marks of frozen days are dropped. */
  async #plan(starts: readonly number[]): Promise<Plan[]> {
    const { ledger } = this.#deps
    const plans: Plan[] = []
    for (const startMs of starts) {
      const marks = await ledger.readMarks('minute', startMs)
      if (marks.length === 0) continue // Another keeper was here.
      const book = this.#deps.books.bookFor(startMs)
      const hosts = new Set(marks.flatMap((mark) => mark.hosts.flatMap((host) => book.hosts.cellsOf(host))))
      plans.push({ startMs, marks, book, hosts, revs: new Map() })
    }
    const open = plans.length === 0 ? [] : await dropFrozen(this.#deps, plans)
    for (const plan of open) plan.revs = await ledger.readRevs('minute', plan.startMs, [...plan.hosts])
    return open
  }

  #cells(inputs: CellInputs<GroupedTokens>, { startMs, book, hosts, revs }: Plan): LedgerBucket[] {
    const { counters, now } = this.#deps
    counters.cellsComputed += hosts.size
    return [...hosts].map((host) => {
      const { bookVersion, rows, overflow } = inputs.cell(host, book)
      counters.namesOverflowed += overflow
      const computed = { bookVersions: [bookVersion], rows, totals: rowTotalsOf(rows), capped: overflow }
      return { level: 'minute', startMs, host, rev: revs.get(host) ?? 0, ...computed, computedMs: now() }
    })
  }

  async #finish(batch: readonly ComputedMinute[]): Promise<void> {
    if (batch.length === 0) return
    const { ledger, books, counters, now } = this.#deps
    const cells = batch.flatMap((minute) => minute.cells)
    const replaced = await ledger.replaceBuckets(cells)
    const won = cells.filter((_, i) => replaced[i])
    counters.cellsReplaced += won.length
    counters.racesLost += cells.length - won.length
    if (won.length > 0) await ledger.insertMarks('hour', hoursOf(won), now())
    // A revision that was made meanwhile marked the cells that it saw. One that was only just written it may not have
    // seen.
    await books.refresh()
    const wonCells = Map.groupBy(won, (cell) => cell.startMs)
    const done: string[] = []
    for (const { plan } of batch) {
      if (books.versionFor(plan.startMs) !== plan.book.version) continue
      const cells = new Set(wonCells.get(plan.startMs)?.map((cell) => cell.host))
      const isDone = (host: string | null) => plan.book.hosts.cellsOf(host).every((name) => cells.has(name))
      for (const mark of plan.marks) if (mark.hosts.every(isDone)) done.push(mark.id)
    }
    await ledger.deleteMarks(done)
    counters.marksDeleted += done.length
  }
}

function hoursOf(cells: readonly LedgerBucket[]): { startMs: number; hosts: (string | null)[] }[] {
  const hours = Map.groupBy(cells, ({ startMs }) => floorTo(HOUR_MS, startMs))
  return [...hours].map(([startMs, all]) => ({ startMs, hosts: [...new Set(all.map(({ host }) => host))] }))
}

/** Deletes the marks of buckets in frozen days, counted and logged; returns the other buckets. */
export async function dropFrozen<T extends { startMs: number; marks: readonly Mark[] }>(
  { ledger, counters, log }: KeeperDependencies,
  buckets: readonly T[],
): Promise<T[]> {
  const days = await ClosedDays.read(ledger)
  const frozen = buckets.filter(({ startMs }) => days.isFrozen(startMs))
  if (frozen.length === 0) return [...buckets]
  const ids = frozen.flatMap(({ marks }) => marks.map(({ id }) => id))
  await ledger.deleteMarks(ids)
  counters.marksDropped += ids.length
  const names = [...new Set(frozen.map(({ startMs }) => dayText(startMs)))]
  log.warn({ days: names, marks: ids.length }, 'Dropped marks of frozen days: their ledger stays as it is')
  return buckets.filter(({ startMs }) => !days.isFrozen(startMs))
}
