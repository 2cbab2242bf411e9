// Notes of an answer about cost: hosts of its range that only tokens name, beside a sampled host that is likely the
// same; and the one name of a host that was asked for by another. Read from the ledger itself, the newest buckets
// first, and no more than MAX_ROWS rows, so that a long range costs no more than a short one. What a note costs is
// stated in dollars: the time that was assumed.

import { hostSpellings, spellingText, type UsedSlot } from '../../domain/fleet/host-spellings.ts'
import { DAY_MS } from '../../domain/ledger/buckets.ts'
import { HostNames } from '../../domain/prices/host-names.ts'
import type { PriceBookDocument } from '../../domain/prices/price-book-schema.ts'
import { type CostQuery, planOf } from '../../report/cost-query.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'

const MAX_ROWS = 10_000
/** Most notes of an answer. */
const MAX_NOTES = 5

/** The notes of a question. Rejects with a StoreError. */
export async function hostNotes(
  ledger: LedgerStore,
  query: Pick<CostQuery, 'fromMs' | 'toMs' | 'host'>,
): Promise<string[]> {
  return [...(await joinedNotes(ledger, query)), ...(await spellingNotes(ledger, query))]
}

/** A question by a name that the newest price book joins under another finds nothing, or only the past. */
async function joinedNotes(ledger: LedgerStore, { host }: Pick<CostQuery, 'host'>): Promise<string[]> {
  if (host === undefined || host === null) return []
  const newest = (await ledger.readBooks()).toSorted((a, b) => a.version - b.version).at(-1)
  const name = new HostNames((newest?.book as PriceBookDocument | undefined)?.hosts).nameOf(host)
  if (name === host) return []
  return [`"${host}" is a name of host "${name}" in the price book: what was joined is under "${name}"`]
}

async function spellingNotes(
  ledger: LedgerStore,
  { fromMs, toMs }: Pick<CostQuery, 'fromMs' | 'toMs'>,
): Promise<string[]> {
  const sampled = new Map<string, UsedSlot>()
  const used = new Map<string, UsedSlot>()
  const assumed = new Map<string, bigint>()
  let rows = 0
  const plan = planOf({ fromMs, toMs, step: 'all', idle: 'own' }).toReversed()
  for (const read of plan) {
    for (let endMs = read.toMs; endMs > read.fromMs && rows < MAX_ROWS; endMs -= DAY_MS) {
      const range = [Math.max(read.fromMs, endMs - DAY_MS), endMs] as const
      for await (const bucket of ledger.readBuckets(read.level, ...range)) {
        const { host } = bucket
        rows += bucket.rows.length + 1
        if (rows > MAX_ROWS) break
        if (host === null) continue
        for (const row of bucket.rows) {
          const key = `${row.gpu_index} ${host}`
          if (row.covered_ms > 0n) sampled.set(key, { host, gpu_index: row.gpu_index })
          if (row.assumed_ms === 0n) continue
          used.set(key, { host, gpu_index: row.gpu_index })
          assumed.set(host, (assumed.get(host) ?? 0n) + row.assumed_nano_usd)
        }
      }
    }
  }
  return hostSpellings(sampled.values(), used.values())
    .slice(0, MAX_NOTES)
    .map((spelling) => {
      const paid = Number(assumed.get(spelling.tokenHost)!) / 1e9
      const money = rows < MAX_ROWS ? `${paid} USD of this range` : `${paid} USD and more of this range`
      return `${spellingText(spelling)}, and reprice: ${money} are for it`
    })
}
