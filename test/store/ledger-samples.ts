// Events, rows and buckets for the ledger store's contract, and the reference grouping that the stores' is compared
// with: totalsOfEvent of every event, added up one by one in BigInt.

import type { GpuDocument, TokenDocument } from '../../src/domain/events/event.ts'
import { ownEventId } from '../../src/domain/events/event-id.ts'
import { noAmounts } from '../../src/domain/ledger/rows.ts'
import { partsOf } from '../../src/domain/ledger/token-parts.ts'
import { totalsOfEvent } from '../../src/domain/ledger/token-totals.ts'
import type { CellRow, TokenCounts } from '../../src/domain/ledger/types.ts'
import type { LedgerBucket, LedgerStore } from '../../src/store/ledger-store.ts'

/** The instant that everything lies around: the start of a minute and of an hour. */
export const T0 = Date.UTC(2026, 5, 1, 12)
const MINUTE_MS = 60_000

type Totals = Awaited<ReturnType<LedgerStore['tokenTotals']>>[number]
type BigCounts = Record<keyof TokenCounts, bigint>

/** A group with all counts as BigInt, so that two can be compared. */
export interface BigTotals {
  key: string
  events: bigint
  sum: BigCounts
  each: BigCounts
}

/** Groups in one order and form, equal keys added up. */
export function inOneForm(totals: readonly Totals[]): BigTotals[] {
  const groups = new Map<string, BigTotals>()
  for (const { startMs, host, gpus, model, tenant, events, sum, each } of totals) {
    const key = JSON.stringify([startMs, host, gpus.toSorted((a, b) => a - b), model, tenant])
    const group = groups.get(key) ?? { key, events: 0n, sum: noCounts(), each: noCounts() }
    groups.set(key, group)
    group.events += BigInt(events)
    for (const field of Object.keys(group.sum) as (keyof TokenCounts)[]) {
      group.sum[field] += BigInt(sum[field])
      group.each[field] += BigInt(each[field])
    }
  }
  return [...groups.values()].sort((a, b) => (a.key < b.key ? -1 : 1))
}

/** The same from single events. */
export function expectedTotals(
  tokens: readonly TokenDocument[],
  { fromMs, toMs, hosts }: { fromMs: number; toMs: number; hosts: readonly (string | null)[] },
): BigTotals[] {
  const chosen = tokens.flatMap(partsOf).filter(({ ts, host }) => {
    const ms = ts.getTime()
    return ms >= fromMs && ms < toMs && hosts.includes(host)
  })
  return inOneForm(
    chosen.map((event) => {
      const startMs = Math.floor(event.ts.getTime() / 60_000) * 60_000
      return { ...totalsOfEvent(event), startMs, host: event.host }
    }),
  )
}

/** Hosts of the generated token events. */
export const TOKEN_HOSTS = [null, 'h1', 'h2', 'null']

/** Token events of every kind, over so long a time; the same ones for the same numbers. */
export function generatedTokens(count: number, lengthMs: number): TokenDocument[] {
  const pick = randomPicks(20_260_601)
  return Array.from({ length: count }, (_, i) => {
    const gpus = pick(4) === 0 ? { gpus: GPU_SETS[pick(GPU_SETS.length)]! } : {}
    const index = 'gpus' in gpus && pick(2) === 0 ? {} : { gpu_index: pick(4) }
    const isBig = pick(10) === 0
    const prompt = isBig ? 1_000_000_000 - pick(9) : pick(3) * pick(1000)
    const fields: Partial<TokenDocument> = {
      host: TOKEN_HOSTS[pick(4)]!,
      model: ['m1', 'm2', 'M1', 'm.3'][pick(4)]!,
      prompt_tokens: prompt,
      completion_tokens: isBig ? 1_000_000_000 : pick(2) * pick(500),
      ...gpus,
      ...(pick(3) === 0 ? { cached_prompt_tokens: pick(prompt + 1) } : {}),
      ...(pick(5) === 0 ? { requests: pick(4) } : {}),
      ...(pick(3) === 0 ? {} : { tenant: ['a', 'b', 'null'][pick(3)]! }),
      ...(pick(4) === 0 ? { interval_s: INTERVALS_S[pick(INTERVALS_S.length)]! } : {}),
    }
    const plain = without(token(`g${i}`, pick(lengthMs)), 'gpu_index', 'tenant')
    return { ...plain, ...fields, ...index }
  })
}

const INTERVALS_S = [0, 0.25, 5, 60, 61.5, 300, 1799.999, 3600]
const GPU_SETS = [[0], [3], [0, 1], [1, 0], [0, 1, 2], [2, 0, 1], [0, 1, 2, 3, 4, 5, 6, 7], [1023, 5]]

/** Whole numbers below a limit, from a fixed seed (xorshift32). */
function randomPicks(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % limit
  }
}

function noCounts(): BigCounts {
  return { requests: 0n, uncached_prompt_tokens: 0n, cached_prompt_tokens: 0n, completion_tokens: 0n }
}

export function ownId(id: string): string {
  return ownEventId('h1', id)
}

export function sample(id: string, afterT0Ms: number, fields: Partial<GpuDocument> = {}): GpuDocument {
  return { _id: ownId(id), ts: new Date(T0 + afterT0Ms), host: 'h1', gpu_index: 0, utilization: 0.5, ...fields }
}

export function token(id: string, afterT0Ms: number, fields: Partial<TokenDocument> = {}): TokenDocument {
  return {
    _id: ownId(id),
    ts: new Date(T0 + afterT0Ms),
    host: 'h1',
    model: 'llama-3-8b',
    gpu_index: 0,
    tenant: 'acme',
    prompt_tokens: 100,
    completion_tokens: 20,
    cost_per_token: 1.23e-7,
    tokens_per_second: 41.25,
    price_per_hour_usd: 0.85,
    window_s: 30,
    ...fields,
  }
}

/** The event without these fields. */
export function without(event: TokenDocument, ...names: (keyof TokenDocument)[]): TokenDocument {
  return Object.fromEntries(
    Object.entries(event).filter(([name]) => !names.includes(name as never)),
  ) as unknown as TokenDocument
}

export function row(fields: Partial<CellRow> = {}): CellRow {
  return {
    gpu_index: 0,
    gpu_uuid: 'GPU-1',
    gpu_name: 'NVIDIA H100 80GB HBM3',
    model: 'llama-3-8b',
    tenant: 'acme',
    price_kind: 'on-demand',
    ...noAmounts(),
    requests: 3n,
    prompt_tokens: 1000n,
    completion_tokens: 200n,
    covered_ms: 60_000n,
    busy_nano_usd: 14_166_667n,
    energy_mj: 18_000_000n,
    basis: 'measured',
    method: 'weighted-tokens',
    ...fields,
  }
}

export function bucket(fields: Partial<LedgerBucket> = {}): LedgerBucket {
  return {
    level: 'minute',
    startMs: T0,
    host: 'h1',
    rev: 0,
    bookVersions: [1],
    rows: [],
    totals: null,
    capped: 0,
    computedMs: T0 + 120_000,
    ...fields,
  }
}

/** Events of a store that an older version wrote, and the minutes whose cells are to be computed for it. */
export const OLDER_TOKENS = [
  token('instant', 0),
  token('short', 30_000, { interval_s: 5 }),
  token('edge', 5 * MINUTE_MS, { interval_s: 5 }),
  token('half', 40 * MINUTE_MS + 1, { interval_s: 1800, host: null }),
  token('day', 2 * MINUTE_MS, { interval_s: 86_400 }),
]
export const OLDER_MARKS = [
  ...[4, 5].map((minute) => `${minute} h1`),
  ...Array.from({ length: 31 }, (_, i) => `${10 + i} null`),
]

/** The marked minutes of the hours around T0, sorted. */
export async function markedMinutes(ledger: LedgerStore): Promise<string[]> {
  const marked: string[] = []
  for (let minute = -60; minute < 60; minute++) {
    for (const { hosts } of await ledger.readMarks('minute', T0 + minute * MINUTE_MS)) {
      for (const host of hosts) marked.push(`${minute} ${host}`)
    }
  }
  return marked.sort()
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}
