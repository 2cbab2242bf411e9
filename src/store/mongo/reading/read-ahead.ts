// Prefetches pages: the next one is requested while the reader processes the current one, so that server and reader
// work concurrently. Two pages are in memory.

/** The same pages in the same order; a failure is thrown when its page is requested. */
export async function* readAhead<T>(pages: AsyncGenerator<T, void, undefined>): AsyncGenerator<T, void, undefined> {
  const begin = () => {
    const page = pages.next()
    // A failure of a page that is never requested must not become an unhandled rejection.
    page.catch(() => {})
    return page
  }
  let next = begin()
  try {
    for (;;) {
      const { done, value } = await next
      if (done === true) return
      next = begin()
      yield value
    }
  } finally {
    // Waits for the page that is under way, if any, and ends the stream.
    await pages.return()
  }
}
