// The connection to one MongoDB database: the driver's client with the limits that keep callers from hanging on a dead
// server. Driver 7.9 ignores its `timeoutMS` (deprecated, no effect), so three limits replace it: every command carries
// a deadline as an AbortSignal, which covers server selection, the wait for a connection and the reply; sockets have an
// inactivity limit, which covers cursors; and the driver's monitor, polling every two seconds, breaks half-open
// connections. Worst case of a call: `callTimeoutMs`. When the server is back the same object works again.

import {
  type Db,
  type Document,
  MongoClient,
  type MongoClientOptions,
  ReadConcern,
  type ServerDescription,
} from 'mongodb'
import { StoreError } from '../event-store.ts'
import { storeErrorOf } from './errors.ts'
import { type Access, securityFault } from './security-faults.ts'

const DEFAULT_DATABASE = 'ca0'

/** Where a store logs to; pino has this shape. */
export interface StoreLog {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

export interface MongoStoreOptions {
  /** mongodb:// or mongodb+srv://; the database is its path, `ca0` when it has none. Options in it win over ours. */
  url: string
  /** Of the user that the URL names. */
  password?: string
  log: StoreLog
  /** How long a call waits for a suitable server. */
  serverSelectionTimeoutMs?: number
  /** How long a connection with a pending request may stay silent. */
  socketTimeoutMs?: number
  /** How long one command may take in total. */
  callTimeoutMs?: number
  /** Pause after a refused login or certificate: servers log and count these, and some lock the user out. */
  securityPauseMs?: number
}

export class MongoConnection {
  /** `mongodb ca0 at localhost:27017`: never with credentials. */
  readonly description: string
  readonly db: Db
  readonly log: StoreLog
  /** The server's time limit for a query: less than the socket's, so that the server gives up as well. */
  readonly queryTimeMs: number
  /** Write concern of every write: durable on a majority, and an error in time when the majority does not follow. */
  readonly writeConcern: { w: 'majority'; j: true; wtimeout: number }
  readonly #client: MongoClient
  readonly #url: string
  readonly #hosts: string
  readonly #callTimeoutMs: number
  readonly #securityPauseMs: number
  readonly #lost = new Set<string>()
  /** The last refusal of a login or certificate, and until when it is not tried again. */
  #refused: { error: unknown; untilMs: number } | null = null
  #connected = false
  #closed = false

  constructor(options: MongoStoreOptions) {
    const { serverSelectionTimeoutMs = 5_000, socketTimeoutMs = 8_000, callTimeoutMs = 10_000 } = options
    this.#url = withPassword(options.url, options.password)
    this.#callTimeoutMs = callTimeoutMs
    this.#securityPauseMs = options.securityPauseMs ?? 5_000
    this.log = options.log
    this.queryTimeMs = Math.max(100, socketTimeoutMs - 500)
    this.writeConcern = { w: 'majority', j: true, wtimeout: this.queryTimeMs }
    const { client, db } = openDatabase(this.#url, {
      appName: 'pertoken',
      maxPoolSize: 10,
      serverSelectionTimeoutMS: serverSelectionTimeoutMs,
      waitQueueTimeoutMS: serverSelectionTimeoutMs,
      connectTimeoutMS: 3_000,
      heartbeatFrequencyMS: 2_000,
      socketTimeoutMS: socketTimeoutMs,
    })
    this.#client = client
    this.db = db
    const { srvHost, hosts } = this.#client.options
    this.#hosts = srvHost ?? hosts.join(',')
    this.description = `mongodb ${this.db.databaseName} at ${this.#hosts}`
    this.#client.on('serverDescriptionChanged', (event) => this.#watch(event.newDescription))
  }

  /** Runs one command on the primary, within `callTimeoutMs`. Never retried by the driver. */
  command(command: Document): Promise<Document> {
    return this.db.command(command, { signal: AbortSignal.timeout(this.#callTimeoutMs) })
  }

  /** Resolves when the primary responds. */
  async ping(): Promise<void> {
    await this.command({ ping: 1 })
  }

  /** Runs `work`; whatever it throws becomes a StoreError that starts with "Cannot <action>". */
  async run<T>(action: string, work: () => Promise<T>): Promise<T> {
    if (this.#closed) throw this.#closedError(action)
    try {
      await this.connect()
      return await work()
    } catch (error) {
      throw this.failure(action, error)
    }
  }

  /**
   * Connects if that has not succeeded yet. The driver connects implicitly, but only once: after a failed first attempt
   * every call fails with "Topology is closed", so a program that starts before its database would never reach it.
   */
  async connect(): Promise<void> {
    // Callers retry every second or so, which is too often for a server that refuses the login.
    if (this.#refused !== null && performance.now() < this.#refused.untilMs) throw this.#refused.error
    if (this.#connected) return
    await this.#client.connect()
    this.#connected = true
  }

  failure(action: string, error: unknown): StoreError {
    if (this.#closed) return this.#closedError(action)
    this.#noteRefusal(error)
    return storeErrorOf(error, `${action} (${this.description})`, { at: this.#hosts, access: this.#access })
  }

  #noteRefusal(error: unknown): void {
    if (error === this.#refused?.error) return
    const kind = securityFault(error, this.#hosts, this.#access)?.kind
    if (kind !== 'login' && kind !== 'tls') return
    this.#refused = { error, untilMs: performance.now() + this.#securityPauseMs }
  }

  get #access(): Access {
    const { credentials, tls } = this.#client.options
    return { authSource: credentials?.source ?? null, tls, wasConnected: this.#connected }
  }

  /** For work that may legitimately take minutes (building an index): no limit but the monitor's. */
  async withoutLimit<T>(work: (db: Db) => Promise<T>): Promise<T> {
    const { client, db } = openDatabase(this.#url, { appName: 'pertoken', maxPoolSize: 2, socketTimeoutMS: 0 })
    try {
      return await work(db)
    } finally {
      await client.close()
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#client.close()
  }

  #closedError(action: string): StoreError {
    return new StoreError(`Cannot ${action} (${this.description}): the store is closed`, { retriable: false })
  }

  /** Logs one line when a server is lost and one when it is back, however often it is tried in between. */
  #watch(server: ServerDescription): void {
    const { address, type, error } = server
    if (type !== 'Unknown') {
      if (this.#lost.delete(address)) this.log.info({ address, type }, 'MongoDB server is back')
    } else if (error !== null && !this.#closed && !this.#lost.has(address)) {
      const fault = securityFault(error, address, this.#access)
      // The driver marks a server that refuses a login as lost, briefly and each time. The caller reports that error.
      if (fault?.kind === 'login') return
      this.#lost.add(address)
      this.log.warn({ address, reason: fault?.text ?? error.message }, 'MongoDB server is not reachable')
    }
  }
}

/** The URL with the password of the user that it names. */
function withPassword(url: string, password: string | undefined): string {
  if (password === undefined) return url
  return url.replace(
    /^(mongodb(?:\+srv)?:\/\/[^:@/?]+)@/,
    (_, head: string) => `${head}:${encodeURIComponent(password)}@`,
  )
}

/** A URL whose user and password, up to the last @, are percent-encoded as they must be, or absent. */
const ENCODED = /^[^:]*:\/\/(?:(?:[^:@/?#[\]%]|%[0-9a-f]{2})*(?::(?:[^:@/?#[\]%]|%[0-9a-f]{2})*)?@)?[^@]*$/i

/**
 * A client, not connected yet, and the database of the URL's path. Throws a StoreError without the URL's credentials;
 * `name` is the setting or flag that the URL came from.
 */
export function openDatabase(
  url: string,
  ours: MongoClientOptions,
  { name = 'MONGO_URL' } = {},
): { client: MongoClient; db: Db } {
  try {
    // In the driver options override the URL; users expect the opposite.
    const entries = Object.entries(ours).filter(([option]) => !new RegExp(`[?&]${option}=`, 'i').test(url))
    const client = new MongoClient(url, Object.fromEntries(entries))
    return { client, db: databaseOf(client, url) }
  } catch (error) {
    const advice = ENCODED.test(url) ? '' : '; in user and password @ : / ? # [ ] % have to be encoded, as in %40 for @'
    // Without cause: Node's "Invalid URL" carries the whole URL, password included.
    const text = withoutCredentials(String((error as Error).message), url)
    throw new StoreError(`Cannot read ${name}: ${text}${advice}`, { retriable: false })
  }
}

function databaseOf(client: MongoClient, url: string): Db {
  const path = /^mongodb(?:\+srv)?:\/\/[^/?]*\/([^?]*)/.exec(url)?.[1] ?? ''
  return client.db(path === '' ? DEFAULT_DATABASE : decodeURIComponent(path), {
    readConcern: new ReadConcern('majority'),
    readPreference: 'primary',
    writeConcern: { w: 'majority', journal: true },
  })
}

/**
 * A text with everything masked that the URL has between `://` and its last `@`, or, where it has none but what looks
 * like half a login, before its path.
 */
export function withoutCredentials(text: string, url: string): string {
  const start = url.indexOf('://') + 3
  const [authority = ''] = url.slice(start).split(/[/?]/, 1)
  if (!url.includes('@') && /:(?!\d{1,5}(?:,|$))/.test(authority)) return text.replaceAll(authority, '***')
  const secrets = url.slice(start, Math.max(start, url.lastIndexOf('@'))).split(/[:@/?#]/)
  const both = secrets.flatMap((secret) => [secret, decodeLoosely(secret)]).filter((secret) => secret !== '')
  return both.toSorted((a, b) => b.length - a.length).reduce((masked, secret) => masked.replaceAll(secret, '***'), text)
}

function decodeLoosely(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
