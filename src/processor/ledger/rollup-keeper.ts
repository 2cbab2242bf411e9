// Computes hours as sums of their minutes, and days as sums of their hours, by the same protocol as the minutes: read
// marks → read revs → read the parts → replace where the rev is unchanged → mark the day → delete the marks that were
// read. Sums of integers: whoever adds them up, and in whatever order, comes to the same rows.

import { DAY_MS, floorTo, LEVELS, type RollupLevel } from '../../domain/ledger/buckets.ts'
import { RowTotal, rowTotalsOf } from '../../domain/ledger/rows.ts'
import type { LedgerBucket } from '../../store/ledger-store.ts'
import { dropFrozen, type KeeperDependencies } from './minute-keeper.ts'

export class RollupKeeper {
  readonly #parts: KeeperDependencies

  constructor(parts: KeeperDependencies) {
    this.#parts = parts
  }

  /** Computes one hour or day; whether it still had marks. Rejects with a StoreError. */
  async compute(level: RollupLevel, startMs: number): Promise<boolean> {
    const { ledger, counters, now } = this.#parts
    const marks = await ledger.readMarks(level, startMs)
    if (marks.length === 0) return false
    if ((await dropFrozen(this.#parts, [{ startMs, marks }])).length === 0) return false
    const hosts = [...new Set(marks.flatMap((mark) => mark.hosts))]
    const revs = await ledger.readRevs(level, startMs, hosts)
    const sums = new Map(hosts.map((host) => [host, new RollupBuilder()]))
    const { sumOf, lengthMs } = LEVELS[level]
    for await (const part of ledger.readBuckets(sumOf, startMs, startMs + lengthMs, hosts))
      sums.get(part.host)?.add(part)
    const computedMs = now()
    const spans = [...sums].map(([host, sum]): LedgerBucket => {
      const summed = sum.span()
      return { level, startMs, host, rev: revs.get(host) ?? 0, ...summed, totals: rowTotalsOf(summed.rows), computedMs }
    })
    const replaced = await ledger.replaceBuckets(spans)
    const won = new Set(spans.filter((_, i) => replaced[i]).map((span) => span.host))
    counters.sumsComputed += spans.length
    counters.racesLost += spans.length - won.size
    if (level === 'hour' && won.size > 0) {
      await ledger.insertMarks('day', [{ startMs: floorTo(DAY_MS, startMs), hosts: [...won] }], now())
    }
    const done = marks.filter((mark) => mark.hosts.every((host) => won.has(host))).map((mark) => mark.id)
    await ledger.deleteMarks(done)
    counters.marksDeleted += done.length
    return true
  }
}

/** The sum of some spans of one host. */
export class RollupBuilder {
  readonly #rows = new RowTotal()
  readonly #versions = new Set<number>()
  #capped = 0

  add(part: Pick<LedgerBucket, 'rows' | 'bookVersions' | 'capped'>): void {
    this.#rows.add(part.rows)
    for (const version of part.bookVersions) this.#versions.add(version)
    this.#capped += part.capped
  }

  span(): Pick<LedgerBucket, 'rows' | 'bookVersions' | 'capped'> {
    return {
      rows: this.#rows.rows(),
      bookVersions: [...this.#versions].sort((a, b) => a - b),
      capped: this.#capped,
    }
  }
}
