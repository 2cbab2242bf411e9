// A spool in memory, for a processor that publishes its own host's samples and writes no file for them. Its records are
// lost with the process, and the oldest are dropped when it is full: either is only a gap in this one host's samples.
// It takes no token events: these would be lost for good.

import { Notifier } from '../runtime/waiting.ts'
import type { AgentState } from './agent-state.ts'
import type { Spool, SpoolRecord } from './spool.ts'

/** Twenty minutes of eight GPUs at one sample per second, about 4 MB. */
const MAX_RECORDS = 10_000
const IDLE_MS = 1000

export function memorySpool(state: AgentState, maxRecords = MAX_RECORDS): Spool {
  let waiting: SpoolRecord[] = []
  let bytes = 0
  let nextOffset = 0
  const added = new Notifier()
  const remove = (count: number) => {
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
        remove(over)
        state.counters.dropped += over
        state.report('spool-full', ['Samples wait for the log too long: the oldest are dropped'], 'error')
      }
      added.notify()
    },
    async addTokens() {
      throw new Error('A spool in memory takes no token events')
    },
    lastState: async () => null,
    async next(signal) {
      if (waiting.length === 0) await added.wait(IDLE_MS, signal)
      return waiting.length === 0 ? null : { kind: 'gpu', records: [...waiting], nextOffset }
    },
    async done(_run, offset) {
      remove(waiting.findLastIndex((record) => record.offset < offset) + 1)
    },
    status: async () => ({ records: waiting.length, bytes }),
    async close() {
      waiting = []
    },
  }
}
