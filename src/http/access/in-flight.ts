// Limits of what is in flight. A client that pipelines requests, or that requests much and reads nothing, makes the
// answers wait in this process: one read of 64 KiB may hold a thousand requests. So the requests of one connection are
// bounded, and those of all connections; and a connection whose answers nothing reads is closed. Probes are always
// served, since an orchestrator restarts what does not respond.

import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { HttpProblem } from '../problem.ts'

/** Requests that one connection may have in flight: browsers pipeline none, HTTP clients a few. */
const MAX_OF_CONNECTION = 8
/** Requests in flight of all connections, without probes. */
const MAX_IN_FLIGHT = 512
/** How often connections with waiting answers are looked at, and how much each must take off meanwhile. */
const DRAIN_CHECK_MS = 30_000
const MIN_DRAINED_BYTES = 64 * 1024
/** Looks in a row without that: an answer that was written in one piece shows progress at its end only. */
const MAX_STUCK_LOOKS = 4

/** What is known of a connection with requests in flight. */
interface Connection {
  requests: number
  /** Bytes that had left when it was last looked at, and how many looks in a row found bytes waiting and few left. */
  leftBytes: number
  stuckLooks: number
}

/** Adds the limits to all routes. To be called before hooks that do work. */
export function limitInFlight(app: FastifyInstance, checkMs = DRAIN_CHECK_MS): void {
  /** Connections with requests in flight. */
  const connections = new Map<Socket, Connection>()
  /** A connection comes and goes there with each request, and is heard of once when it closes. */
  const watched = new WeakSet<Socket>()
  let inFlight = 0
  const end = (socket: Socket, count: number) => {
    const connection = connections.get(socket)
    if (connection === undefined) return
    inFlight -= count
    connection.requests -= count
    if (connection.requests === 0) connections.delete(socket)
  }

  app.addHook('onRequest', (request, reply, done) => {
    const { socket } = request.raw
    if (socket.destroyed) {
      // The rest of the piece of input whose beginning exceeded the limit.
      reply.hijack()
      return
    }
    let connection = connections.get(socket)
    if (connection === undefined) {
      connection = { requests: 0, leftBytes: 0, stuckLooks: 0 }
      connections.set(socket, connection)
    }
    if (!watched.has(socket)) {
      watched.add(socket)
      // Answers that wait for one before them are not closed with their connection.
      socket.once('close', () => end(socket, connections.get(socket)?.requests ?? 0))
    }
    connection.requests++
    inFlight++
    if (connection.requests > MAX_OF_CONNECTION) {
      reply.hijack()
      socket.destroy()
      return
    }
    reply.raw.once('close', () => end(socket, 1))
    const isProbe = !request.is404 && request.routeOptions.config.scope === 'probe'
    if (inFlight <= MAX_IN_FLIGHT || isProbe) done()
    else done(HttpProblem.later('overloaded', `More than ${MAX_IN_FLIGHT} requests are in flight: try again`))
  })

  const timer = setInterval(() => closeStuck(connections), checkMs).unref()
  app.addHook('onClose', async () => clearInterval(timer))
}

/** Closes connections that took off too little for too many looks in a row, while bytes waited. */
function closeStuck(connections: ReadonlyMap<Socket, Connection>): void {
  for (const [socket, connection] of connections) {
    // Of what was handed over, `writableLength` has not left this process.
    const leftBytes = socket.bytesWritten - socket.writableLength
    const isStuck = socket.writableLength > 0 && leftBytes - connection.leftBytes < MIN_DRAINED_BYTES
    connection.stuckLooks = isStuck ? connection.stuckLooks + 1 : 0
    connection.leftBytes = leftBytes
    if (connection.stuckLooks >= MAX_STUCK_LOOKS) socket.destroy()
  }
}
