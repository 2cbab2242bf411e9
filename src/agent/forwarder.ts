// The agent's second half: takes runs from the spool, sends them in order, and marks a record as done only when the
// sink has confirmed it. Failed sends are retried without limit, with growing pauses; records that the sink rejects are
// logged, counted and discarded, the others are sent. After a crash at most the unmarked records are sent twice, which
// their ids make harmless.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../runtime/logger.ts'
import type { AgentState } from './agent-state.ts'
import type { SendResult, Sink } from './sink.ts'
import type { Spool, SpoolRecord, SpoolRun } from './spool.ts'

export interface ForwarderOptions {
  spool: Pick<Spool, 'next' | 'done'>
  sink: Sink
  state: AgentState
  logger: Logger
  /** After this it ends when the spool is empty, with short pauses between attempts. */
  draining: AbortSignal
  /** After this it ends at once. */
  aborted: AbortSignal
  /** 0 to 1; Math.random when absent. */
  random?: () => number
}

const FIRST_PAUSE_MS = 500
const MAX_PAUSE_MS = 30_000
/** After faults that an operator must repair: wrong token, wrong address, wrong certificate. */
const OPERATOR_PAUSE_MS = 60_000
/** Upper bound of a Retry-After. */
const MAX_RETRY_AFTER_MS = 600_000
const DRAIN_PAUSE_MS = 500
/** Rejected records of one batch that are logged one by one. */
const MAX_SHOWN = 5

/** Forwards until the spool is empty while draining, or until aborted; a fault of the sink never makes it reject. */
export async function runForwarder(options: ForwarderOptions): Promise<void> {
  const { spool, draining, aborted } = options
  const deliver = deliverer(options)
  while (!aborted.aborted) {
    const run = await spool.next(draining)
    if (run !== null) await deliver(run)
    else if (draining.aborted) return
  }
}

/** Sends runs to the sink; remembers the batch size that the sink accepts from one run to the next. */
function deliverer(options: ForwarderOptions): (run: SpoolRun) => Promise<void> {
  const { spool, sink, state, aborted } = options
  let limit = sink.maxRecords
  return async (run) => {
    let pending = run.records
    for (let failures = 0; pending.length > 0 && !aborted.aborted; ) {
      const batch = pending.slice(0, limit)
      const result = await sink.send(run.kind, batch, aborted)
      if (result.kind === 'failed') {
        if (aborted.aborted) return
        failures += 1
        state.counters.sendFailures += 1
        state.report('sink', [result.message], result.needsOperator ? 'error' : 'warn')
        await pause(options, result, failures)
        continue
      }
      if (result.kind === 'too-large') {
        limit = Math.max(1, Math.floor(batch.length / 2))
        continue
      }
      failures = 0
      if (result.kind === 'rejected') pending = discard(options, result.rejected, { ...run, records: pending })
      else {
        pending = pending.slice(batch.length)
        limit = Math.min(sink.maxRecords, limit + 1)
        state.counters[run.kind === 'token' ? 'tokenEventsSent' : 'sent'] += batch.length
        state.lastSentMs = Date.now()
        state.report('sink', [])
        state.report('spool-full', [])
      }
      await spool.done(run, pending[0]?.offset ?? run.nextOffset)
    }
  }
}

/** Logs and counts the rejected records; returns the others. */
function discard(
  { state, logger }: ForwarderOptions,
  rejected: readonly { index: number; message: string }[],
  { kind, records }: Pick<SpoolRun, 'kind' | 'records'>,
): SpoolRecord[] {
  state.counters[kind === 'token' ? 'tokenEventsRefused' : 'refused'] += rejected.length
  for (const { index, message } of rejected.slice(0, MAX_SHOWN)) {
    const event = records[index]!.value.toString('utf8').slice(0, 1000)
    logger.error({ event }, `An event is given up: the other side calls it wrong (${message})`)
  }
  if (rejected.length > MAX_SHOWN) {
    logger.error({ events: rejected.length - MAX_SHOWN }, 'More events of the same batch are given up as wrong')
  }
  const discarded = new Set(rejected.map(({ index }) => index))
  return records.filter((_, index) => !discarded.has(index))
}

async function pause(
  { draining, aborted, random = Math.random }: ForwarderOptions,
  result: SendResult & { kind: 'failed' },
  failures: number,
): Promise<void> {
  const pauseMs = pauseOf(result, failures, random())
  // A drain that begins ends the pause: there may be just enough time for one more attempt.
  if (!draining.aborted) await sleep(pauseMs, undefined, { signal: draining }).catch(() => {})
  else await sleep(Math.min(pauseMs, DRAIN_PAUSE_MS), undefined, { signal: aborted }).catch(() => {})
}

/** Pause after so many consecutive failures, milliseconds; `jitter` (0 to 1) spreads agents that failed together. */
export function pauseOf(
  { retryAfterMs, needsOperator }: Pick<SendResult & { kind: 'failed' }, 'retryAfterMs' | 'needsOperator'>,
  failures: number,
  jitter: number,
): number {
  // Never earlier than requested.
  if (retryAfterMs !== null) {
    return Math.max(FIRST_PAUSE_MS, Math.min(retryAfterMs, MAX_RETRY_AFTER_MS)) + jitter * FIRST_PAUSE_MS
  }
  const fullMs = needsOperator ? OPERATOR_PAUSE_MS : Math.min(FIRST_PAUSE_MS * 2 ** (failures - 1), MAX_PAUSE_MS)
  return fullMs * (0.5 + jitter / 2)
}
