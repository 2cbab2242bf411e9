// Why a GPU costs what it costs at an instant: which rule of the price book won and what it matches by, why each other
// rule did not, and the components of the price. The price is the one that the ledger takes there, by the same function
// (explained-instant.ts). Used by /api/v1/explain and `pertoken prices explain`.

import { CELL_MS, DAY_MS, floorTo } from '../../domain/ledger/buckets.ts'
import { usd } from '../../domain/prices/money.ts'
import type { Explanation, PriceBook } from '../../domain/prices/price-book.ts'
import type { PriceRuleData } from '../../domain/prices/price-book-schema.ts'
import type { PriceKind, PriceRule } from '../../domain/prices/price-rule.ts'
import type { EventStore } from '../../store/event-store.ts'
import { type ExplainedInstant, type ExplainedTime, explainInstant, type SlotInstant } from './explained-instant.ts'
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
  /** What the ledger makes of the instant. */
  time: ExplainedTime
  /** The same in a sentence. */
  note: string
  /** The sample whose uuid, name, price and power these are; null where it is no single one. */
  sample: KnownSample | null
  book_version: number
  price_per_hour_usd: number
  price_kind: PriceKind
  /** What the price is made of. */
  parts: Record<string, number | null>
  /** The rule that won, null where sample or default give the price. */
  rule: RuleView | null
  because: string
  /** The other rules, and why each did not win. */
  others: (RuleView & { reason: string })[]
}

/**
 * Explains one GPU's price; `nowMs`: until when samples may have come. Rejects with a RangeError while there is no
 * price book at all, or with a StoreError.
 */
export async function explainPrice(
  events: Pick<EventStore, 'latestSample' | 'listEvents' | 'ledger'>,
  place: SlotInstant & { nowMs: number },
): Promise<PriceExplanation> {
  const { gpuIndex, atMs } = place
  const dayMs = floorTo(DAY_MS, atMs)
  const day = (await events.ledger.readDayStates()).find(({ startMs }) => startMs === dayMs)?.state ?? 'open'
  const book = await bookOf(events, place, day === 'frozen')
  const host = book.hosts.nameOf(place.host)
  const known = await explainInstant(events, { ...place, host }, { book, isPurged: day === 'purged' })
  const explanation = book.explain(known.slot, atMs)
  const rule = explanation.rule
  return {
    host,
    gpu_index: gpuIndex,
    at: new Date(atMs).toISOString(),
    gpu_uuid: known.slot.uuid,
    gpu_name: known.slot.name,
    time: known.time,
    note: known.note,
    sample: viewOfSample(known),
    book_version: book.version,
    price_per_hour_usd: usd(known.nanoUsdPerHour),
    price_kind: known.kind,
    parts: partsOf(known, rule, ruleData(book, rule)),
    rule: rule === null ? null : viewOf(book, rule),
    because: becauseOf(explanation, known.kind),
    others: explanation.others.map((other) => ({ ...viewOf(book, other.rule), reason: reasonOf(other) })),
  }
}

/** The book that the ledger's cell has, or will have; a frozen day keeps what it was computed with. */
async function bookOf(
  { ledger }: Pick<EventStore, 'ledger'>,
  { host, atMs }: SlotInstant,
  isFrozen: boolean,
): Promise<PriceBook> {
  const books = new PriceBookVersions(ledger)
  await books.refresh()
  const startMs = floorTo(CELL_MS, atMs)
  if (isFrozen) {
    for await (const { bookVersions } of ledger.readBuckets('minute', startMs, startMs + 1, [host])) {
      return books.bookByVersion(bookVersions[0]!)
    }
  }
  return books.bookFor(startMs)
}

function viewOfSample({ sample }: ExplainedInstant): KnownSample | null {
  if (sample === null) return null
  const { ts, uuid = null, name = null, price_per_hour_usd = null, power_w = null } = sample
  return { ts: ts.toISOString(), uuid, name, price_per_hour_usd, power_w }
}

function partsOf(
  { kind, nanoUsdPerHour, powerW }: ExplainedInstant,
  rule: PriceRule | null,
  data: PriceRuleData | null,
): PriceExplanation['parts'] {
  if (rule === null || data?.kind !== 'owned') {
    return { [`${rule === null ? kind : 'rule'}_usd_per_hour`]: usd(nanoUsdPerHour) }
  }
  return {
    purchase_usd: data.purchase_usd,
    salvage_usd: data.salvage_usd ?? 0,
    life_hours: data.life_hours ?? data.life_years! * 8760,
    fixed_usd_per_hour: usd(rule.nanoUsdPerHour),
    power_w: powerW,
    pue: data.pue ?? 1,
    usd_per_kwh: data.usd_per_kwh ?? 0,
    energy_usd_per_hour: powerW === null ? null : usd(nanoUsdPerHour - rule.nanoUsdPerHour),
  }
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
