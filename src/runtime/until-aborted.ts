// Waiting for work that may outlast its use: a driver or a broker that hangs must not hold up the end of a process.

/** The work's result; null as soon as the signal aborts, whatever becomes of the work. */
export async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | null> {
  let onAbort = () => {}
  const aborted = new Promise<null>((resolve) => {
    onAbort = () => resolve(null)
    if (signal.aborted) resolve(null)
    else signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    return await Promise.race([aborted, work])
  } finally {
    signal.removeEventListener('abort', onAbort)
    work.catch(() => {})
  }
}
