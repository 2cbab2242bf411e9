// A TCP proxy on a free loopback port that stands for the network's faults between a client and a server. `cut` resets
// all connections and each new one; `hold` keeps them open and forwards nothing (half-open: what a silent firewall
// does), bytes wait in the kernel and go on at `resume`. A dropped reply is a request that the server carried out and
// whose answer never arrives: the bytes are swallowed and the connection is reset, for a stream with a hole is none.

import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

export type ReplyDropper = number | ((reply: Buffer) => boolean)
export type ProxyTarget = { targetPort: number; targetHost?: string }

export async function startProxy(target: ProxyTarget): Promise<TcpProxy> {
  const proxy = new TcpProxy(target)
  await proxy.listen()
  return proxy
}

type Pair = { client: Socket; server: Socket }

export class TcpProxy {
  /** Waited for before each chunk, in both directions; chunks of one direction wait one after another. */
  delayMs = 0
  /** Of one direction of one connection. */
  bytesPerSecond = Number.POSITIVE_INFINITY
  /** How many replies have been swallowed. */
  repliesDropped = 0
  readonly #target: ProxyTarget
  readonly #listener: Server
  readonly #pairs = new Set<Pair>()
  #isCut = false
  #held: PromiseWithResolvers<void> | undefined
  #drop: ReplyDropper = 0

  constructor(target: ProxyTarget) {
    this.#target = target
    this.#listener = createServer({ allowHalfOpen: true, noDelay: true }, (client) => this.#accept(client))
  }

  async listen(): Promise<void> {
    this.#listener.listen(0, '127.0.0.1')
    await once(this.#listener, 'listening')
  }

  get port(): number {
    return (this.#listener.address() as { port: number }).port
  }

  /** Connections that are open through the proxy now. */
  get connections(): number {
    return this.#pairs.size
  }

  /** Swallows a reply with this probability, or when the function says so; 0 ends it. */
  dropReplies(drop: ReplyDropper): void {
    this.#drop = drop
  }

  cut(): void {
    this.resume()
    this.#isCut = true
    for (const pair of this.#pairs) this.#end(pair)
  }

  hold(): void {
    this.#isCut = false
    this.#held ??= Promise.withResolvers<void>()
  }

  /** Ends `cut` and `hold`. */
  resume(): void {
    this.#isCut = false
    this.#held?.resolve()
    this.#held = undefined
  }

  async close(): Promise<void> {
    this.cut()
    await new Promise((resolve) => this.#listener.close(resolve))
  }

  #accept(client: Socket): void {
    client.on('error', () => {})
    if (this.#isCut) {
      client.resetAndDestroy()
      return
    }
    const { targetPort: port, targetHost: host = '127.0.0.1' } = this.#target
    const server = connect({ port, host, allowHalfOpen: true, noDelay: true })
    server.on('error', () => {})
    const pair = { client, server }
    this.#pairs.add(pair)
    const fail = () => this.#end(pair)
    const requests = this.#forward(client, server, () => false).catch(fail)
    const replies = this.#forward(server, client, (reply) => this.#isDropped(reply)).catch(fail)
    void Promise.all([requests, replies]).then(() => this.#pairs.delete(pair))
  }

  /** Reads a chunk only when the last one has gone on: what it does not read waits in the kernel (back-pressure). */
  async #forward(from: Socket, to: Socket, swallows: (chunk: Buffer) => boolean): Promise<void> {
    for await (const chunk of from as AsyncIterable<Buffer>) {
      const waitMs = this.delayMs + (chunk.length / this.bytesPerSecond) * 1000
      if (waitMs > 0) await sleep(waitMs)
      while (this.#held) await this.#held.promise
      if (swallows(chunk)) {
        this.repliesDropped++
        throw new Error('Cannot go on with the connection: a reply was dropped')
      }
      if (!to.write(chunk) && !to.destroyed) {
        await new Promise<void>((resolve) => {
          const go = () => {
            to.off('drain', go).off('close', go)
            resolve()
          }
          to.on('drain', go).on('close', go)
        })
      }
    }
    while (this.#held) await this.#held.promise
    to.end()
  }

  #isDropped(reply: Buffer): boolean {
    return typeof this.#drop === 'number' ? Math.random() < this.#drop : this.#drop(reply)
  }

  #end(pair: Pair): void {
    this.#pairs.delete(pair)
    pair.client.resetAndDestroy()
    pair.server.resetAndDestroy()
  }
}
