// Waiting for servers and programs that a bench has started.

import { setTimeout as sleep } from 'node:timers/promises'

/** Resolves once the check returns true; a check that fails is repeated. Rejects after a minute. */
export async function until(check: () => Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + 60_000
  while (performance.now() < deadlineMs) {
    if (await check().catch(() => false)) return
    await sleep(50)
  }
  throw new Error('Not ready after 60 s')
}
