// Groups of token usage as both stores return them to the ledger. A database returns a group in pieces: a long range is
// read in steps, and for MongoDB [0,1] and [1,0] are different sets of GPUs. Here equal keys are merged, with `gpus`
// ascending, so two stores with the same events return the same groups. Sums are exact: BigInt where needed.

import { CELL_MS, floorTo } from '../domain/ledger/buckets.ts'
import { partsOf } from '../domain/ledger/token-parts.ts'
import { totalsOfEvent } from '../domain/ledger/token-totals.ts'
import type { Count, LedgerToken, TokenCounts, TokenTotals } from '../domain/ledger/types.ts'

/** Token usage of one minute, host, set of GPUs, model and tenant. */
export type TokenGroup = TokenTotals & { startMs: number; host: string | null }

export class TokenGroups {
  readonly #groups = new Map<string, TokenGroup>()

  /** Adds a group, or a piece of one. */
  add(piece: TokenGroup): void {
    const gpus = piece.gpus.length > 1 ? piece.gpus.toSorted((a, b) => a - b) : piece.gpus
    const key = JSON.stringify([piece.startMs, piece.host, gpus, piece.model, piece.tenant])
    const group = this.#groups.get(key)
    this.#groups.set(key, group === undefined ? { ...piece, gpus } : merged(group, piece))
  }

  /** Adds those parts of an event that begin in [fromMs, toMs). */
  addParts(event: LedgerToken, fromMs: number, toMs: number): void {
    for (const part of partsOf(event)) {
      const atMs = part.ts.getTime()
      if (atMs < fromMs || atMs >= toMs) continue
      this.add({ ...totalsOfEvent(part), startMs: floorTo(CELL_MS, atMs), host: part.host })
    }
  }

  /** All groups, each once, in no particular order. */
  list(): TokenGroup[] {
    return [...this.#groups.values()]
  }
}

function merged(group: TokenGroup, piece: TokenGroup): TokenGroup {
  return {
    ...group,
    events: plus(group.events, piece.events),
    sum: plusCounts(group.sum, piece.sum),
    each: plusCounts(group.each, piece.each),
  }
}

function plusCounts(a: TokenCounts, b: TokenCounts): TokenCounts {
  return {
    requests: plus(a.requests, b.requests),
    uncached_prompt_tokens: plus(a.uncached_prompt_tokens, b.uncached_prompt_tokens),
    cached_prompt_tokens: plus(a.cached_prompt_tokens, b.cached_prompt_tokens),
    completion_tokens: plus(a.completion_tokens, b.completion_tokens),
  }
}

function plus(a: Count, b: Count): Count {
  return toCount(BigInt(a) + BigInt(b))
}

/** A sum from a database: a number where that is exact, so that equal counts have the same form. */
export function toCount(value: bigint | number): Count {
  const number = Number(value)
  if (Number.isSafeInteger(number)) return number
  return BigInt(value)
}
