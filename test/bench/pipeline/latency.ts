// How long an event takes into its document at a steady rate: events are appended to Kafka, a marked one now and then,
// and each marked one is timed from the call that appends it until its document can be read.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Db } from 'mongodb'
import { ownEventId } from '../../../src/domain/events/event-id.ts'
import type { EventLog } from '../../../src/log/event-log.ts'
import type { ServerProcess } from '../../servers/server-process.ts'
import { benchEvent } from '../events.ts'
import { until } from '../until.ts'
import { COLLECTIONS } from './contenders.ts'
import { withProcess } from './drain.ts'
import { quantile } from './quantile.ts'

export const LATENCY_RATE = 5000
const SECONDS = 12
/** The first seconds warm both programs up. */
const WARM_UP_MS = 2000
const BATCH = 50
const MARK_EVERY_BATCHES = 5
const MAX_WAIT_MS = 20_000

export interface Latency {
  p50Ms: number
  p99Ms: number
}

export interface LatencyOptions {
  log: EventLog
  topic: string
  db: Db
  port: number
  start: () => Promise<ServerProcess>
}

export async function measureLatency({ log, topic, db, port, start }: LatencyOptions): Promise<Latency> {
  const timesMs = await withProcess('latency', start, async () => {
    // The new group begins with all that the topics hold; only then is it live.
    await until(async () => {
      const response = await fetch(`http://127.0.0.1:${port}/health`)
      const { status, lag } = (await response.json()) as { status: string; lag: number | null }
      return status === 'ok' && lag === 0
    })
    return timeMarked(log, topic, db)
  })
  await db.dropDatabase()
  return { p50Ms: quantile(timesMs, 0.5), p99Ms: quantile(timesMs, 0.99) }
}

async function timeMarked(log: EventLog, topic: string, db: Db): Promise<number[]> {
  const collection = db.collection<{ _id: string }>(COLLECTIONS.token)
  const timesMs: number[] = []
  const watching: Promise<void>[] = []
  const giveUp = new AbortController()
  const watch = async (_id: string, sinceMs: number) => {
    while ((await collection.findOne({ _id }, { projection: { _id: 1 } })) === null) {
      if (giveUp.signal.aborted) throw new Error(`No document for a marked event after ${MAX_WAIT_MS} ms`)
      await sleep(4)
    }
    timesMs.push(performance.now() - sinceMs)
  }
  const startedMs = performance.now()
  for (let sent = 0, batch = 0; performance.now() - startedMs < SECONDS * 1000; batch++) {
    const waitMs = startedMs + (sent / LATENCY_RATE) * 1000 - performance.now()
    if (waitMs > 0) await sleep(waitMs)
    const records = Array.from({ length: BATCH }, (_, i) => benchEvent('token', sent + i, Date.now()))
    const event = JSON.parse(records[0]!.value!.toString()) as { host: string }
    records[0]!.value = Buffer.from(JSON.stringify({ ...event, event_id: `m${batch}` }))
    const sinceMs = performance.now()
    await log.append(topic, records)
    sent += records.length
    if (batch % MARK_EVERY_BATCHES === 0 && sinceMs - startedMs > WARM_UP_MS)
      watching.push(watch(ownEventId(event.host, `m${batch}`), sinceMs))
  }
  const timer = setTimeout(() => giveUp.abort(), MAX_WAIT_MS)
  await Promise.all(watching).finally(() => clearTimeout(timer))
  return timesMs
}
