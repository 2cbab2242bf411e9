// Which listening sockets may be an engine's, and at which address each is asked. Never another host's: the sockets are
// this host's own, and each is asked at loopback or at the address that it is bound to. Ports at which no engine is and
// which a request would disturb (it would stand in their log as a fault) are not asked. Pure.

import type { ListeningSocket } from './listening-sockets.ts'

export interface Candidate {
  /** Several where servers share a port. */
  inodes: readonly number[]
  port: number
  /** Addresses of its page, the first that answers counts. */
  urls: readonly string[]
}

/** Mail, remote shells, file servers, databases, queues: none speaks HTTP, or none is an engine. */
const OTHERS = new Set([
  ...[1433, 1521, 1883, 2049, 2181, 2379, 2380, 3306, 3389, 5432, 5671, 5672, 5900, 6379, 6380, 6443, 6783],
  ...[7000, 7001, 9042, 9092, 9093, 9094, 9100, 9400, 10_250, 10_257, 10_259, 11_211, 15_672, 26_379, 27_017, 27_018],
])
/** Below are the system's own services, but for the two of HTTP. */
const FIRST_PORT = 1024
const HTTP_PORTS = [80, 443]
/** Of a container that are tried. */
const MAX_ADDRESSES = 2

/** Sockets of this network namespace, one for each port, the lowest first; `own` are the ports of this program. */
export function candidatesOf(sockets: readonly ListeningSocket[], own: ReadonlySet<number>): Candidate[] {
  const byPort = Map.groupBy(
    sockets.filter(({ port }) => isPossible(port) && !own.has(port)),
    ({ port }) => port,
  )
  return [...byPort]
    .map(([port, all]) => {
      const urls = [...new Set(all.flatMap(({ address }) => hostsFor(address)))].map((host) => pageAt(host, port))
      return { inodes: all.map(({ inode }) => inode), port, urls: urls.toSorted(loopbackFirst) }
    })
    .toSorted((a, b) => a.port - b.port)
}

/**
 * Sockets of another network namespace (a container's), at its addresses. What listens on its loopback only, or has no
 * address, cannot be reached from here.
 */
export function foreignCandidatesOf(
  sockets: readonly ListeningSocket[],
  addresses: readonly string[],
): { candidates: Candidate[]; unreachable: number[] } {
  const isLocal = ({ address }: ListeningSocket) =>
    address.startsWith('127.') || address === '[::1]' || (isAny(address) && addresses.length === 0)
  const possible = sockets.filter(({ port }) => isPossible(port))
  const byPort = Map.groupBy(
    possible.filter((socket) => !isLocal(socket)),
    ({ port }) => port,
  )
  const candidates = [...byPort].map(([port, all]) => {
    const hosts = all.flatMap(({ address }) => (isAny(address) ? addresses.slice(0, MAX_ADDRESSES) : [address]))
    const urls = [...new Set(hosts)].map((host) => pageAt(host, port))
    return { inodes: all.map(({ inode }) => inode), port, urls }
  })
  return {
    candidates: candidates.toSorted((a, b) => a.port - b.port),
    unreachable: possible.filter((socket) => isLocal(socket) && !byPort.has(socket.port)).map(({ port }) => port),
  }
}

function isPossible(port: number): boolean {
  return (port >= FIRST_PORT || HTTP_PORTS.includes(port)) && !OTHERS.has(port)
}

function isAny(address: string): boolean {
  return address === '0.0.0.0' || address === '[::]'
}

/** A socket of all IPv6 addresses takes IPv4 too, unless it was asked not to. */
function hostsFor(address: string): string[] {
  if (address === '0.0.0.0') return ['127.0.0.1']
  return address === '[::]' ? ['127.0.0.1', '[::1]'] : [address]
}

function pageAt(host: string, port: number): string {
  return `http://${host}:${port}/metrics`
}

function loopbackFirst(a: string, b: string): number {
  const rank = (url: string) => (url.startsWith('http://127.') ? 0 : url.startsWith('http://[::1]') ? 1 : 2)
  return rank(a) - rank(b)
}
