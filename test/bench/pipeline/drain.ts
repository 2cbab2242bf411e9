// Drains topics that were filled before with one program, and measures it the same way for each: time, CPU and memory
// from its first stored document to its last. So start-up is left out (a JVM's, compilation of the first classes,
// joining the group) and shown apart; what is compiled while events flow is not left out, hence two sizes. CPU is that
// of all threads of the process; memory is the most that was resident since its start.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Db } from 'mongodb'
import type { ServerProcess } from '../../servers/server-process.ts'
import { cpuSeconds, peakRssMb } from '../process-cost.ts'
import { COLLECTIONS } from './contenders.ts'

const POLL_MS = 5
const MAX_PAUSE_MS = 120_000
const GRACE_MS = 20_000

export interface Drain {
  /** Stored between the two instants of the measurement. */
  events: number
  seconds: number
  cpuSeconds: number
  mongodCpuSeconds: number
  rssMb: number
  /** From the start of the process. */
  firstDocumentSeconds: number
}

export interface DrainOptions {
  name: string
  /** Dropped afterwards. */
  db: Db
  events: number
  mongodPid: number
  start: () => Promise<ServerProcess>
}

export async function drain(options: DrainOptions): Promise<Drain> {
  const { name, db, events, mongodPid } = options
  const startedMs = performance.now()
  const result = await withProcess(name, options.start, async (child) => {
    const { pid } = child
    const first = await untilCount(db, child, 1)
    const before = { cpu: cpuSeconds(pid), mongod: cpuSeconds(mongodPid) }
    const last = await untilCount(db, child, events)
    return {
      events: events - first.count,
      seconds: (last.atMs - first.atMs) / 1000,
      cpuSeconds: cpuSeconds(pid) - before.cpu,
      mongodCpuSeconds: cpuSeconds(mongodPid) - before.mongod,
      rssMb: peakRssMb(pid),
      firstDocumentSeconds: (first.atMs - startedMs) / 1000,
    }
  })
  const counts = await Promise.all(
    Object.values(COLLECTIONS).map((collection) => db.collection(collection).countDocuments()),
  )
  const count = counts.reduce((sum, count) => sum + count, 0)
  if (count !== events) throw new Error(`${name} stored ${count} documents: expected ${events}`)
  await db.dropDatabase()
  return result
}

/** Stops the process in good order, so that it may write a profile; kills it when the work fails, and shows its log. */
export async function withProcess<T>(
  name: string,
  start: () => Promise<ServerProcess>,
  work: (child: ServerProcess) => Promise<T>,
): Promise<T> {
  const child = await start()
  let result: T
  try {
    result = await work(child)
  } catch (error) {
    await child.kill()
    throw new Error(`Cannot measure ${name}: ${(error as Error).message}\n${child.logTail()}`, { cause: error })
  }
  await child.stop(GRACE_MS)
  return result
}

async function untilCount(db: Db, child: ServerProcess, atLeast: number): Promise<{ atMs: number; count: number }> {
  let progressMs = performance.now()
  let most = 0
  for (;;) {
    const counts = await Promise.all(
      Object.values(COLLECTIONS).map((collection) => db.collection(collection).estimatedDocumentCount()),
    )
    const count = counts.reduce((sum, count) => sum + count, 0)
    const atMs = performance.now()
    if (count >= atLeast) return { atMs, count }
    if (count > most) {
      most = count
      progressMs = atMs
    }
    if (atMs - progressMs > MAX_PAUSE_MS) throw new Error(`no progress at ${count} documents of ${atLeast}`)
    if (!child.running) throw new Error(`ended with ${await child.ended} at ${count} documents`)
    await sleep(POLL_MS)
  }
}
