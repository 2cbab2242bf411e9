// Computes hours as sums of their minutes, and days as sums of their hours, by the same protocol as the minutes: read
// marks → read revs → read the components → replace where the rev is unchanged → mark the day → delete the marks that
// were read. These are sums of integers: whoever adds them up, and in whatever order, gets the same rows.

import { DAY_MS, floorTo, LEVELS, type RollupLevel } from '../../domain/ledger/buckets.ts'
import { RowAccumulator, rowTotalsOf } from '../../domain/ledger/rows.ts'
import type { LedgerBucket } from '../../store/ledger-store.ts'
import { dropFrozen, type KeeperDependencies } from './minute-keeper.ts'

export class RollupKeeper {
  readonly #deps: KeeperDependencies

  constructor(deps: KeeperDependencies) {
    this.#deps = deps
  }

  /** Computes one hour or day; returns whether it still had marks. Rejects with a StoreError. */
  async compute(level: RollupLevel, startMs: number): Promise<boolean> {
    const { ledger, counters, now } = this.#deps
    const marks = await ledger.readMarks(level, startMs)
    if (marks.length === 0) return false
    if ((await dropFrozen(this.#deps, [{ startMs, marks }])).length === 0) return false
    const hosts = [...new Set(marks.flatMap((mark) => mark.hosts))]
    const revs = await ledger.readRevs(level, startMs, hosts)
    const builders = new Map(hosts.map((host) => [host, new RollupBuilder()]))
    const { sumOf, lengthMs } = LEVELS[level]
    for await (const component of ledger.readBuckets(sumOf, startMs, startMs + lengthMs, hosts)) {
      builders.get(component.host)?.add(component)
    }
    const computedMs = now()
    const rollups = [...builders].map(([host, builder]): LedgerBucket => {
      const sum = builder.build()
      return { level, startMs, host, rev: revs.get(host) ?? 0, ...sum, totals: rowTotalsOf(sum.rows), computedMs }
    })
    const replaced = await ledger.replaceBuckets(rollups)
    const won = new Set(rollups.filter((_, i) => replaced[i]).map((rollup) => rollup.host))
    counters.rollupsComputed += rollups.length
    counters.racesLost += rollups.length - won.size
    if (level === 'hour' && won.size > 0) {
      await ledger.insertMarks('day', [{ startMs: floorTo(DAY_MS, startMs), hosts: [...won] }], now())
    }
    const done = marks.filter((mark) => mark.hosts.every((host) => won.has(host))).map((mark) => mark.id)
    await ledger.deleteMarks(done)
    counters.marksDeleted += done.length
    return true
  }
}

type RollupFields = Pick<LedgerBucket, 'rows' | 'bookVersions' | 'capped'>

/** The sum of buckets of one host. */
export class RollupBuilder {
  readonly #rows = new RowAccumulator()
  readonly #versions = new Set<number>()
  #overflow = 0

  add(component: RollupFields): void {
    this.#rows.add(component.rows)
    for (const version of component.bookVersions) this.#versions.add(version)
    this.#overflow += component.capped
  }

  build(): RollupFields {
    const bookVersions = [...this.#versions].sort((a, b) => a - b)
    return { rows: this.#rows.rows(), bookVersions, capped: this.#overflow }
  }
}
