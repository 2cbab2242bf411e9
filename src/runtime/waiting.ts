// Waiting with a bound: for a promise, after a failure, and for another part of the process. What hangs (a driver, a
// broker) must not hold up the end of the process: each wait clears its own timer, so none keeps the process alive.

/** Whether the promise settles within the limit; a rejection counts as settled. */
export async function settlesWithin(limitMs: number, promise: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, limitMs, false)
  })
  const settled = promise.then(
    () => true,
    () => true,
  )
  try {
    return await Promise.race([settled, limit])
  } finally {
    clearTimeout(timer)
  }
}

/** The promise's value; null as soon as the signal aborts. What the promise does after that is ignored. */
export async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | null> {
  let onAbort = () => {}
  const aborted = new Promise<null>((resolve) => {
    onAbort = () => resolve(null)
    if (signal.aborted) resolve(null)
    else signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    return await Promise.race([aborted, promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
    promise.catch(() => {})
  }
}

/** Pauses that double from `firstMs` to `maxMs`, with 20 % of jitter so that members do not retry in step. */
export class Backoff {
  readonly #firstMs: number
  readonly #maxMs: number
  failures = 0

  constructor(firstMs: number, maxMs: number) {
    this.#firstMs = firstMs
    this.#maxMs = maxMs
  }

  next(): number {
    const pauseMs = Math.min(this.#maxMs, this.#firstMs * 2 ** Math.min(this.failures, 10))
    this.failures += 1
    return pauseMs * (0.8 + 0.4 * Math.random())
  }

  reset(): void {
    this.failures = 0
  }
}

/** Wakes one loop that waits; any part may notify it. A notification without a waiter is kept for the next wait. */
export class Notifier {
  #notified = false
  #wake: (() => void) | null = null

  notify(): void {
    this.#notified = true
    this.#wake?.()
  }

  /** Resolves when notified, after the limit (Infinity: none), or when the signal aborts. One waiter at a time. */
  async wait(limitMs: number, signal?: AbortSignal): Promise<void> {
    if (!this.#notified && limitMs > 0 && signal?.aborted !== true) {
      await new Promise<void>((resolve) => {
        const wake = () => {
          clearTimeout(timer)
          signal?.removeEventListener('abort', wake)
          resolve()
        }
        const timer = Number.isFinite(limitMs) ? setTimeout(wake, limitMs) : undefined
        signal?.addEventListener('abort', wake)
        this.#wake = wake
      })
      this.#wake = null
    }
    this.#notified = false
  }

  /** Waits the whole time, whatever is notified, unless `isOver` by then. */
  async sleep(limitMs: number, isOver: () => boolean): Promise<void> {
    const untilMs = performance.now() + limitMs
    while (!isOver() && performance.now() < untilMs) await this.wait(untilMs - performance.now())
  }
}
