// A spool in memory, for a processor that publishes its own host's samples: it writes no file of its own. What waits there
// is lost with the process, and the oldest goes when it is full: both cost no more than a gap in this one host's samples.

import { Notifier } from '../runtime/waiting.ts'
import type { AgentState } from './agent-state.ts'
import type { Spool, SpoolRecord } from './spool.ts'

/** Twenty minutes of eight GPUs at one sample a second, some 4 MB. */
const MAX_RECORDS = 10_000
const IDLE_MS = 1000

export function memorySpool(state: AgentState, maxRecords = MAX_RECORDS): Spool {
  let waiting: SpoolRecord[] = []
  let bytes = 0
  let nextOffset = 0
  const added = new Notifier()
  const forget = (count: number) => {
    for (const { value } of waiting.splice(0, count)) bytes -= value.length
  }
  return {
    async add(_kind, records) {
      for (const { key, value } of records) {
        waiting.push({ offset: nextOffset++, key: key === null ? null : Buffer.from(key), value: value! })
        bytes += value!.length
      }
      const over = waiting.length - maxRecords
      if (over > 0) {
        forget(over)
        state.counters.dropped += over
        state.report('spool-full', ['Samples wait for the log too long: the oldest are dropped'], 'error')
      }
      added.notify()
    },
    async next(signal) {
      if (waiting.length === 0) await added.wait(IDLE_MS, signal)
      return waiting.length === 0 ? null : { kind: 'gpu', records: [...waiting], nextOffset }
    },
    async done(_run, offset) {
      forget(waiting.findLastIndex((record) => record.offset < offset) + 1)
    },
    status: async () => ({ records: waiting.length, bytes }),
    async close() {
      waiting = []
    },
  }
}
