// Waiting, in the three ways that the Kafka adapter needs: with a limit, growing after each failure, and until somebody
// rings. All timers end with what they belong to, so nothing of ours keeps a process alive after close.

/** Waits for the promise, but not longer; says whether it ended. Its failure counts as an end. */
export async function settlesWithin(limitMs: number, promise: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, limitMs, false)
  })
  const ended = promise.then(
    () => true,
    () => true,
  )
  try {
    return await Promise.race([ended, limit])
  } finally {
    clearTimeout(timer)
  }
}

/** Pauses that double from `firstMs` to `maxMs`, with a little chance in them so that members do not march in step. */
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

/** A loop sleeps on it; anyone may ring. A ring that nobody was waiting for is kept. */
export class Notifier {
  #notified = false
  #wake: (() => void) | null = null

  notify(): void {
    this.#notified = true
    this.#wake?.()
  }

  async wait(limitMs: number): Promise<void> {
    if (!this.#notified && limitMs > 0) {
      await new Promise<void>((resolve) => {
        const timer = Number.isFinite(limitMs) ? setTimeout(resolve, limitMs) : undefined
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      this.#wake = null
    }
    this.#notified = false
  }

  /** Sleeps the whole time whoever rings, unless it is over by then. */
  async sleep(limitMs: number, isOver: () => boolean): Promise<void> {
    const untilMs = performance.now() + limitMs
    while (!isOver() && performance.now() < untilMs) await this.wait(untilMs - performance.now())
  }
}
