// The GPUs that were seen, as far as prices need them: whether the rules of a book fit any, which GPUs have no rule,
// and whether a GPU that a question names exists at all. Read from the newest samples and from the days of the
// ledger, which outlive raw events; so far back as MAX_DAYS, and no more rows than MAX_ROWS, whatever the fleet.

import { DAY_MS, floorTo, HOUR_MS } from '../../domain/ledger/buckets.ts'
import { type UnmatchedRule, unmatchedRules } from '../../domain/prices/book-fit.ts'
import { usd } from '../../domain/prices/money.ts'
import type { PriceBook } from '../../domain/prices/price-book.ts'
import type { PricedSlot } from '../../domain/prices/price-rule.ts'
import type { EventStore } from '../../store/event-store.ts'

/** How well a price book fits the GPUs that were seen, as the API returns it. */
export interface BookFit {
  /** Since when GPUs were looked for, ISO 8601; null: no GPU was seen at all. */
  seen_since: string | null
  gpus_seen: number
  /** Rules that fit none of them, at most 20. */
  unmatched_rules: UnmatchedRule[]
  unmatched_rules_count: number
  /**
   * GPUs of the last hour of samples that get the default, as neither a rule nor their samples price them; at most
   * 20.
   */
  default_gpus: { host: string | null; gpu_index: number; name: string | null; usd_per_hour: number }[]
  default_gpus_count: number
}

const MAX_DAYS = 31
const MAX_ROWS = 100_000
const MAX_SLOTS = 10_000
const MAX_LISTED = 20
/** Tokens show a slot that has no samples; they are searched over so long, milliseconds, and in at most so many. */
const TOKENS_MS = 10 * 60_000
const MAX_TOKENS = 20_000

type Source = Pick<EventStore, 'newestMs' | 'latestSamplePerSlot' | 'latestSample' | 'readEvents' | 'ledger'>

/** Compares a book with the GPUs that were seen; rules count at `nowMs`. Rejects with a StoreError. */
export async function readBookFit(store: Source, book: PriceBook, nowMs: number): Promise<BookFit> {
  const newestMs = await store.newestMs('gpu')
  const samples = newestMs === null ? [] : await store.latestSamplePerSlot(newestMs - HOUR_MS, MAX_SLOTS)
  const recent = samples.map((sample) => ({ slot: slotOf(sample), isPriced: sample.price_per_hour_usd !== undefined }))
  const past = newestMs === null ? null : await readDays(store, newestMs)
  const seen = [...recent.map(({ slot }) => slot), ...(past?.slots ?? [])]
  const { rules, count } = unmatchedRules(book, seen, nowMs)
  const nameOf = (host: string | null) => book.hosts.nameOf(host)
  const unpriced = recent.filter(({ slot, isPriced }) => !isPriced && book.ruleAt(slot, nowMs) === null)
  const usdPerHour = usd(book.defaultAt(nowMs))
  return {
    seen_since: past === null ? null : new Date(Math.min(past.fromMs, newestMs! - HOUR_MS)).toISOString(),
    gpus_seen: new Set(seen.map(({ host, gpuIndex }) => JSON.stringify([nameOf(host), gpuIndex]))).size,
    unmatched_rules: rules,
    unmatched_rules_count: count,
    default_gpus: unpriced
      .slice(0, MAX_LISTED)
      .map(({ slot: { host, gpuIndex, name } }) => ({ host, gpu_index: gpuIndex, name, usd_per_hour: usdPerHour })),
    default_gpus_count: unpriced.length,
  }
}

/** Day by day, the newest first, so that what is left out by a limit is the oldest. */
async function readDays(store: Source, newestMs: number): Promise<{ slots: PricedSlot[]; fromMs: number }> {
  const slots = new Map<string, PricedSlot>()
  const newestDayMs = floorTo(DAY_MS, newestMs)
  let rows = 0
  let dayMs = newestDayMs
  for (; dayMs > newestDayMs - MAX_DAYS * DAY_MS && rows < MAX_ROWS; dayMs -= DAY_MS) {
    for await (const bucket of store.ledger.readBuckets('day', dayMs, dayMs + DAY_MS)) {
      rows += bucket.rows.length
      // A day that is not read to its end is not stated as one that was looked at.
      if (rows > MAX_ROWS) return { slots: [...slots.values()], fromMs: dayMs + DAY_MS }
      for (const row of bucket.rows) {
        // A commitment that never reported has rows of its own: that is no GPU that was seen.
        if (row.covered_ms + row.assumed_ms === 0n) continue
        const slot = { host: bucket.host, gpuIndex: row.gpu_index, uuid: row.gpu_uuid, name: row.gpu_name }
        slots.set(JSON.stringify(Object.values(slot)), slot)
      }
    }
  }
  return { slots: [...slots.values()], fromMs: dayMs + DAY_MS }
}

function slotOf(sample: { host: string | null; gpu_index: number; uuid?: string; name?: string }): PricedSlot {
  const { host, gpu_index: gpuIndex, uuid = null, name = null } = sample
  return { host, gpuIndex, uuid, name }
}

/**
 * Whether a GPU exists that can be priced at an instant: a rule of the book names its slot, a sample of it is stored,
 * or the ledger's day or the newest tokens have it. Rejects with a StoreError.
 */
export async function isKnownGpu(
  store: Source,
  book: PriceBook,
  { host, gpuIndex, atMs }: { host: string | null; gpuIndex: number; atMs: number },
): Promise<boolean> {
  const name = book.hosts.nameOf(host)
  if (name !== null && book.rules.some(({ match }) => match.host === name && match.gpu_index === gpuIndex)) return true
  const names = book.hosts.namesOf(name)
  for (const each of names) if ((await store.latestSample({ host: each, gpuIndex })) !== null) return true
  const dayMs = floorTo(DAY_MS, atMs)
  for await (const { rows } of store.ledger.readBuckets('day', dayMs, dayMs + DAY_MS, [...names])) {
    if (rows.some((row) => row.gpu_index === gpuIndex)) return true
  }
  const newestMs = await store.newestMs('token')
  if (newestMs === null) return false
  let searched = 0
  for await (const token of store.readEvents('token', newestMs - TOKENS_MS, newestMs + 1)) {
    if (names.includes(token.host) && (token.gpus ?? [token.gpu_index]).includes(gpuIndex)) return true
    if (++searched > MAX_TOKENS) break
  }
  return false
}

/** What an answer about an unknown GPU states. */
export function unknownGpuText({ host, gpuIndex }: { host: string | null; gpuIndex: number }): string {
  const where = host === null ? 'without a host' : `of host "${host}"`
  return `No GPU ${gpuIndex} ${where} was ever seen: see /api/v1/gpus, or pertoken report --by gpu, for what there is`
}
