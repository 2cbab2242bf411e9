// A stream in order of time that is read up to an instant at a time: the first item beyond it is kept for the next
// call. What walks through a range minute by minute (samples, token events, stored buckets) reads through this.

export class OrderedStream<T> {
  /** Items that were read. */
  count = 0
  readonly #items: AsyncIterator<T>
  readonly #timeOf: (item: T) => number
  #next: T | null = null
  #isDone = false

  /** `timeOf`: epoch milliseconds of an item, never less than that of the item before. */
  constructor(items: AsyncIterable<T>, timeOf: (item: T) => number) {
    this.#items = items[Symbol.asyncIterator]()
    this.#timeOf = timeOf
  }

  /** Hands over the items with `fromMs` ≤ time < `toMs` in order, and discards earlier ones. */
  async take(fromMs: number, toMs: number, onItem: (item: T) => void): Promise<void> {
    while (!this.#isDone) {
      if (this.#next === null) {
        const { done, value } = await this.#items.next()
        if (done === true) {
          this.#isDone = true
          return
        }
        this.count++
        this.#next = value
      }
      const atMs = this.#timeOf(this.#next)
      if (atMs >= toMs) return
      if (atMs >= fromMs) onItem(this.#next)
      this.#next = null
    }
  }

  /** Ends the read; to be called also when the stream was not read to its end. */
  async close(): Promise<void> {
    this.#isDone = true
    await this.#items.return?.()
  }
}
