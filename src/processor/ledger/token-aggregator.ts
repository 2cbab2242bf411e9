// Aggregates token usage from individual documents, minute by minute. `verify` uses it to check the store's own
// aggregation independently, and long ranges are computed from it. Documents come in order of time; memory holds the
// groups of one minute, never its events. Those that sum over several minutes are counted in minutes before their own:
// they are read apart, an hour at a time, and memory holds the groups of their parts in it.

import { gpuIndexesOf } from '../../domain/events/event.ts'
import { CELL_MS, floorTo, HOUR_MS, reachMinutes } from '../../domain/ledger/buckets.ts'
import { partsOf } from '../../domain/ledger/token-parts.ts'
import { addEvent, totalsOfEvent } from '../../domain/ledger/token-totals.ts'
import type { LedgerToken, TokenTotals } from '../../domain/ledger/types.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'
import { OrderedStream } from './ordered-stream.ts'

/** Counts of the documents themselves, for a check that bypasses all code of the ledger. */
export interface EventCounts {
  requests: bigint
  prompt_tokens: bigint
  cached_prompt_tokens: bigint
  completion_tokens: bigint
}

/** Totals by model, tenant and GPUs (an index, or several joined): nested, so that no event needs a compound key. */
type Totals = Map<string, Map<string | null, Map<number | string, TokenTotals>>>

interface HostUsage {
  totals: Totals
  counts: EventCounts
  /** Counts of the newest events that are not in `counts` yet. */
  events: number
  requests: number
  prompt: number
  cached: number
  completion: number
}

type Hosts = Map<string | null, HostUsage>

export class MinuteTokenAggregator {
  readonly #ledger: Pick<LedgerStore, 'readReachingTokens'>
  readonly #documents: OrderedStream<LedgerToken>
  #hosts: Hosts = new Map()
  /** Parts of events of several minutes, by the start of their minute, up to `#partsToMs`. */
  #parts = new Map<number, Hosts>()
  #partsToMs = Number.NEGATIVE_INFINITY
  readonly #toMs: number

  /** Token usage of the whole minutes in [fromMs, toMs). */
  constructor(
    ledger: Pick<LedgerStore, 'readLedgerTokens' | 'readReachingTokens'>,
    { fromMs, toMs }: { fromMs: number; toMs: number },
  ) {
    this.#ledger = ledger
    this.#toMs = toMs
    this.#documents = new OrderedStream(ledger.readLedgerTokens(fromMs, toMs), ({ ts }) => ts.getTime())
  }

  /** Documents that were read. */
  get count(): number {
    return this.#documents.count
  }

  /** Aggregates the minute that starts at `startMs`, which is after the current one. */
  async moveTo(startMs: number): Promise<void> {
    if (startMs >= this.#partsToMs) await this.#readParts(startMs)
    this.#hosts = this.#parts.get(startMs) ?? new Map()
    this.#parts.delete(startMs)
    await this.#documents.take(startMs, startMs + CELL_MS, (event) => {
      if (reachMinutes(event) === 0) add(this.#hosts, event)
    })
  }

  get hosts(): Iterable<string | null> {
    return this.#hosts.keys()
  }

  totals(host: string | null): TokenTotals[] {
    const models = [...(this.#hosts.get(host)?.totals.values() ?? [])]
    return models.flatMap((tenants) => [...tenants.values()].flatMap((gpus) => [...gpus.values()]))
  }

  counts(host: string | null): EventCounts {
    const usage = this.#hosts.get(host)
    if (usage === undefined) return noCounts()
    carry(usage)
    return usage.counts
  }

  close(): Promise<void> {
    return this.#documents.close()
  }

  /** Reads the events of several minutes that are counted in the rest of the hour. */
  async #readParts(fromMs: number): Promise<void> {
    const toMs = Math.min(floorTo(HOUR_MS, fromMs) + HOUR_MS, this.#toMs)
    this.#parts = new Map()
    for await (const event of this.#ledger.readReachingTokens(fromMs, toMs)) {
      for (const part of partsOf(event)) {
        const startMs = floorTo(CELL_MS, part.ts.getTime())
        if (startMs >= fromMs && startMs < toMs) add(mapIn(this.#parts, startMs), part)
      }
    }
    this.#partsToMs = toMs
  }
}

function add(hosts: Hosts, event: LedgerToken): void {
  let usage = hosts.get(event.host)
  if (usage === undefined) {
    usage = { totals: new Map(), counts: noCounts(), events: 0, requests: 0, prompt: 0, cached: 0, completion: 0 }
    hosts.set(event.host, usage)
  }
  addTo(usage.totals, event)
  usage.events++
  usage.requests += event.requests ?? 1
  usage.prompt += event.prompt_tokens
  usage.cached += event.cached_prompt_tokens ?? 0
  usage.completion += event.completion_tokens
  // Counts of an event are at most 10⁹: a million of them stay below 2⁵³, and a BigInt for each would cost time.
  if (usage.events >= 1_000_000) carry(usage)
}

function carry(usage: HostUsage): void {
  usage.counts.requests += BigInt(usage.requests)
  usage.counts.prompt_tokens += BigInt(usage.prompt)
  usage.counts.cached_prompt_tokens += BigInt(usage.cached)
  usage.counts.completion_tokens += BigInt(usage.completion)
  usage.events = usage.requests = usage.prompt = usage.cached = usage.completion = 0
}

export function noCounts(): EventCounts {
  return { requests: 0n, prompt_tokens: 0n, cached_prompt_tokens: 0n, completion_tokens: 0n }
}

function addTo(totals: Totals, event: LedgerToken): void {
  const { model, tenant = null } = event
  const ofTenant = mapIn(mapIn(totals, model), tenant)
  const gpus = event.gpus === undefined ? event.gpu_index! : gpuIndexesOf(event).join()
  const group = ofTenant.get(gpus)
  if (group === undefined) ofTenant.set(gpus, totalsOfEvent(event))
  else addEvent(group, event)
}

/** The map under a key, created where there is none. */
function mapIn<K, L, V>(maps: Map<K, Map<L, V>>, key: K): Map<L, V> {
  let map = maps.get(key)
  if (map === undefined) {
    map = new Map()
    maps.set(key, map)
  }
  return map
}
