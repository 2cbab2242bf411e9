// A wait that another part of the same process can end: the forwarder sleeps until the sampler has added something.

export interface Waker {
  /** Resolves when woken, when the time is up or when the signal aborts. One waits at a time. */
  wait(ms: number, signal: AbortSignal): Promise<void>
  wake(): void
}

export function createWaker(): Waker {
  let wake = () => {}
  return {
    async wait(ms, signal) {
      if (signal.aborted) return
      await new Promise<void>((resolve) => {
        const settle = () => {
          clearTimeout(timer)
          signal.removeEventListener('abort', settle)
          resolve()
        }
        const timer = setTimeout(settle, ms)
        signal.addEventListener('abort', settle)
        wake = settle
      })
    },
    wake: () => wake(),
  }
}
