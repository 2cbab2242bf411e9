// Reads Linux' /proc: sockets that listen, processes, and which process holds which socket. What another user's
// processes hold is not readable without privilege: these are counted, never an error. Nothing blocks for long: reading
// descriptors is a call for each of them, so the loop is given back every few milliseconds; and each walk has a limit.

import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs'
import { setImmediate as breathe } from 'node:timers/promises'
import { type ListeningSocket, parseListeningSockets, parseOwnAddresses } from './listening-sockets.ts'
import { type ProcessInfo, parseStat } from './process-table.ts'

export interface SocketOwners {
  /** Processes by socket's inode. */
  pids: Map<number, number[]>
  /** Processes whose descriptors may not be read. */
  denied: number
}

/** A table of sockets has 150 bytes a connection. */
const MAX_TABLE_BYTES = 8 * 1024 * 1024
const MAX_PROCESSES = 32_768
const MAX_DESCRIPTORS = 300_000
/** The first namespace of processes has this number on every Linux (PROC_PID_INIT_INO). */
const HOST_PROCESSES = 'pid:[4026531836]'
/** How long the loop is held at a time. */
const SLICE_MS = 4

export class ProcReader {
  readonly #root: string

  constructor(root = '/proc') {
    this.#root = root
  }

  /** Whether this system has what is read here. */
  get isAvailable(): boolean {
    return this.#read('net/tcp') !== null || this.#read('net/tcp6') !== null
  }

  /** Listening sockets of this process' network namespace, or of another process'; empty where it is not readable. */
  sockets(pid?: number): ListeningSocket[] {
    const place = pid === undefined ? 'net' : `${pid}/net`
    return ['tcp', 'tcp6'].flatMap((table) => parseListeningSockets(this.#read(`${place}/${table}`) ?? ''))
  }

  /** The network namespace of this process or another one; null where it may not be read. */
  network(pid?: number): string | null {
    const link = this.#link(`${pid ?? 'self'}/ns/net`)
    return link === '' ? null : link
  }

  /** Addresses of a process' network namespace, without loopback. */
  addresses(pid: number): string[] {
    return parseOwnAddresses(this.#read(`${pid}/net/fib_trie`) ?? '')
  }

  /**
   * Whether this program sees processes by other numbers than the host does. A driver may then report numbers of the
   * host's, which here are no process or another one.
   */
  get isContained(): boolean {
    const namespace = this.#link('self/ns/pid')
    return namespace !== '' && namespace !== HOST_PROCESSES
  }

  /** Whether a process has a GPU's device open, as far as that may be read. */
  usesGpu(pid: number): boolean {
    const names = this.#descriptors(pid) ?? []
    return names.slice(0, 10_000).some((name) => this.#link(`${pid}/fd/${name}`).startsWith('/dev/nvidia'))
  }

  /** These processes and their ancestors, as far as they exist here. */
  lineages(pids: Iterable<number>): Map<number, ProcessInfo> {
    const processes = new Map<number, ProcessInfo>()
    for (const pid of pids) {
      for (let at = pid; at > 0 && !processes.has(at); ) {
        const info = parseStat(this.#read(`${at}/stat`) ?? '')
        if (info === null) break
        processes.set(at, info)
        at = info.parent
      }
    }
    return processes
  }

  /** Which processes hold these sockets: several where a server forked or shares its socket. */
  async owners(inodes: ReadonlySet<number>): Promise<SocketOwners> {
    const owners: SocketOwners = { pids: new Map(), denied: 0 }
    const slice = slices()
    let left = MAX_DESCRIPTORS
    for (const pid of this.#pids()) {
      const descriptors = this.#descriptors(pid)
      if (descriptors === null) owners.denied += 1
      for (const name of descriptors ?? []) {
        if (--left < 0) return owners
        const inode = Number(/^socket:\[(\d+)\]$/.exec(this.#link(`${pid}/fd/${name}`))?.[1] ?? Number.NaN)
        if (!inodes.has(inode)) continue
        const pids = owners.pids.get(inode) ?? []
        if (!pids.includes(pid)) owners.pids.set(inode, [...pids, pid])
      }
      await slice()
    }
    return owners
  }

  #pids(): number[] {
    return readdirSync(this.#root).map(Number).filter(Number.isInteger).slice(0, MAX_PROCESSES)
  }

  /** Null: they may not be read; empty: the process has ended. */
  #descriptors(pid: number): string[] | null {
    try {
      return readdirSync(`${this.#root}/${pid}/fd`)
    } catch (error) {
      return /^(EACCES|EPERM)$/.test((error as NodeJS.ErrnoException).code ?? '') ? null : []
    }
  }

  #link(path: string): string {
    try {
      return readlinkSync(`${this.#root}/${path}`)
    } catch {
      return ''
    }
  }

  /** At most so much that a huge table does no harm; null where it cannot be read. */
  #read(path: string): string | null {
    try {
      if (!path.includes('net/')) return readFileSync(`${this.#root}/${path}`, 'utf8')
      const file = openSync(`${this.#root}/${path}`, 'r')
      try {
        const chunks: Buffer[] = []
        for (let bytes = 0; bytes < MAX_TABLE_BYTES; ) {
          const chunk = Buffer.alloc(64 * 1024)
          const length = readSync(file, chunk)
          if (length === 0) break
          bytes += length
          chunks.push(chunk.subarray(0, length))
        }
        return Buffer.concat(chunks).toString('latin1')
      } finally {
        closeSync(file)
      }
    } catch {
      return null
    }
  }
}

/** Returns a function that gives the loop back when it was held for long enough. */
function slices(): () => Promise<void> {
  let sinceMs = performance.now()
  return async () => {
    if (performance.now() - sinceMs < SLICE_MS) return
    await breathe()
    sinceMs = performance.now()
  }
}
