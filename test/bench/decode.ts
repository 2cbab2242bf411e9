// The processor's own work on an event, without servers: records → steps → documents → BSON. Prints CPU-seconds per
// million events of each part, to see what a change on the hot path does.
//
//   node test/bench/decode.ts [--cpu-prof ...]

import { BSON } from 'mongodb'
import type { EventKind } from '../../src/domain/events/event.ts'
import { SlidingWindow } from '../../src/domain/live/sliding-window.ts'
import type { LogRecord, RecordBatch } from '../../src/log/event-log.ts'
import { stepsOf } from '../../src/processor/ingest/processor.ts'
import { benchEvents } from './events.ts'

const EVENTS = 100_000
const ROUNDS = 8
const batches: RecordBatch[] = []
let offset = 0
for (const { topic, records } of benchEvents(EVENTS, 1000)) {
  const list: LogRecord[] = records.map((record) => ({
    offset: offset++,
    timestampMs: Date.UTC(2026, 0, 2),
    key: record.key as Buffer | null,
    value: record.value,
    headers: null,
  }))
  batches.push({
    topic,
    topicId: 'AAAAAAAAAAAAAAAAAAAAAQ',
    partition: 3,
    records: list,
    fromOffset: offset - 1000,
    nextOffset: offset,
    highWatermark: offset,
  })
}
for (let round = 0; round < ROUNDS; round++) {
  const window = new SlidingWindow({
    windowSeconds: 30,
    allowedLatenessSeconds: 10,
    priceOf: (_slot, sample) => ({ usdPerHour: sample?.price_per_hour_usd ?? 0.85, basis: 'sample' }),
  })
  const context = {
    kindOf: (topic: string): EventKind => (topic.startsWith('gpu') ? 'gpu' : 'token'),
    keepsOrigins: false,
    live: window,
    ownsAll: () => true,
    now: () => 0,
  }
  let bytes = 0
  let decodeMs = 0
  let bsonMs = 0
  const cpu = process.cpuUsage()
  let atMs = performance.now()
  for (const { samples, tokens } of stepsOf(batches, context)) {
    const decodedMs = performance.now()
    decodeMs += decodedMs - atMs
    bytes +=
      BSON.serialize({ insert: 'a', documents: samples }).length +
      BSON.serialize({ insert: 'b', documents: tokens }).length
    atMs = performance.now()
    bsonMs += atMs - decodedMs
  }
  const all = process.cpuUsage(cpu)
  const perEvent = (ms: number) => ((ms * 1000) / EVENTS).toFixed(2)
  const total = ((all.user + all.system) / EVENTS).toFixed(2)
  process.stdout.write(
    `decode and price ${perEvent(decodeMs)} µs, BSON ${perEvent(bsonMs)} µs (${(bytes / EVENTS).toFixed(0)} bytes), all threads ${total} CPU-s per million\n`,
  )
}
