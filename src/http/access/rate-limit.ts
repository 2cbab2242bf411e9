// Limits on how much one caller may request, so that none can starve the others. A caller is an API token, or, for
// requests without a valid one, an address; each has a token bucket for requests and one for posted events, which hold
// BURST_S seconds of their rate. Spending may overdraw a bucket: then nothing more is accepted until the debt is paid,
// so that the rate holds whatever the size of a single post.
//
// Memory is bounded: a token's allowance lives as long as the token; at most MAX_ADDRESSES addresses are kept. One
// whose buckets are full again carries no state and is evicted first; when there is none of these among the least
// recently seen, further addresses share one allowance, and those that are known keep theirs.

export interface RateLimits {
  /** Requests a second of one caller; 0: no limit. */
  requestsPerS: number
  /** Posted events a second of one caller; 0: no limit. */
  eventsPerS: number
}

/** How many seconds of its rate a bucket holds. */
const BURST_S = 2
/** Most addresses that are kept. */
const MAX_ADDRESSES = 10_000
/** How many of the least recently seen addresses are examined for one that can be evicted. */
const EVICTION_SCAN = 8
/** Stands for "no limit": more than any client sends, and its products are exact enough. */
const UNLIMITED = 1e12

/** A token bucket. Times are epoch milliseconds; a clock that steps back adds nothing. */
export class TokenBucket {
  readonly #perMs: number
  readonly #capacity: number
  #level: number
  #atMs = Number.NEGATIVE_INFINITY

  constructor(perS: number, capacity: number) {
    this.#perMs = perS / 1000
    this.#capacity = capacity
    this.#level = capacity
  }

  /** Time until the bucket has something left, milliseconds; 0 when it has. */
  waitMs(nowMs: number): number {
    this.#fill(nowMs)
    return this.#level > 0 ? 0 : Math.max(1, -this.#level / this.#perMs)
  }

  /** Takes an amount, also more than is left. */
  spend(amount: number, nowMs: number): void {
    this.#fill(nowMs)
    this.#level -= amount
  }

  isFull(nowMs: number): boolean {
    this.#fill(nowMs)
    return this.#level === this.#capacity
  }

  #fill(nowMs: number): void {
    const elapsedMs = nowMs - this.#atMs
    if (elapsedMs > 0) this.#level = Math.min(this.#capacity, this.#level + elapsedMs * this.#perMs)
    this.#atMs = nowMs
  }
}

/** What one caller may do. */
export interface Allowance {
  requests: TokenBucket
  events: TokenBucket
  /** Posts of this caller that are in progress. */
  openPosts: number
}

export class RateLimiter {
  readonly #limits: RateLimits
  readonly #tokens = new WeakMap<object, Allowance>()
  /** By network, least recently seen first. */
  readonly #addresses = new Map<string, Allowance>()
  /** Of addresses that there is no room for. */
  readonly #shared: Allowance

  constructor(limits: RateLimits) {
    this.#limits = limits
    this.#shared = this.#newAllowance()
  }

  /** The allowance of a token, by identity: a new object has a new allowance. */
  ofToken(token: object): Allowance {
    const known = this.#tokens.get(token)
    if (known !== undefined) return known
    const allowance = this.#newAllowance()
    this.#tokens.set(token, allowance)
    return allowance
  }

  /** The allowance of an address: of its /64 network where it is an IPv6 address, since one customer gets a /64. */
  ofAddress(address: string, nowMs: number): Allowance {
    const network = networkOf(address)
    let allowance = this.#addresses.get(network)
    if (allowance === undefined) {
      if (this.#addresses.size >= MAX_ADDRESSES && !this.#evictOne(nowMs)) return this.#shared
      allowance = this.#newAllowance()
    } else this.#addresses.delete(network)
    this.#addresses.set(network, allowance)
    return allowance
  }

  /** Number of addresses that are kept. */
  get remembered(): number {
    return this.#addresses.size
  }

  #evictOne(nowMs: number): boolean {
    let left = EVICTION_SCAN
    for (const [network, allowance] of this.#addresses) {
      this.#addresses.delete(network)
      if (allowance.requests.isFull(nowMs)) return true
      // Behind the others, so that one that is long in debt does not hide those that can be evicted.
      this.#addresses.set(network, allowance)
      if (--left === 0) return false
    }
    return false
  }

  #newAllowance(): Allowance {
    const { requestsPerS, eventsPerS } = this.#limits
    const bucket = (perS: number) =>
      perS === 0 ? new TokenBucket(UNLIMITED, UNLIMITED) : new TokenBucket(perS, perS * BURST_S)
    return { requests: bucket(requestsPerS), events: bucket(eventsPerS), openPosts: 0 }
  }
}

/** An IPv4 address unchanged; of an IPv6 address the first 64 bits. */
export function networkOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)
  if (mapped !== null) return mapped[1]!
  if (!address.includes(':')) return address
  const [head = '', tail = ''] = address.split('%', 1)[0]!.split('::')
  const groupsOf = (part: string) => (part === '' ? [] : part.split(':'))
  const missing = 8 - groupsOf(head).length - groupsOf(tail).length
  const groups = [...groupsOf(head), ...Array<string>(Math.max(0, missing)).fill('0'), ...groupsOf(tail)]
  return `${groups.slice(0, 4).join(':')}::/64`
}
