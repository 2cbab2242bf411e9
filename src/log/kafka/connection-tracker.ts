// What connections to brokers tell beside answers, kept for one log. The library hands a caller whose connection breaks a
// bare "Connection closed": why (say a TLS alert, since the broker wants a client certificate) is in an event of the
// connection that nobody hears, and a second such event would end the process. It also sends no server name in the TLS
// handshake unless it is told to, and then dies of brokers with an IP address; routers that go by names need one. And it
// loses connections: one that is reset tells its pool twice ("error", then "close"), and the second word takes out of the
// pool whatever was opened to the same broker in between. Nobody would close that, and the process would not end for as
// long as the broker keeps it, ten minutes by default. All hang on the library's diagnostics channel, which names connection
// and host in the very call that then opens the socket.

import { isIP } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import { type Connection, connectionsConnectsChannel } from '@platformatic/kafka'

/** PEM texts. */
export interface TlsTexts {
  /** Without it the certificate authorities that come with Node. */
  ca?: string | string[]
  cert?: string
  key?: string
}

/** Asked for each new connection, so that files which were renewed count at once. Must not throw. */
export type TlsSource = () => TlsTexts

export interface ConnectionTracker {
  readonly tlsSource: TlsSource | undefined
  /** Of the connection that was opened last. */
  host: string
  tls: TlsTexts
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

/** Notes of one log; they are handed to its clients as their `context`, by which the channel finds them again. */
export function newConnectionTracker(tlsSource: TlsSource | undefined): ConnectionTracker {
  const notes: ConnectionTracker = { tlsSource, host: '', tls: {}, lastEnd: null, open: new Set() }
  ours.add(notes)
  return notes
}

/** Ends all connections of the log, known to their pools or not. Nothing may be under way on them that is still wanted. */
export function closeConnections(notes: ConnectionTracker): void {
  for (const connection of notes.open) connection.socket?.destroy()
  notes.open.clear()
}

/** Options for the library, which reads them right after the channel has told whose connection it opens. */
export function tlsOptions(notes: ConnectionTracker): ConnectionOptions {
  const options = {
    get ca() {
      return notes.tls.ca
    },
    get cert() {
      return notes.tls.cert
    },
    get key() {
      return notes.tls.key
    },
    get servername() {
      return isIP(notes.host) === 0 ? notes.host : undefined
    },
  }
  return options as ConnectionOptions
}

const ours = new WeakSet<object>()

connectionsConnectsChannel.start.subscribe((message) => {
  const { connection, host, port } = message as { connection: Connection; host: string; port: number }
  const notes = connection.context
  if (typeof notes !== 'object' || notes === null || !ours.has(notes)) return
  takeNotes(connection, notes as ConnectionTracker, { host, address: `${host}:${port}` })
})

function takeNotes(connection: Connection, notes: ConnectionTracker, to: { host: string; address: string }): void {
  notes.host = to.host
  notes.tls = notes.tlsSource?.() ?? {}
  let openedAtMs = performance.now()
  let error: Error | null = null
  for (const each of notes.open) if (each.socket?.destroyed) notes.open.delete(each)
  notes.open.add(connection)
  const ended = () => {
    const atMs = performance.now()
    notes.lastEnd = { address: to.address, atMs, openMs: atMs - openedAtMs, error }
  }
  connection.on('connect', () => {
    openedAtMs = performance.now()
  })
  connection.on('error', (each) => {
    error = each
    ended()
  })
  connection.on('close', () => {
    ended()
    // Where the broker wants logins renewed, a connection that it closed would go on waiting for that, for up to hours,
    // and keep the process from ending. Closing it again ends that, and does nothing else.
    void connection.close()
  })
}
