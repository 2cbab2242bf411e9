// The agent as a whole: sampler and watch of engines → spool → forwarder → sink. Loops that share only the spool:
// sampling continues while the network is down or an engine hangs, sending continues while a driver hangs. Stopping
// ends sampling, sends what is spooled for at most a few seconds, and leaves the rest for the next start.

import type { Logger } from '../runtime/logger.ts'
import { runForwarder } from './forwarder.ts'
import { runSampler, type SamplerOptions } from './sampler.ts'
import type { Sink } from './sink.ts'
import type { Spool } from './spool.ts'

export interface AgentOptions extends Pick<SamplerOptions, 'source' | 'settings' | 'intervalMs' | 'clock' | 'state'> {
  spool: Spool
  sink: Sink
  /** Puts token events into the spool until the signal aborts. */
  watch?: { run(signal: AbortSignal): Promise<void> } | null
  logger: Logger
  /** Stops and drains. */
  signal: AbortSignal
  /** Limit of a drain, milliseconds. */
  drainMs?: number
}

const DRAIN_MS = 5000

/** Runs until the signal has aborted and the spool is drained, or the limit for that has passed. */
export async function runAgent(options: AgentOptions): Promise<void> {
  const { spool, sink, state, logger, signal, drainMs = DRAIN_MS } = options
  const draining = new AbortController()
  const aborted = new AbortController()
  const failed = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const onStop = () => {
    timer = setTimeout(() => aborted.abort(), drainMs)
  }
  if (signal.aborted) onStop()
  else signal.addEventListener('abort', onStop, { once: true })
  const stopping = AbortSignal.any([signal, failed.signal])
  const sampling = Promise.all([runSampler({ ...options, signal: stopping }), options.watch?.run(stopping)])
  const forwarding = runForwarder({ spool, sink, state, logger, draining: draining.signal, aborted: aborted.signal })
  try {
    // Neither returns on its own; one that throws (a bug, for faults are reported) must not leave the other running.
    await Promise.race([sampling, forwarding])
    await sampling
    draining.abort()
    await forwarding
  } finally {
    failed.abort()
    draining.abort()
    aborted.abort()
    clearTimeout(timer)
    await Promise.allSettled([sampling, forwarding])
  }
}
