// What an operator needs to know of a MongoDB server besides the documents: its clock, and how full its disk is. Read
// only. The disk requires the right `dbStats`, which pertoken does not need otherwise: null without it.

import { MongoConnection, type MongoStoreOptions } from './connection.ts'

export interface MongoFacts {
  /** How far the server's clock is ahead of this machine's, milliseconds; right to half the time of a round trip. */
  aheadMs: number
  disk: { freeBytes: number; totalBytes: number } | null
}

/** Throws a StoreError when the server does not respond. `nowMs` is this machine's clock. */
export async function probeMongo(options: MongoStoreOptions, nowMs: () => number): Promise<MongoFacts> {
  const connection = new MongoConnection(options)
  try {
    return await connection.run('read the state of the server', async () => {
      await connection.ping() // So that connecting is not part of the round trip.
      const sentMs = nowMs()
      const { localTime } = await connection.command({ hello: 1 })
      const aheadMs = Number(localTime) - (sentMs + nowMs()) / 2
      return { aheadMs, disk: await diskOf(connection) }
    })
  } finally {
    await connection.close()
  }
}

async function diskOf(connection: MongoConnection): Promise<MongoFacts['disk']> {
  try {
    const { fsTotalSize, fsUsedSize } = await connection.command({ dbStats: 1 })
    const totalBytes = Number(fsTotalSize)
    return totalBytes > 0 ? { freeBytes: totalBytes - Number(fsUsedSize), totalBytes } : null
  } catch {
    return null
  }
}
