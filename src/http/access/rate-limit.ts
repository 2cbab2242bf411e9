// Limits on how much one caller may ask for, so that none can take the process from the others. A caller is a token, or,
// for requests without a good one, an address; each has token buckets for requests, for posted events and for failed
// authentications, of which each holds BURST_S seconds of its rate. What is spent may overdraw a bucket: then
// nothing more is taken until the debt is paid, so that the rate holds whatever the size of a single post.
//
// Memory is bounded: a token's allowance lives as long as the token; addresses are remembered up to MAX_ADDRESSES. One whose
// buckets are full again is as good as unknown and forgotten first; when there is none of these among the longest unseen,
// further addresses share one allowance, and those that are known keep theirs.

export interface RateLimits {
  /** Requests a second of one caller; 0: no limit. */
  requestsPerS: number
  /** Posted events a second of one caller; 0: no limit. */
  eventsPerS: number
}

/** How many seconds' worth a bucket holds. */
const BURST_S = 2
/** Failed authentications of one address: a second, and at once. */
const FAILURES_PER_S = 1
const FAILURE_BURST = 20
/** Most addresses that are remembered. */
const MAX_ADDRESSES = 10_000
/** How many of the longest unseen are looked at for one that can be forgotten. */
const FORGET_LOOKS = 8
/** Stands for "no limit": more than anybody sends, and its products are exact enough. */
const BOUNDLESS = 1e12

/** A token bucket. Times are epoch milliseconds; a clock that steps back adds nothing. */
export class Bucket {
  readonly #perMs: number
  readonly #capacity: number
  #level: number
  #atMs = Number.NEGATIVE_INFINITY

  constructor(perS: number, capacity: number) {
    this.#perMs = perS / 1000
    this.#capacity = capacity
    this.#level = capacity
  }

  /** How long until it has something again, milliseconds; 0 when it has. */
  waitMs(nowMs: number): number {
    this.#fill(nowMs)
    return this.#level > 0 ? 0 : Math.max(1, -this.#level / this.#perMs)
  }

  /** Takes so much, also more than there is. */
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
  requests: Bucket
  events: Bucket
  failures: Bucket
  /** Posts of this caller that are worked on. */
  openPosts: number
}

export class RateLimiter {
  readonly #limits: RateLimits
  readonly #tokens = new WeakMap<object, Allowance>()
  /** By network; those seen last stand last. */
  readonly #addresses = new Map<string, Allowance>()
  readonly #strangers: Allowance

  constructor(limits: RateLimits) {
    this.#limits = limits
    this.#strangers = this.#newAllowance()
  }

  /** The allowance of a token: a new object begins anew. */
  ofToken(token: object): Allowance {
    const known = this.#tokens.get(token)
    if (known !== undefined) return known
    const allowance = this.#newAllowance()
    this.#tokens.set(token, allowance)
    return allowance
  }

  /** The allowance of an address: of its /64 network where it is an IPv6 address, for that is what one customer gets. */
  ofAddress(address: string, nowMs: number): Allowance {
    const network = networkOf(address)
    let allowance = this.#addresses.get(network)
    if (allowance === undefined) {
      if (this.#addresses.size >= MAX_ADDRESSES && !this.#forgetOne(nowMs)) return this.#strangers
      allowance = this.#newAllowance()
    } else this.#addresses.delete(network)
    this.#addresses.set(network, allowance)
    return allowance
  }

  /** How many addresses are remembered. */
  get remembered(): number {
    return this.#addresses.size
  }

  #forgetOne(nowMs: number): boolean {
    let looks = FORGET_LOOKS
    for (const [network, allowance] of this.#addresses) {
      this.#addresses.delete(network)
      if (allowance.requests.isFull(nowMs) && allowance.failures.isFull(nowMs)) return true
      // Behind the others, so that one that is long in debt does not hide those that can be forgotten.
      this.#addresses.set(network, allowance)
      if (--looks === 0) return false
    }
    return false
  }

  #newAllowance(): Allowance {
    const { requestsPerS, eventsPerS } = this.#limits
    const bucket = (perS: number) => (perS === 0 ? new Bucket(BOUNDLESS, BOUNDLESS) : new Bucket(perS, perS * BURST_S))
    return {
      requests: bucket(requestsPerS),
      events: bucket(eventsPerS),
      failures: new Bucket(FAILURES_PER_S, FAILURE_BURST),
      openPosts: 0,
    }
  }
}

/** An IPv4 address as it is, of an IPv6 address the first 64 bits. */
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
