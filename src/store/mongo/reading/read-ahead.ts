// Pages from a server, the next one on its way while one is worked through: the two machines are busy side by side. Two
// pages are in memory.

/** The same pages in the same order; a failure comes when its page is asked for. */
export async function* readAhead<T>(pages: AsyncGenerator<T, void, undefined>): AsyncGenerator<T, void, undefined> {
  const begin = () => {
    const page = pages.next()
    // Its failure is nobody's when its turn never comes.
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
    // Waits for the page that is on its way, if any, and ends the stream.
    await pages.return()
  }
}
