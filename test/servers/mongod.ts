// Starts a real mongod 6.0 on a free loopback port for tests and bench, standalone or as a replica set of one. The
// replica set gives transactions, change streams and majority write concern; it is initiated and primary when
// `startMongod` (and a later `start`) resolves. Its member has the address 127.0.0.1:PORT, hence a kept data directory
// has to be used with the same port again. A start takes about a second. `secured` asks for logins and takes nothing
// but TLS; the first user, who may do all, is made as an operator would: from this machine, while there is none.

import { randomBytes } from 'node:crypto'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { MongoClient, type MongoClientOptions, MongoServerError } from 'mongodb'
import type { Certificate } from './certificates.ts'
import { freePort, ManagedServer, makeDataDirectory, onFreePorts, type ServerControls } from './managed-server.ts'
import { mongodDirectory, verifyOnce } from './server-cache.ts'
import { MONGOD_RELEASE } from './versions.ts'

export type MongodOptions = {
  mode: 'standalone' | 'replica-set'
  /** Kept at close. Without it: a temporary one, deleted at close. */
  dataDir?: string
  port?: number
  /** Bound of its cache, GiB. */
  cacheGb?: number
  secured?: MongodSecurity
}

export type MongodSecurity = {
  /** For localhost and 127.0.0.1, with the path of the authority that signed it. */
  certificate: Certificate
  ca: string
}

export type MongodServer = ServerControls & {
  /**
   * mongodb://127.0.0.1:PORT/, with directConnection=true for the replica set. No database in its path. Of a secured
   * one with the first user's login and the options of TLS.
   */
  readonly url: string
  readonly port: number
  /** The same server by way of another port: a proxy's. */
  urlAt(port: number): string
}

const REPLICA_SET = 'pertoken'
const FIRST_USER = { user: 'root', password: 'first-users-password' }

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
  const { secured, cacheGb = 0.5 } = options
  const replicated = options.mode === 'replica-set'
  const login = secured === undefined ? '' : `${FIRST_USER.user}:${FIRST_USER.password}@`
  const parameters = [
    ...(replicated ? ['directConnection=true'] : []),
    ...(secured === undefined ? [] : ['authSource=admin', 'tls=true', `tlsCAFile=${encodeURIComponent(secured.ca)}`]),
  ].join('&')
  const urlAt = (at: number) => `mongodb://${login}127.0.0.1:${at}/${parameters === '' ? '' : `?${parameters}`}`
  const url = urlAt(port)
  const member = replicated ? `127.0.0.1:${port}` : undefined
  const server: ManagedServer = new ManagedServer({
    name: 'mongod',
    dataDirectory: data,
    command: join(mongodDirectory(), 'mongod'),
    args: [...mongodArguments(data.path, { port, replicated, cacheGb }), ...securityArguments(data.path, secured)],
    port,
    ask: async () => {
      if (secured !== undefined) await makeFirstUser(url, member)
      await askMongod(url, server.pid, member)
    },
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

function mongodArguments(
  path: string,
  { port, replicated, cacheGb }: { port: number; replicated: boolean; cacheGb: number },
): string[] {
  const always = [
    ...['--dbpath', path, '--port', String(port), '--bind_ip', '127.0.0.1', '--nounixsocket', '--quiet'],
    ...['--wiredTigerCacheSizeGB', String(cacheGb), '--setParameter', 'diagnosticDataCollectionEnabled=false'],
  ]
  if (!replicated) return always
  // A primary that is told to end waits 15 s for its clients to look for another one; here is no other.
  const quick = ['--setParameter', 'shutdownTimeoutMillisForSignaledShutdown=100']
  return [...always, '--replSet', REPLICA_SET, '--oplogSize', '256', ...quick]
}

function securityArguments(path: string, secured: MongodSecurity | undefined): string[] {
  if (secured === undefined) return []
  // Members of a set know each other by it; it also turns logins on.
  const keyFile = join(path, 'keyfile')
  if (!existsSync(keyFile)) writeFileSync(keyFile, randomBytes(96).toString('base64'), { mode: 0o600 })
  const certificates = ['--tlsCertificateKeyFile', secured.certificate.both, '--tlsCAFile', secured.ca]
  const tls = ['--tlsMode', 'requireTLS', ...certificates, '--tlsAllowConnectionsWithoutCertificates']
  return ['--auth', '--keyFile', keyFile, ...tls]
}

const ASKING: MongoClientOptions = { serverSelectionTimeoutMS: 1_000, directConnection: true, socketTimeoutMS: 10_000 }

/** Rejects unless the server answers and, in a replica set, is the writable primary. Initiates a set that is new. */
async function askMongod(url: string, pid: number, member: string | undefined): Promise<void> {
  const client = new MongoClient(url, ASKING)
  try {
    const admin = client.db('admin')
    const { pid: answering } = await admin.command({ serverStatus: 1 })
    if (Number(answering) !== pid) throw new Error(`Cannot use "${url}": it is another's mongod`)
    await untilPrimary(client, member)
  } finally {
    await client.close()
  }
}

async function untilPrimary(client: MongoClient, member: string | undefined): Promise<void> {
  const admin = client.db('admin')
  const hello = await admin.command({ hello: 1 })
  if (hello['isWritablePrimary'] === true) return
  if (member !== undefined && hello['setName'] === undefined) {
    const config = { _id: REPLICA_SET, members: [{ _id: 0, host: member }] }
    // A set that is still loading its configuration has no name yet either: it refuses, and the next question finds it.
    await admin.command({ replSetInitiate: config })
  }
  throw new Error('Cannot use mongod: not primary yet')
}

/** Without a login, which a new server allows from its own machine until the first user is there. */
async function makeFirstUser(url: string, member: string | undefined): Promise<void> {
  const withoutLogin = url.replace(/\/\/.*@/, '//').replace(/authSource=admin&?/, '')
  const client = new MongoClient(withoutLogin, ASKING)
  try {
    const { user, password } = FIRST_USER
    await untilPrimary(client, member)
    await client.db('admin').command({ createUser: user, pwd: password, roles: ['root'] })
  } catch (error) {
    // After a restart the user is there already, and nobody may make another one.
    if (!(error instanceof MongoServerError) || ![13, 51003].includes(Number(error.code))) throw error
  } finally {
    await client.close()
  }
}
