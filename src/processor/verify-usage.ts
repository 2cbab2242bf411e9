// Token usage of single documents, minute by minute: what `verify` sets against the store's own grouping. Each event is
// turned into its totals by itself and added up here, so a fault of a store's grouping cannot hide. Documents come in order of
// time; a minute's groups are held and forgotten, never its events.

import { CELL_MS } from '../domain/cells.ts'
import type { LedgerToken, TokenCounts, TokenTotals } from '../domain/ledger-types.ts'
import { totalsOfEvent } from '../domain/token-totals.ts'

/** Counts of the documents themselves, for a check that goes round all ledger code. */
export interface PlainCounts {
  requests: bigint
  prompt_tokens: bigint
  cached_prompt_tokens: bigint
  completion_tokens: bigint
}

interface HostUsage {
  totals: Map<string, TokenTotals>
  counts: PlainCounts
  /** Counts of the newest events that are not in `counts` yet. */
  events: number
  requests: number
  prompt: number
  cached: number
  completion: number
}

const COUNT_FIELDS = ['requests', 'uncached_prompt_tokens', 'cached_prompt_tokens', 'completion_tokens'] as const

export class UsageOfMinutes {
  /** Documents that were read. */
  read = 0
  readonly #documents: AsyncIterator<LedgerToken>
  #hosts = new Map<string | null, HostUsage>()
  #next: LedgerToken | null = null
  #isDone = false

  /** `documents` in order of time. */
  constructor(documents: AsyncIterable<LedgerToken>) {
    this.#documents = documents[Symbol.asyncIterator]()
  }

  /** Takes in the minute that starts at `startMs`, which is after the one before. */
  async moveTo(startMs: number): Promise<void> {
    this.#hosts = new Map()
    while (!this.#isDone) {
      if (this.#next === null) {
        const { done, value } = await this.#documents.next()
        if (done === true) {
          this.#isDone = true
          return
        }
        this.read++
        this.#next = value as LedgerToken
      }
      const tsMs = this.#next.ts.getTime()
      if (tsMs >= startMs + CELL_MS) return
      if (tsMs >= startMs) this.#add(this.#next)
      this.#next = null
    }
  }

  get hosts(): Iterable<string | null> {
    return this.#hosts.keys()
  }

  totals(host: string | null): TokenTotals[] {
    return [...(this.#hosts.get(host)?.totals.values() ?? [])]
  }

  counts(host: string | null): PlainCounts {
    const usage = this.#hosts.get(host)
    if (usage === undefined) return noCounts()
    carry(usage)
    return usage.counts
  }

  async close(): Promise<void> {
    this.#isDone = true
    await this.#documents.return?.()
  }

  #add(event: LedgerToken): void {
    let usage = this.#hosts.get(event.host)
    if (usage === undefined) {
      usage = { totals: new Map(), counts: noCounts(), events: 0, requests: 0, prompt: 0, cached: 0, completion: 0 }
      this.#hosts.set(event.host, usage)
    }
    const one = totalsOfEvent(event)
    // The length tells where the model ends and the tenant begins.
    const key = `${one.gpus.join()} ${one.model.length} ${one.model}${one.tenant === null ? '' : ` ${one.tenant}`}`
    const sum = usage.totals.get(key)
    if (sum === undefined) usage.totals.set(key, one)
    else addTotals(sum, one)
    usage.events++
    usage.requests += event.requests ?? 1
    usage.prompt += event.prompt_tokens
    usage.cached += event.cached_prompt_tokens ?? 0
    usage.completion += event.completion_tokens
    // Counts of an event are at most 10⁹: a million of them stay below 2⁵³, and BigInt for each would cost time.
    if (usage.events >= 1_000_000) carry(usage)
  }
}

function carry(usage: HostUsage): void {
  usage.counts.requests += BigInt(usage.requests)
  usage.counts.prompt_tokens += BigInt(usage.prompt)
  usage.counts.cached_prompt_tokens += BigInt(usage.cached)
  usage.counts.completion_tokens += BigInt(usage.completion)
  usage.events = usage.requests = usage.prompt = usage.cached = usage.completion = 0
}

export function noCounts(): PlainCounts {
  return { requests: 0n, prompt_tokens: 0n, cached_prompt_tokens: 0n, completion_tokens: 0n }
}

function addTotals(into: TokenTotals, from: TokenTotals): void {
  into.events = add(into.events, from.events)
  for (const field of COUNT_FIELDS) addCount(into.sum, from.sum, field)
  for (const field of COUNT_FIELDS) addCount(into.each, from.each, field)
}

function addCount(into: TokenCounts, from: TokenCounts, field: (typeof COUNT_FIELDS)[number]): void {
  into[field] = add(into[field], from[field])
}

/** Numbers while they are exact, BigInt beyond. */
function add(a: number | bigint, b: number | bigint): number | bigint {
  if (typeof a === 'number' && typeof b === 'number' && Number.isSafeInteger(a + b)) return a + b
  return BigInt(a) + BigInt(b)
}
