// Starts a real mongod 6.0 on a free loopback port for tests and bench, standalone or as a replica set of one.
// The replica set gives transactions, change streams and majority write concern; it is initiated and primary when
// `startMongod` (and a later `start`) resolves. Its member has the address 127.0.0.1:PORT, hence a kept data
// directory has to be used with the same port again. A start takes about a second.

import { join } from 'node:path'
import { MongoClient } from 'mongodb'
import { freePort, ManagedServer, makeDataDirectory, onFreePorts, type ServerControls } from './managed-server.ts'
import { mongodDirectory, verifyOnce } from './server-cache.ts'
import { MONGOD_RELEASE } from './versions.ts'

export type MongodOptions = {
  mode: 'standalone' | 'replica-set'
  /** Kept at close. Without it: a temporary one, deleted at close. */
  dataDir?: string
  port?: number
}

export type MongodServer = ServerControls & {
  /** mongodb://127.0.0.1:PORT/, with directConnection=true for the replica set. No database in its path. */
  readonly url: string
  readonly port: number
  /** The same server by way of another port: a proxy's. */
  urlAt(port: number): string
}

const REPLICA_SET = 'pertoken'

export async function startMongod(options: MongodOptions): Promise<MongodServer> {
  await requireMongod()
  return onFreePorts(() => startOnce(options))
}

/** Rejects with NotInstalled unless mongod lies in the cache as it was installed. */
export async function requireMongod(): Promise<void> {
  await verifyOnce(mongodDirectory(), MONGOD_RELEASE.sha256)
}

async function startOnce(options: MongodOptions): Promise<MongodServer> {
  const data = await makeDataDirectory('mongod', options.dataDir)
  const port = options.port ?? (await freePort())
  const replicated = options.mode === 'replica-set'
  const urlAt = (at: number) => `mongodb://127.0.0.1:${at}/${replicated ? '?directConnection=true' : ''}`
  const url = urlAt(port)
  const server: ManagedServer = new ManagedServer({
    name: 'mongod',
    dataDirectory: data,
    command: join(mongodDirectory(), 'mongod'),
    args: mongodArguments(data.path, port, replicated),
    port,
    ask: () => askMongod(url, server.pid, replicated ? `127.0.0.1:${port}` : undefined),
  })
  try {
    await server.start()
  } catch (error) {
    await server.close()
    throw error
  }
  return {
    url,
    port,
    urlAt,
    get pid() {
      return server.pid
    },
    start: () => server.start(),
    stop: () => server.stop(),
    kill: () => server.kill(),
    pause: () => server.pause(),
    resume: () => server.resume(),
    close: () => server.close(),
  }
}

function mongodArguments(path: string, port: number, replicated: boolean): string[] {
  const always = [
    ...['--dbpath', path, '--port', String(port), '--bind_ip', '127.0.0.1', '--nounixsocket', '--quiet'],
    ...['--wiredTigerCacheSizeGB', '0.5', '--setParameter', 'diagnosticDataCollectionEnabled=false'],
  ]
  if (!replicated) return always
  // A primary that is told to end waits 15 s for its clients to look for another one; here is no other.
  const quick = ['--setParameter', 'shutdownTimeoutMillisForSignaledShutdown=100']
  return [...always, '--replSet', REPLICA_SET, '--oplogSize', '256', ...quick]
}

/** Rejects unless the server answers and, in a replica set, is the writable primary. Initiates a set that is new. */
async function askMongod(url: string, pid: number, member: string | undefined): Promise<void> {
  const client = new MongoClient(url, {
    serverSelectionTimeoutMS: 1_000,
    directConnection: true,
    socketTimeoutMS: 10_000,
  })
  try {
    const admin = client.db('admin')
    const { pid: answering } = await admin.command({ serverStatus: 1 })
    if (Number(answering) !== pid) throw new Error(`Cannot use "${url}": it is another's mongod`)
    const hello = await admin.command({ hello: 1 })
    if (hello['isWritablePrimary'] === true) return
    if (member !== undefined && hello['setName'] === undefined) {
      const config = { _id: REPLICA_SET, members: [{ _id: 0, host: member }] }
      // A set that is still loading its configuration has no name yet either: it refuses, and the next question finds it.
      await admin.command({ replSetInitiate: config })
    }
    throw new Error(`Cannot use mongod at "${url}": not primary yet`)
  } finally {
    await client.close()
  }
}
