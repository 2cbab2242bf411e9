// The items of pages, one by one, for streams of very many small items. An async generator that delegates to another
// costs several promises an item, and two or three of them lie between a database and its reader; here an item of a
// page that has been read costs one. A reader that stops early calls `return` (`for await` does), which ends the pages.

/** Items in the order of their pages; reads a page when the one before is used up. For one reader, sequential calls. */
export class PagedIterator<T> implements AsyncIterableIterator<T, void, undefined> {
  readonly #pages: AsyncIterator<readonly T[], unknown, undefined>
  #page: readonly T[] = []
  #at = 0

  constructor(pages: AsyncIterable<readonly T[]>) {
    this.#pages = pages[Symbol.asyncIterator]()
  }

  next(): Promise<IteratorResult<T, void>> {
    if (this.#at < this.#page.length) return Promise.resolve({ done: false, value: this.#page[this.#at++]! })
    return this.#nextPage()
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

  async #nextPage(): Promise<IteratorResult<T, void>> {
    for (;;) {
      const { done, value } = await this.#pages.next()
      this.#page = done === true ? [] : value
      this.#at = 0
      if (done === true) return { done: true, value: undefined }
      if (value.length > 0) return { done: false, value: value[this.#at++]! }
    }
  }
}
