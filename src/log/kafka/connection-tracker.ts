// Tracks the connections of one log to its brokers, and so works around three defects of the client library:
// - A caller whose connection breaks gets a bare "Connection closed". The cause (say a TLS alert, since the broker
//   requires a client certificate) is in an event of the connection that has no listener, and a second such event would
//   end the process.
// - It sends no server name in the TLS handshake unless one is configured, and then throws for brokers with an IP
//   address; routers that route by name need it.
// - It leaks connections: one that is reset notifies its pool twice ("error", then "close"), and the second
//   notification removes from the pool whatever was opened to the same broker in between. Nothing would close that, and
//   the process would not end for as long as the broker keeps it, ten minutes by default.
// All three workarounds use the library's diagnostics channel, which names connection and host in the very call that
// then opens the socket.

import { isIP } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import { type Connection, connectionsConnectsChannel } from '@platformatic/kafka'

/** PEM texts. */
export interface TlsMaterial {
  /** The certificate authorities that come with Node when absent. */
  ca?: string | string[]
  cert?: string
  key?: string
}

/** Called for each new connection, so that renewed files take effect at once. Must not throw. */
export type TlsSource = () => TlsMaterial

export interface ConnectionTracker {
  readonly tlsSource: TlsSource | undefined
  /** Of the connection that was opened last. */
  host: string
  tls: TlsMaterial
  lastEnd: ConnectionEnd | null
  /** All that have not ended, and those that have since the last was opened. */
  readonly open: Set<Connection>
}

export interface ConnectionEnd {
  /** host:port */
  address: string
  /** By the monotonic clock. */
  atMs: number
  /** How long the connection had been open. */
  openMs: number
  error: Error | null
}

/** Tracker of one log; it is passed to the log's clients as their `context`, by which the channel finds it again. */
export function newConnectionTracker(tlsSource: TlsSource | undefined): ConnectionTracker {
  const tracker: ConnectionTracker = { tlsSource, host: '', tls: {}, lastEnd: null, open: new Set() }
  trackers.add(tracker)
  return tracker
}

/** Closes all connections of the log, known to their pools or not. Requests in flight on them fail. */
export function closeConnections(tracker: ConnectionTracker): void {
  for (const connection of tracker.open) connection.socket?.destroy()
  tracker.open.clear()
}

/** Options for the library, which reads them right after the channel has named the connection that it opens. */
export function tlsOptions(tracker: ConnectionTracker): ConnectionOptions {
  const options = {
    get ca() {
      return tracker.tls.ca
    },
    get cert() {
      return tracker.tls.cert
    },
    get key() {
      return tracker.tls.key
    },
    get servername() {
      return isIP(tracker.host) === 0 ? tracker.host : undefined
    },
  }
  return options as ConnectionOptions
}

const trackers = new WeakSet<object>()

connectionsConnectsChannel.start.subscribe((message) => {
  const { connection, host, port } = message as { connection: Connection; host: string; port: number }
  const { context } = connection
  if (typeof context !== 'object' || context === null || !trackers.has(context)) return
  track(connection, context as ConnectionTracker, { host, address: `${host}:${port}` })
})

function track(connection: Connection, tracker: ConnectionTracker, to: { host: string; address: string }): void {
  tracker.host = to.host
  tracker.tls = tracker.tlsSource?.() ?? {}
  let openedAtMs = performance.now()
  let error: Error | null = null
  for (const earlier of tracker.open) if (earlier.socket?.destroyed) tracker.open.delete(earlier)
  tracker.open.add(connection)
  const ended = () => {
    const atMs = performance.now()
    tracker.lastEnd = { address: to.address, atMs, openMs: atMs - openedAtMs, error }
  }
  connection.on('connect', () => {
    openedAtMs = performance.now()
  })
  connection.on('error', (cause) => {
    error = cause
    ended()
  })
  connection.on('close', () => {
    ended()
    // Where the broker requires logins to be renewed, a connection that it closed keeps its renewal timer, for up to
    // hours, and keeps the process from ending. Closing it again clears the timer, and does nothing else.
    void connection.close()
  })
}
