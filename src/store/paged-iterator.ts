// The items of pages, one by one, for streams of very many small things. An async generator that hands on what another
// one yields costs several promises an item, and two or three of them lie between a database and who reads it; here an
// item of a page that is there costs one. Whoever stops early calls `return` (a `for await` does), which ends the pages.

/** Items in the order of their pages; reads a page when the one before is used up. One reader, who waits for each item. */
export class PagedIterator<T> implements AsyncIterableIterator<T, void, undefined> {
  readonly #pages: AsyncIterator<readonly T[], unknown, undefined>
  #page: readonly T[] = []
  #at = 0

  constructor(pages: AsyncIterable<readonly T[]>) {
    this.#pages = pages[Symbol.asyncIterator]()
  }

  next(): Promise<IteratorResult<T, void>> {
    if (this.#at < this.#page.length) return Promise.resolve({ done: false, value: this.#page[this.#at++]! })
    return this.#turn()
  }

  async return(): Promise<IteratorResult<T, void>> {
    this.#page = []
    this.#at = 0
    await this.#pages.return?.()
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async #turn(): Promise<IteratorResult<T, void>> {
    for (;;) {
      const { done, value } = await this.#pages.next()
      this.#page = done === true ? [] : value
      this.#at = 0
      if (done === true) return { done: true, value: undefined }
      if (value.length > 0) return { done: false, value: value[this.#at++]! }
    }
  }
}
