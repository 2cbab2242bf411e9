// Waiting for servers and programs that a bench has started.

import { setTimeout as sleep } from 'node:timers/promises'

/** Resolves once the check answers true; a check that fails is asked again. Rejects after a minute. */
export async function until(check: () => Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + 60_000
  while (performance.now() < deadlineMs) {
    if (await check().catch(() => false)) return
    await sleep(50)
  }
  throw new Error('Waited for 60 s in vain')
}
