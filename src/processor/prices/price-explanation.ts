// Why a GPU costs what it costs at an instant: which rule of the price book won and by what it matches, why each other
// rule did not, and the parts of the price. The GPU's uuid and name are those of its newest sample at or before the
// instant; a sample more than a day older tells nothing. Used by /api/v1/explain and `pertoken prices explain`.

import { CELL_MS, DAY_MS, floorTo } from '../../domain/ledger/buckets.ts'
import { usd } from '../../domain/prices/money.ts'
import type { Explanation, PriceBook } from '../../domain/prices/price-book.ts'
import type { PriceRuleData } from '../../domain/prices/price-book-schema.ts'
import { effectivePrice, type PriceKind, type PriceRule } from '../../domain/prices/price-rule.ts'
import type { EventStore } from '../../store/event-store.ts'
import { PriceBookVersions } from './price-book-versions.ts'

/** A rule as it is shown. */
export interface RuleView {
  id: string
  kind: PriceKind
  match: object
  from: string | null
  to: string | null
}

/** What is read of a sample here. */
interface KnownSample {
  ts: string
  uuid: string | null
  name: string | null
  price_per_hour_usd: number | null
  power_w: number | null
}

export interface PriceExplanation {
  host: string | null
  gpu_index: number
  at: string
  gpu_uuid: string | null
  gpu_name: string | null
  /** The newest sample at or before the instant, null where there is none within a day. */
  sample: KnownSample | null
  book_version: number
  price_per_hour_usd: number
  price_kind: PriceKind
  /** What the price is made of. */
  parts: Record<string, number | null>
  /** The rule that won, null where sample or default tell the price. */
  rule: RuleView | null
  because: string
  /** The other rules, and why each did not win. */
  others: (RuleView & { reason: string })[]
}

const HOUR_MS = 3_600_000

/** Explains one GPU's price. Throws a RangeError while there is no price book at all, or a StoreError. */
export async function explainPrice(
  events: Pick<EventStore, 'latestSample' | 'listEvents' | 'ledger'>,
  { host, gpuIndex, atMs }: { host: string | null; gpuIndex: number; atMs: number },
): Promise<PriceExplanation> {
  const books = new PriceBookVersions(events.ledger)
  await books.refresh()
  const book = books.bookFor(floorTo(CELL_MS, atMs))
  const sample = await sampleBefore(events, { host, gpuIndex, atMs })
  const slot = { uuid: sample?.uuid ?? null, host, gpuIndex, name: sample?.name ?? null }
  const explanation = book.explain(slot, atMs)
  const priced = priceOf(explanation, sample, ruleData(book, explanation.rule))
  return {
    host,
    gpu_index: gpuIndex,
    at: new Date(atMs).toISOString(),
    gpu_uuid: slot.uuid,
    gpu_name: slot.name,
    sample,
    book_version: book.version,
    ...priced,
    rule: explanation.rule === null ? null : viewOf(book, explanation.rule),
    because: becauseOf(explanation, priced.price_kind),
    others: explanation.others.map((other) => ({ ...viewOf(book, other.rule), reason: reasonOf(other) })),
  }
}

type Priced = Pick<PriceExplanation, 'price_per_hour_usd' | 'price_kind' | 'parts'>

function priceOf(
  { rule, defaultNanoUsdPerHour }: Explanation,
  sample: KnownSample | null,
  data: PriceRuleData | null,
): Priced {
  if (rule !== null && data?.kind === 'owned') return ownedPrice(rule, data, sample?.power_w ?? null)
  const { kind, nanoUsdPerHour } = effectivePrice(rule, sample?.price_per_hour_usd ?? null, defaultNanoUsdPerHour)
  const price = usd(nanoUsdPerHour)
  const part = rule !== null ? 'rule' : kind
  return { price_per_hour_usd: price, price_kind: kind, parts: { [`${part}_usd_per_hour`]: price } }
}

/** The ledger takes each interval's energy; here the power of the sample stands for it. */
function ownedPrice(rule: PriceRule, data: PriceRuleData & { kind: 'owned' }, powerW: number | null): Priced {
  const microjoulesPerHour = powerW === null ? 0n : BigInt(Math.round(powerW * 1000)) * 3_600_000n
  const price = rule.priceWithEnergy(microjoulesPerHour, HOUR_MS)
  const parts = {
    purchase_usd: data.purchase_usd,
    salvage_usd: data.salvage_usd ?? 0,
    life_hours: data.life_hours ?? data.life_years! * 8760,
    fixed_usd_per_hour: usd(rule.nanoUsdPerHour),
    power_w: powerW,
    pue: data.pue ?? 1,
    usd_per_kwh: data.usd_per_kwh ?? 0,
    energy_usd_per_hour: powerW === null ? null : usd(price - rule.nanoUsdPerHour),
  }
  return { price_per_hour_usd: usd(price), price_kind: 'owned', parts }
}

function becauseOf({ rule, because }: Explanation, kind: PriceKind): string {
  if (rule !== null) return because
  return kind === 'sample'
    ? 'no rule is in force: the price of the sample counts'
    : 'no rule is in force, and no sample tells a price: the default counts'
}

function reasonOf(other: Explanation['others'][number]): string {
  return other.reason === 'does not match' ? `does not match: ${other.field}` : other.reason
}

function ruleData(book: PriceBook, rule: PriceRule | null): PriceRuleData | null {
  return rule === null ? null : book.data.rules.find(({ id }) => id === rule.id)!
}

function viewOf(book: PriceBook, rule: PriceRule): RuleView {
  const { id, kind, match, from = null, to = null } = ruleData(book, rule)!
  return { id, kind, match, from, to }
}

type SampleEvents = Pick<EventStore, 'latestSample' | 'listEvents'>

/** The newest sample of a slot at or before an instant, within a day. */
async function sampleBefore(
  events: SampleEvents,
  { host, gpuIndex, atMs }: { host: string | null; gpuIndex: number; atMs: number },
): Promise<KnownSample | null> {
  const latest = await events.latestSample({ host, gpuIndex })
  if (latest === null || latest.ts.getTime() < atMs - DAY_MS) return null
  if (latest.ts.getTime() <= atMs) return known(latest)
  // Listings are in order of time, so the newest is found by halving: some 27 look-ups of one document in a day.
  const firstFrom = async (fromMs: number, toMs: number) => {
    const page = await events.listEvents('gpu', { host, gpuIndex, fromMs, toMs, limit: 1 })
    return page.items[0] ?? null
  }
  let best = await firstFrom(Math.max(0, atMs - DAY_MS), atMs + 1)
  if (best === null) return null
  let endMs = atMs + 1
  for (let nextMs = tsOf(best) + 1; nextMs < endMs; nextMs = tsOf(best) + 1) {
    const middleMs = nextMs + Math.floor((endMs - nextMs) / 2)
    const found = await firstFrom(middleMs, endMs)
    if (found !== null) best = found
    else endMs = middleMs
  }
  return known(best)
}

function tsOf(document: Record<string, unknown>): number {
  return (document['ts'] as Date).getTime()
}

function known(document: object): KnownSample {
  const { ts, uuid, name, price_per_hour_usd, power_w } = document as Record<string, unknown>
  const text = (value: unknown) => (typeof value === 'string' ? value : null)
  const number = (value: unknown) => (typeof value === 'number' && Number.isFinite(value) ? value : null)
  return {
    ts: (ts as Date).toISOString(),
    uuid: text(uuid),
    name: text(name),
    price_per_hour_usd: number(price_per_hour_usd),
    power_w: number(power_w),
  }
}
