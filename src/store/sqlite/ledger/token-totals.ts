// Token usage grouped by SQLite. A statement blocks the event loop, so grouping passes a range in steps of a bounded
// number of events; the groups of a minute that several steps contribute to are merged here. Sums are read as BigInt,
// since a double holds them only up to 2⁵³. Events of several minutes are read one by one and cut at the minutes.

import { setImmediate as afterImmediate } from 'node:timers/promises'
import { CELL_MS } from '../../../domain/ledger/buckets.ts'
import type { TokenCounts } from '../../../domain/ledger/types.ts'
import { type TokenGroup, TokenGroups, toCount } from '../../token-groups.ts'
import type { StoreDatabase } from '../store-database.ts'
import { readReachingTokens } from './cell-events.ts'

/** Events that one statement groups, about 10 ms. */
const STEP_EVENTS = 8_000

interface GroupRow {
  minute: bigint
  host: string | null
  gpu_index: bigint | null
  gpus: string | null
  model: string
  tenant: string | null
  events: bigint
  requests: bigint
  prompt: bigint
  cached: bigint
  completion: bigint
  each_requests: bigint
  each_uncached: bigint
  each_cached: bigint
  each_completion: bigint
}

/** One GPU needs no second sum: its share is the whole. `gpus` is JSON, and constant within a group. */
const eachOf = (count: string) => `sum(CASE WHEN gpus IS NULL THEN 0 ELSE (${count}) / json_array_length(gpus) END)`
/** Null is never IN a list; the list is one parameter, whatever its length. */
const GROUP = `SELECT ts / ${CELL_MS} AS minute, host, gpu_index, gpus, model, tenant,
    sum(prompt_tokens + completion_tokens + requests > 0) AS events,
    sum(requests) AS requests, sum(prompt_tokens) AS prompt, sum(cached_prompt_tokens) AS cached,
    sum(completion_tokens) AS completion,
    ${eachOf('requests')} AS each_requests,
    ${eachOf('prompt_tokens - cached_prompt_tokens')} AS each_uncached,
    ${eachOf('cached_prompt_tokens')} AS each_cached,
    ${eachOf('completion_tokens')} AS each_completion
  FROM token_usage INDEXED BY token_usage_ts WHERE ts >= ? AND ts < ? AND reach = 0
    AND (host IN (SELECT value FROM json_each(?)) OR (? AND host IS NULL))
  GROUP BY ts / ${CELL_MS}, gpu_index, tenant, model, host, gpus`
const STEP_END = `SELECT ts FROM token_usage INDEXED BY token_usage_ts WHERE ts >= ? AND ts < ?
  ORDER BY ts LIMIT 1 OFFSET ${STEP_EVENTS}`

/** Token usage of a range by minute, host, GPUs, model and tenant. */
export async function tokenTotals(
  file: StoreDatabase,
  fromMs: number,
  toMs: number,
  hosts: readonly (string | null)[],
): Promise<TokenGroup[]> {
  const groups = new TokenGroups()
  const values = [JSON.stringify(hosts), hosts.includes(null) ? 1 : 0]
  for (let startMs = fromMs; startMs < toMs; ) {
    startMs = file.use('Summing token usage failed', () => {
      const end = file.get<{ ts: number }>(STEP_END, startMs, toMs)?.ts ?? toMs
      // A step ends between two times; however many events have the same time, they are one step.
      const stepEnd = Math.min(Math.max(end, startMs + 1), toMs)
      const statement = file.statement(GROUP)
      statement.setReadBigInts(true)
      for (const row of statement.all(startMs, stepEnd, ...values)) groups.add(toGroup(row as unknown as GroupRow))
      return stepEnd
    })
    if (startMs < toMs) await afterImmediate()
  }
  const wanted = new Set(hosts)
  for await (const events of readReachingTokens(file, fromMs, toMs)) {
    for (const event of events) if (wanted.has(event.host)) groups.addParts(event, fromMs, toMs)
  }
  return groups.list()
}

function toGroup(row: GroupRow): TokenGroup {
  const sum: TokenCounts = {
    requests: toCount(row.requests),
    uncached_prompt_tokens: toCount(row.prompt - row.cached),
    cached_prompt_tokens: toCount(row.cached),
    completion_tokens: toCount(row.completion),
  }
  const gpus: number[] = row.gpus === null ? [Number(row.gpu_index)] : JSON.parse(row.gpus)
  const each: TokenCounts =
    gpus.length === 1
      ? { ...sum }
      : {
          requests: toCount(row.each_requests),
          uncached_prompt_tokens: toCount(row.each_uncached),
          cached_prompt_tokens: toCount(row.each_cached),
          completion_tokens: toCount(row.each_completion),
        }
  const { host, model, tenant } = row
  return { startMs: Number(row.minute) * CELL_MS, host, gpus, model, tenant, events: toCount(row.events), sum, each }
}
