// Progress of long work, on one line of standard error that is overwritten at most ten times a second; only where that
// is a terminal, so that files and pipes stay clean.

const PAUSE_MS = 100

export class ProgressLine {
  readonly #isTerminal = process.stderr.isTTY === true
  readonly #what: string
  #shownMs = Number.NEGATIVE_INFINITY
  #isShown = false

  constructor(what: string) {
    this.#what = what
  }

  /** Shows how far work over a range of event time has come. */
  show({ doneToMs, fromMs, toMs }: { doneToMs: number; fromMs: number; toMs: number }): void {
    const nowMs = performance.now()
    if (!this.#isTerminal || nowMs - this.#shownMs < PAUSE_MS) return
    this.#shownMs = nowMs
    this.#isShown = true
    const share = toMs > fromMs ? Math.round(((doneToMs - fromMs) / (toMs - fromMs)) * 100) : 100
    process.stderr.write(`\r${this.#what}: ${share} %, up to ${new Date(doneToMs).toISOString()}\x1b[K`)
  }

  /** Erases the line. */
  clear(): void {
    if (this.#isShown) process.stderr.write('\r\x1b[K')
    this.#isShown = false
  }
}
