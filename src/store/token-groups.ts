// Groups of token usage as both stores give them to the ledger. A database gives a group in parts: a long range is read
// in steps, and MongoDB takes [0,1] and [1,0] for different sets of GPUs. Here equal keys are one group again, with
// `gpus` ascending, so that two stores with the same events give the same groups. Sums are exact: BigInt where needed.

import type { Count, TokenCounts, TokenTotals } from '../domain/ledger/types.ts'

/** Token usage of one minute, host, set of GPUs, model and tenant. */
export type TokenGroup = TokenTotals & { startMs: number; host: string | null }

export class TokenGroups {
  readonly #groups = new Map<string, TokenGroup>()

  /** Takes over a group, or a part of one. */
  add(part: TokenGroup): void {
    const gpus = part.gpus.length > 1 ? part.gpus.toSorted((a, b) => a - b) : part.gpus
    const key = JSON.stringify([part.startMs, part.host, gpus, part.model, part.tenant])
    const group = this.#groups.get(key)
    this.#groups.set(key, group === undefined ? { ...part, gpus } : sumOf(group, part))
  }

  /** All groups, each once, in no particular order. */
  list(): TokenGroup[] {
    return [...this.#groups.values()]
  }
}

function sumOf(group: TokenGroup, part: TokenGroup): TokenGroup {
  return {
    ...group,
    events: plus(group.events, part.events),
    sum: plusCounts(group.sum, part.sum),
    each: plusCounts(group.each, part.each),
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

/** A sum of a database: a number where that is exact, so that a count has one form however it came. */
export function toCount(value: bigint | number): Count {
  const number = Number(value)
  if (Number.isSafeInteger(number)) return number
  return BigInt(value)
}
