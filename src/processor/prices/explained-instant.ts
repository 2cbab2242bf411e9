// What the ledger makes of one slot at one instant, and at which price: asked of its own coverage of the minute, with
// the samples that a keeper would read for it. Only where the ledger has nothing (the sample that closes the newest
// time has not come, or nothing is charged) the newest sample of the last day stands in, and the answer states that.

import type { GpuDocument } from '../../domain/events/event.ts'
import { isOwnId } from '../../domain/events/event-id.ts'
import { CELL_MS, DAY_MS, floorTo, MAX_SAMPLE_GAP_MS } from '../../domain/ledger/buckets.ts'
import { firstPerInstant, type PricedInterval, SlotCoverage } from '../../domain/ledger/coverage.ts'
import { isUsage } from '../../domain/ledger/token-totals.ts'
import type { LedgerSample } from '../../domain/ledger/types.ts'
import type { PriceBook } from '../../domain/prices/price-book.ts'
import { effectivePrice, type PricedSlot, type PriceKind } from '../../domain/prices/price-rule.ts'
import type { EventStore } from '../../store/event-store.ts'

/** A slot at an instant, epoch milliseconds. */
export interface SlotInstant {
  host: string | null
  gpuIndex: number
  atMs: number
}

/**
 * A sample covers the instant; only tokens do; only a commitment does; the sample that would close the time may still
 * come; nothing is charged; the raw events are gone.
 */
export type ExplainedTime = 'covered' | 'assumed' | 'uncovered' | 'open' | 'none' | 'purged'

export interface ExplainedInstant {
  time: ExplainedTime
  note: string
  /** The GPU that is taken to be there. */
  slot: PricedSlot
  /** The sample that the GPU and its price are known by; null where it is no single one. */
  sample: LedgerSample | null
  kind: PriceKind
  nanoUsdPerHour: bigint
  /** The power in the price of an owned GPU, null where there is none. */
  powerW: number | null
}

type Events = Pick<EventStore, 'latestSample' | 'listEvents' | 'ledger'>

/** Samples that are read at once. */
const PAGE_SAMPLES = 1000

const NOTES = {
  covered: 'the sample that closes this time gives GPU, price and power',
  assumed: 'tokens came in this minute and no sample covers the instant: the nearest samples give GPU and price',
  uncovered: 'paid for and unreported: no sample covers the instant, and no tokens came in this minute',
  open: 'latest known: the sample that closes this time has not come yet',
  none: 'nothing is charged: no sample covers the instant, no tokens came in this minute, and nothing is committed',
  purged: 'the raw events of this day were purged: what the ledger took is in its hours and days',
} as const satisfies Record<ExplainedTime, string>

export const EXPLAINED_TIMES = Object.keys(NOTES) as ExplainedTime[]

/** What the ledger takes with this book, which has the host by this name. Rejects with a StoreError. */
export async function explainInstant(
  events: Events,
  place: SlotInstant & { nowMs: number },
  { book, isPurged }: { book: PriceBook; isPurged: boolean },
): Promise<ExplainedInstant> {
  const { atMs, nowMs } = place
  const startMs = floorTo(CELL_MS, atMs)
  const places = book.hosts.namesOf(place.host).map((host) => ({ ...place, host }))
  const samples = await samplesAround(events, places, startMs)
  const coverage = new SlotCoverage(place, startMs, { samples, book })
  const holds = ({ fromMs, ms }: PricedInterval) => fromMs <= atMs && atMs < fromMs + ms
  const covered = coverage.covered.find(holds)
  if (covered !== undefined) {
    const { sample, powerW } = covered
    return { ...takenBy('covered', withGpu(coverage.slot, sample), covered), sample, powerW }
  }
  const newest = await newestAt(events, places)
  const canClose = newest !== null && nowMs < newest.ts.getTime() + book.maxSampleGapMs + CELL_MS
  if (atMs >= nowMs || (canClose && atMs < newest.ts.getTime() + book.maxSampleGapMs)) {
    return knownBy('open', { ...place, newest, book })
  }
  if (isPurged) return knownBy('purged', { ...place, newest, book })
  // Beside tokens all of the minute is present; without them a commitment pays for the gap.
  const assumed = coverage.assumedIntervals().find(holds)!
  if (await hasTokens(events, places, startMs)) return takenBy('assumed', coverage.slot, assumed)
  const committed = coverage.committedIntervals().find(holds)
  if (committed !== undefined) return takenBy('uncovered', coverage.slot, committed)
  if (samples.length > 0) return takenBy('none', coverage.slot, assumed)
  return knownBy('none', { ...place, newest, book })
}

/** The GPU that a sample is of. */
function withGpu(slot: PricedSlot, sample: Pick<LedgerSample, 'uuid' | 'name'>): PricedSlot {
  return { ...slot, uuid: sample.uuid ?? null, name: sample.name ?? null }
}

function takenBy(time: ExplainedTime, slot: PricedSlot, { kind, nanoUsdPerHour }: PricedInterval): ExplainedInstant {
  return { time, note: NOTES[time], slot, sample: null, kind, nanoUsdPerHour, powerW: null }
}

/** Priced by the newest sample that is known: its power stands for the energy of an interval. */
function knownBy(
  time: ExplainedTime,
  { host, gpuIndex, atMs, newest, book }: SlotInstant & { newest: LedgerSample | null; book: PriceBook },
): ExplainedInstant {
  const slot = withGpu({ uuid: null, host, gpuIndex, name: null }, newest ?? {})
  const price = effectivePrice(book.ruleAt(slot, atMs), newest?.price_per_hour_usd ?? null, book.defaultAt(atMs))
  // Longer ago it shows no more that the GPU still draws this: the ledger would take the fixed part alone.
  const isPresent = newest !== null && atMs < newest.ts.getTime() + book.maxSampleGapMs
  const powerW = isPresent ? (newest.power_w ?? null) : null
  const nanoUsdPerHour = powerW === null || price.rule === null ? price.nanoUsdPerHour : price.rule.priceAtPower(powerW)
  const by =
    newest === null ? 'no sample of the day before is known' : `known by the sample of ${newest.ts.toISOString()}`
  return { time, note: `${NOTES[time]}; ${by}`, slot, sample: newest, kind: price.kind, nanoUsdPerHour, powerW }
}

/** The slot's samples that the minute's cell is computed from; `places`: the slot by all names of its host. */
async function samplesAround(
  events: Events,
  places: readonly SlotInstant[],
  startMs: number,
): Promise<readonly LedgerSample[]> {
  const samples: LedgerSample[] = []
  for (const place of places) samples.push(...(await samplesOf(events, place, startMs)))
  return firstPerInstant(samples)
}

async function samplesOf(events: Events, { host, gpuIndex }: SlotInstant, startMs: number): Promise<LedgerSample[]> {
  const [fromMs, toMs] = [startMs - MAX_SAMPLE_GAP_MS, startMs + CELL_MS + MAX_SAMPLE_GAP_MS]
  const samples: LedgerSample[] = []
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const page = cursor === undefined ? {} : { cursor }
    const found = await events.listEvents('gpu', { fromMs, toMs, host, gpuIndex, limit: PAGE_SAMPLES, ...page })
    // With an id of ours it is a document that passed the schema.
    for (const event of found.items) if (isOwnId(event['_id'])) samples.push(event as unknown as GpuDocument)
    cursor = found.cursor
  }
  return samples
}

/** The slot's newest sample at or before the instant, within a day. */
async function newestAt(events: Events, places: readonly SlotInstant[]): Promise<GpuDocument | null> {
  const samples = places.map(({ host, gpuIndex, atMs }) =>
    events.latestSample({ host, gpuIndex, atOrAfterMs: atMs - DAY_MS, atOrBeforeMs: atMs }),
  )
  return (await Promise.all(samples)).reduce((a, b) => (a === null || (b !== null && b.ts > a.ts) ? b : a), null)
}

/** Whether tokens came on the slot in the minute: then all of its time is taken as present. */
async function hasTokens({ ledger }: Events, places: readonly SlotInstant[], startMs: number): Promise<boolean> {
  const hosts = places.map(({ host }) => host)
  const groups = await ledger.tokenTotals(startMs, startMs + CELL_MS, hosts)
  return groups.some((group) => group.gpus.includes(places[0]!.gpuIndex) && isUsage(group))
}
