// The agent's second half: takes runs from the spool, sends them in order, and marks a record as done only when the other
// side has confirmed it. What fails is sent again, for ever, with growing pauses; what the other side calls wrong is given
// up by name and counted, the rest goes on. A crash repeats at most what was not marked; ids make repeats harmless.

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
  /** From here on it ends when the spool is empty, and does not wait long between tries. */
  draining: AbortSignal
  /** From here on it ends at once. */
  aborted: AbortSignal
  /** 0 to 1; Math.random when absent. */
  random?: () => number
}

const FIRST_PAUSE_MS = 500
const MAX_PAUSE_MS = 30_000
/** Where only a person can help: wrong token, wrong address, wrong certificate. */
const PERSON_PAUSE_MS = 60_000
/** The longest that another side's Retry-After is followed. */
const MAX_RETRY_AFTER_MS = 600_000
const DRAIN_PAUSE_MS = 500
/** Refused records of one answer that are logged one by one. */
const MAX_SHOWN = 5

/** Forwards until the spool is empty while draining, or aborted; it never rejects for a fault of the other side. */
export async function runForwarder(options: ForwarderOptions): Promise<void> {
  const { spool, draining, aborted } = options
  const deliver = deliverer(options)
  while (!aborted.aborted) {
    const run = await spool.next(draining)
    if (run !== null) await deliver(run)
    else if (draining.aborted) return
  }
}

/** Brings runs to the sink; the size of batches that it takes is remembered from one to the next. */
function deliverer(options: ForwarderOptions): (run: SpoolRun) => Promise<void> {
  const { spool, sink, state, aborted } = options
  let limit = sink.maxRecords
  return async (run) => {
    let left = run.records
    for (let failures = 0; left.length > 0 && !aborted.aborted; ) {
      const part = left.slice(0, limit)
      const answer = await sink.send(run.kind, part, aborted)
      if (answer.kind === 'failed') {
        if (aborted.aborted) return
        failures += 1
        state.counters.sendFailures += 1
        state.report('sink', [answer.message], answer.needsPerson ? 'error' : 'warn')
        await pause(options, answer, failures)
        continue
      }
      if (answer.kind === 'too-large') {
        limit = Math.max(1, Math.floor(part.length / 2))
        continue
      }
      failures = 0
      if (answer.kind === 'refused') left = giveUp(options, answer.refused, left)
      else {
        left = left.slice(part.length)
        limit = Math.min(sink.maxRecords, limit + 1)
        state.counters.sent += part.length
        state.lastSentMs = Date.now()
        state.report('sink', [])
        state.report('spool-full', [])
      }
      await spool.done(run, left[0]?.offset ?? run.nextOffset)
    }
  }
}

function giveUp(
  { state, logger }: ForwarderOptions,
  refused: readonly { index: number; message: string }[],
  records: readonly SpoolRecord[],
): SpoolRecord[] {
  state.counters.refused += refused.length
  for (const { index, message } of refused.slice(0, MAX_SHOWN)) {
    const event = records[index]!.value.toString('utf8').slice(0, 1000)
    logger.error({ event }, `An event is given up: the other side calls it wrong (${message})`)
  }
  if (refused.length > MAX_SHOWN) {
    logger.error({ events: refused.length - MAX_SHOWN }, 'More events of the same batch are given up as wrong')
  }
  const gone = new Set(refused.map(({ index }) => index))
  return records.filter((_, index) => !gone.has(index))
}

async function pause(
  { draining, aborted, random = Math.random }: ForwarderOptions,
  answer: SendResult & { kind: 'failed' },
  failures: number,
): Promise<void> {
  const pauseMs = pauseOf(answer, failures, random())
  // A drain that begins ends the pause: there may be just time enough for one more try.
  if (!draining.aborted) await sleep(pauseMs, undefined, { signal: draining }).catch(() => {})
  else await sleep(Math.min(pauseMs, DRAIN_PAUSE_MS), undefined, { signal: aborted }).catch(() => {})
}

/** How long to wait after so many failures in a row, milliseconds; `luck` (0 to 1) spreads agents that failed together. */
export function pauseOf(
  { retryAfterMs, needsPerson }: Pick<SendResult & { kind: 'failed' }, 'retryAfterMs' | 'needsPerson'>,
  failures: number,
  luck: number,
): number {
  // Never before the time that was asked for.
  if (retryAfterMs !== null) {
    return Math.max(FIRST_PAUSE_MS, Math.min(retryAfterMs, MAX_RETRY_AFTER_MS)) + luck * FIRST_PAUSE_MS
  }
  const fullMs = needsPerson ? PERSON_PAUSE_MS : Math.min(FIRST_PAUSE_MS * 2 ** (failures - 1), MAX_PAUSE_MS)
  return fullMs * (0.5 + luck / 2)
}
