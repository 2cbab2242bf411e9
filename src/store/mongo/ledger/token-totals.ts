// Token usage grouped inside mongod. The cost depends on the number of accumulators and key fields (measured on 200,000
// documents, 10,000 groups: 1.5 µs to find and fetch one, 1.2 for its key, 0.35 for each sum). So there are three
// pipelines, the cheaper ones for the usual events: a slice of time goes to the cheapest first, its groups show whether
// that was sufficient, and if not the slice goes to the next. A slice is a minute, whose start then need not be in the
// key (0.5 to 2 µs); less where a minute takes the server more than about a second, more where there are very few
// events. Slices of a minute are merged here, and the few events that are counted in several minutes are added.

import { type Document, MongoServerError } from 'mongodb'
import { CELL_MS, floorTo, HOUR_MS } from '../../../domain/ledger/buckets.ts'
import type { TokenCounts } from '../../../domain/ledger/types.ts'
import { type TokenGroup, TokenGroups, toCount } from '../../token-groups.ts'
import { COLLECTION_OF_KIND } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { REACH } from '../events/reach.ts'
import { OWN_IDS } from '../reading/ordered-scan.ts'
import { readReachingTokens } from './reaching-tokens.ts'

/** The server's time for a slice from which slices become shorter, and the events that are too few for a round trip. */
const LONG_MS = 1_000
const FEW_EVENTS = 2_000
const GROWTH = 8
const MAX_TIME_MS_EXPIRED = 50
/** After events that needed a costlier pipeline, so many slices go straight to that one. */
const SLICES_AT_ONCE = 16

type Sum = number | bigint

interface GroupDocument {
  _id: {
    minute?: Date
    host: string | null
    gpu_index?: number
    gpus?: number[]
    model: string
    tenant?: string | null
    /** Where an event has it; not from the CAREFUL pipeline, which sums it. */
    requests?: number
  }
  events: Sum
  requests?: Sum
  prompt: Sum
  cached: Sum
  completion: Sum
  /** Sums of the remainders of division by the number of GPUs. */
  requests_mod?: Sum
  uncached_mod?: Sum
  cached_mod?: Sum
  completion_mod?: Sum
}

interface Slice {
  fromMs: number
  toMs: number
  hosts: readonly (string | null)[]
}

/** The operation `tokenTotals`, and what it remembers from one slice to the next. */
export class TokenTotalsReader {
  /** The pipeline to begin with, and for how many slices. */
  #pipeline = QUICK
  #slices = 0

  /** Token usage of a range by minute, host, GPUs, model and tenant. */
  readonly read = async (
    connection: MongoConnection,
    fromMs: number,
    toMs: number,
    hosts: readonly (string | null)[],
  ): Promise<TokenGroup[]> => {
    const groups = new TokenGroups()
    let lengthMs = CELL_MS
    for (let sliceMs = fromMs; sliceMs < toMs; ) {
      const minuteEndMs = lengthMs > CELL_MS ? toMs : floorTo(CELL_MS, sliceMs) + CELL_MS
      const slice = { fromMs: sliceMs, toMs: Math.min(sliceMs + lengthMs, minuteEndMs, toMs), hosts }
      const startedMs = performance.now()
      const stored = await this.#group(connection, slice)
      const tookMs = performance.now() - startedMs
      if (stored === null) {
        lengthMs = Math.ceil((slice.toMs - sliceMs) / GROWTH)
        continue
      }
      for (const group of stored) groups.add(toGroup(group, slice))
      sliceMs = slice.toMs
      const isFew = stored.reduce((sum, { events }) => sum + Number(events), 0) < FEW_EVENTS
      const growth = Math.min(GROWTH, LONG_MS / tookMs)
      lengthMs = Math.min(isFew ? HOUR_MS : CELL_MS, Math.ceil(lengthMs * growth))
    }
    for await (const events of readReachingTokens(connection, fromMs, toMs, hosts)) {
      for (const event of events) groups.addParts(event, fromMs, toMs)
    }
    return groups.list()
  }

  /** The groups of a slice; null when the server does not manage it within the limit of a query. */
  async #group(connection: MongoConnection, slice: Slice): Promise<GroupDocument[] | null> {
    try {
      if (this.#slices-- <= 0) this.#pipeline = QUICK
      for (;;) {
        const pipeline = this.#pipeline
        const groups = await aggregate(connection, slice, PIPELINES[pipeline]!)
        const needed = pipeline === CAREFUL ? CAREFUL : Math.max(pipeline, ...new Set(groups.map(neededFor)))
        if (needed === pipeline) return groups
        this.#pipeline = needed
        this.#slices = SLICES_AT_ONCE
      }
    } catch (error) {
      const isTooLong = error instanceof MongoServerError && error.code === MAX_TIME_MS_EXPIRED
      if (isTooLong && slice.toMs - slice.fromMs > 1) return null
      throw error
    }
  }
}

async function aggregate(
  connection: MongoConnection,
  { fromMs, toMs, hosts }: Slice,
  sums: { key: Document; values: Document },
): Promise<GroupDocument[]> {
  const isOneMinute = floorTo(CELL_MS, fromMs) === floorTo(CELL_MS, toMs - 1)
  const minute = isOneMinute ? {} : { minute: { $dateTrunc: { date: '$ts', unit: 'minute' } } }
  const pipeline = [
    {
      $match: {
        ...OWN_IDS,
        ts: { $gte: new Date(fromMs), $lt: new Date(toMs) },
        host: { $in: [...hosts] },
        [REACH]: null,
      },
    },
    { $group: { _id: { ...minute, ...KEY, ...sums.key }, ...sums.values } },
  ]
  const tokens = connection.db.collection(COLLECTION_OF_KIND.token)
  const options = { maxTimeMS: connection.queryTimeMs, allowDiskUse: true, batchSize: 20_000 }
  return await tokens.aggregate<GroupDocument>(pipeline, { ...options, useBigInt64: true }).toArray()
}

const KEY = { host: '$host', gpu_index: '$gpu_index', gpus: '$gpus', model: '$model', tenant: '$tenant' }

const REQUESTS = { $ifNull: ['$requests', 1] }
const CACHED = { $ifNull: ['$cached_prompt_tokens', 0] }
/** A long is exact up to 2⁶³; without $toLong, one count that BSON has as a double makes the whole sum a double. */
const longOf = (count: unknown) => ({ $sum: { $toLong: count } })
/** Σ floor(count / n) is (Σ count − Σ (count mod n)) / n, and the modulus stays within integers. */
const modOf = (count: unknown) => ({
  $sum: { $cond: [{ $isArray: '$gpus' }, { $mod: [count, { $size: '$gpus' }] }, 0] },
})

const SUMS = {
  events: { $sum: 1 },
  prompt: { $sum: '$prompt_tokens' },
  cached: { $sum: '$cached_prompt_tokens' },
  completion: { $sum: '$completion_tokens' },
}
const MODS = {
  uncached_mod: modOf({ $subtract: ['$prompt_tokens', CACHED] }),
  cached_mod: modOf(CACHED),
  completion_mod: modOf('$completion_tokens'),
}

/** One GPU and one request an event: `requests` in the key reveals events that have it, and costs nothing otherwise. */
const QUICK = 0
/** One request an event, on any number of GPUs. */
const SPREAD = 1
/** Any events, and sums up to 2⁶³. */
const CAREFUL = 2
const PIPELINES: readonly { key: Document; values: Document }[] = [
  { key: { requests: '$requests' }, values: SUMS },
  { key: { requests: '$requests' }, values: { ...SUMS, ...MODS } },
  {
    key: {},
    values: {
      events: { $sum: { $cond: [{ $gt: [{ $add: ['$prompt_tokens', '$completion_tokens', REQUESTS] }, 0] }, 1, 0] } },
      requests: longOf(REQUESTS),
      prompt: longOf('$prompt_tokens'),
      cached: longOf('$cached_prompt_tokens'),
      completion: longOf('$completion_tokens'),
      requests_mod: modOf(REQUESTS),
      ...MODS,
    },
  },
]

/** The cheapest pipeline that is exact for such a group; a number that is no bigint may be a rounded double. */
function neededFor({ _id, prompt, cached, completion }: GroupDocument): number {
  const isExact = [prompt, cached, completion].every((sum) => typeof sum === 'bigint' || Number.isSafeInteger(sum))
  if (_id.requests !== undefined || !isExact) return CAREFUL
  return _id.gpus !== undefined && _id.gpus.length > 1 ? SPREAD : QUICK
}

function toGroup({ _id, ...sums }: GroupDocument, { fromMs }: Slice): TokenGroup {
  const { host, gpu_index, model, tenant = null } = _id
  const gpus = (_id.gpus ?? [gpu_index]).map(Number)
  const cached = BigInt(sums.cached)
  const sum: Record<keyof TokenCounts, bigint> = {
    // Where requests were not summed, every event is one.
    requests: BigInt(sums.requests ?? sums.events),
    uncached_prompt_tokens: BigInt(sums.prompt) - cached,
    cached_prompt_tokens: cached,
    completion_tokens: BigInt(sums.completion),
  }
  const n = BigInt(gpus.length)
  const eachOf = (field: keyof TokenCounts, mod: Sum = 0) => toCount((sum[field] - BigInt(mod)) / n)
  return {
    startMs: _id.minute?.getTime() ?? floorTo(CELL_MS, fromMs),
    host,
    gpus,
    model,
    tenant,
    events: toCount(sums.events),
    sum: {
      requests: toCount(sum.requests),
      uncached_prompt_tokens: toCount(sum.uncached_prompt_tokens),
      cached_prompt_tokens: toCount(sum.cached_prompt_tokens),
      completion_tokens: toCount(sum.completion_tokens),
    },
    each: {
      // One request on several GPUs leaves a remainder of one each time.
      requests: eachOf('requests', sums.requests_mod ?? (n > 1n ? sums.events : 0)),
      uncached_prompt_tokens: eachOf('uncached_prompt_tokens', sums.uncached_mod),
      cached_prompt_tokens: eachOf('cached_prompt_tokens', sums.cached_mod),
      completion_tokens: eachOf('completion_tokens', sums.completion_mod),
    },
  }
}
