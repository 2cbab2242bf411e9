// Whether a store groups token usage as its single documents are: the keeper takes the store's own sums, the embedded
// store's from columns beside each document, and a cell that was right when it was computed would be wrong when it is
// computed again. `verify` compares hour by hour; what differs is read again on its own, since events may be coming in.
// Memory holds the groups of an hour, as the keeper's does.

import { CELL_MS } from '../../domain/ledger/buckets.ts'
import type { TokenTotals } from '../../domain/ledger/types.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'
import { MinuteTokenAggregator } from '../ledger/token-aggregator.ts'
import type { Difference } from './bucket-diff.ts'

/** How often a minute that differs is read again. */
const TRIES = 3
/** Differences that are kept with their texts. */
const MAX_NAMED = 20

/** Groups of one minute and host, by GPUs, model and tenant: their counts as text. */
type Groups = Map<string, string>

export class GroupingCheck {
  readonly differences: Difference[] = []
  differenceCount = 0
  readonly #ledger: LedgerStore
  /** By minute, then host, since the last comparison. */
  readonly #minutes = new Map<number, Map<string | null, Groups>>()

  constructor(ledger: LedgerStore) {
    this.#ledger = ledger
  }

  /** Takes the usage of a minute as its documents have it. */
  add(startMs: number, tokens: Pick<MinuteTokenAggregator, 'hosts' | 'totals'>): void {
    const hosts = new Map([...tokens.hosts].map((host) => [host, groupsOf(tokens.totals(host))]))
    if (hosts.size > 0) this.#minutes.set(startMs, hosts)
  }

  /** Compares the minutes taken since the last call, of an hour at most. Rejects with a StoreError. */
  async compare(): Promise<void> {
    if (this.#minutes.size === 0) return
    const starts = [...this.#minutes.keys()]
    const hosts = [...new Set([...this.#minutes.values()].flatMap((minute) => [...minute.keys()]))]
    const grouped = await this.#ledger.tokenTotals(starts[0]!, starts.at(-1)! + CELL_MS, hosts)
    const byMinute = Map.groupBy(grouped, ({ startMs }) => startMs)
    for (const [startMs, expected] of this.#minutes) {
      const found = Map.groupBy(byMinute.get(startMs) ?? [], ({ host }) => host)
      for (const [host, groups] of expected) {
        if (differing(groups, groupsOf(found.get(host) ?? [])) !== null) await this.#compareAlone(startMs, host)
      }
    }
    this.#minutes.clear()
  }

  async #compareAlone(startMs: number, host: string | null): Promise<void> {
    let difference: { expected: string; found: string } | null = null
    for (let tries = 0; tries < TRIES; tries++) {
      const range = { fromMs: startMs, toMs: startMs + CELL_MS }
      const documents = new MinuteTokenAggregator(this.#ledger, range)
      try {
        await documents.moveTo(startMs)
        const grouped = await this.#ledger.tokenTotals(range.fromMs, range.toMs, [host])
        difference = differing(groupsOf(documents.totals(host)), groupsOf(grouped))
      } finally {
        await documents.close()
      }
      if (difference === null) return
    }
    this.differenceCount++
    if (this.differences.length >= MAX_NAMED) return
    this.differences.push({
      ...{ level: 'minute', start: new Date(startMs).toISOString(), host, what: 'grouping' },
      ...difference!,
    })
  }
}

function groupsOf(totals: readonly TokenTotals[]): Groups {
  return new Map(
    totals.map(({ gpus, model, tenant, events, sum, each }) => {
      const key = `gpus=${gpus.toSorted((a, b) => a - b)} model=${model} tenant=${tenant}`
      const counts = Object.entries(sum).map(([name, count]) => `${name}=${count}/${each[name as keyof typeof each]}`)
      return [key, [`events=${events}`, ...counts].join(' ')]
    }),
  )
}

/** The first group that differs, as text; null where none does. */
function differing(expected: Groups, found: Groups): { expected: string; found: string } | null {
  for (const key of new Set([...expected.keys(), ...found.keys()])) {
    const [a, b] = [expected.get(key), found.get(key)]
    if (a !== b) return { expected: `${key} ${a ?? 'no such group'}`, found: `${key} ${b ?? 'no such group'}` }
  }
  return null
}
