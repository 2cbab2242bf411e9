// Finds the inference engines of this host: asks what listens here for its page of metrics, and takes what speaks like
// an engine. Each socket is asked once, with a limit on time, size and number; again soon only while it may still be
// starting. Then which process holds the socket, which GPUs it has, and whether it is an engine at all or forwards to
// one: a forwarder's page would count the same tokens twice, or those of another host. A container on a network of its
// own is looked into where one of its processes holds a GPU. The result has what is taken, what is not, and why.

import { fetchPage, PageError } from '../exposition/fetch-page.ts'
import { type GpuFinding, type GpuHolders, gpusOfEngines } from './gpus-of-engine.ts'
import type { ListeningSocket } from './listening-sockets.ts'
import { ProcReader } from './proc-reader.ts'
import type { ProcessInfo } from './process-table.ts'
import { type Candidate, candidatesOf, foreignCandidatesOf } from './socket-candidates.ts'

export interface EngineFinderOptions {
  /** The name of the engine whose page it is; null: it is no engine's. */
  speaksEngine: (page: string) => string | null
  /** The GPUs of this host and who holds them, as of now. */
  holders: () => GpuHolders
  /** Ports of this program, which are not asked. */
  ownPorts?: readonly number[]
  /** /proc, or a copy of it. */
  proc?: ProcReader
  fetch?: typeof fetchPage
  /** A monotonic clock. */
  nowMs?: () => number
}

/** An engine that was found. */
export interface FoundEngine {
  /** Its page of metrics. */
  url: string
  engine: string
  /** Indexes of its GPUs, ascending; empty: it has none; null: not known. */
  gpus: number[] | null
  /** For a log line: what listens there, and why these GPUs. */
  why: string
}

export interface EngineFinding {
  engines: FoundEngine[]
  /** What was seen and not taken, or could not be seen, one line each, with what to do. */
  notes: string[]
}

/** A socket's answer; one that is no engine's is asked again at `againMs`, having been asked `times`. */
type Verdict = { engine: string; url: string } | { engine: null; times: number; againMs: number }

interface Found extends Candidate {
  engine: string
  url: string
  listeners: number[]
  isForeign: boolean
}

const ASK_TIMEOUT_MS = 2000
const ASK_BYTES = 4 * 1024 * 1024
/** Asked at a time, and in one round. */
const PARALLEL = 4
const MAX_ASKED = 64
/** Pauses between two requests to what is no engine: they double from the first to the longest, which depends. */
const PAUSE_MS = 10_000
/** It may still load a model. */
const LONGEST_STARTING_MS = 10_000
/** It has metrics: an engine's may appear at first use. */
const LONGEST_METRICS_MS = 60_000
const LONGEST_MS = 600_000
/** They pass on what another program of this host serves: taken where that one is not seen. */
const OF_CONTAINERS = new Set(['docker-proxy', 'rootlessport', 'rootlesskit', 'slirp4netns', 'pasta', 'pasta.avx2'])
/** They pass on what may be on another host: never taken. */
const FORWARDERS = new Set([
  'nginx',
  'haproxy',
  'envoy',
  'traefik',
  'caddy',
  'apache2',
  'httpd',
  'ssh',
  'sshd',
  'kubectl',
])

export class EngineFinder {
  readonly #options: EngineFinderOptions
  readonly #proc: ProcReader
  readonly #fetch: typeof fetchPage
  readonly #nowMs: () => number
  readonly #verdicts = new Map<string, Verdict>()
  #finding: Promise<EngineFinding> | null = null

  constructor(options: EngineFinderOptions) {
    this.#options = options
    this.#proc = options.proc ?? new ProcReader()
    this.#fetch = options.fetch ?? fetchPage
    this.#nowMs = options.nowMs ?? (() => performance.now())
  }

  /** Looks once; a call during another one returns the same result. Never rejects but for a bug. */
  find(signal?: AbortSignal): Promise<EngineFinding> {
    this.#finding ??= this.#findOnce(signal).finally(() => {
      this.#finding = null
    })
    return this.#finding
  }

  async #findOnce(signal: AbortSignal | undefined): Promise<EngineFinding> {
    if (!this.#proc.isAvailable) {
      return { engines: [], notes: ['Engines are found on Linux only, by /proc: name one with --engine URL'] }
    }
    const holders = this.#trusted(this.#options.holders())
    const own = this.#proc.sockets()
    const candidates = candidatesOf(own, new Set(this.#options.ownPorts))
    const foreign = this.#foreign(holders, own)
    const notes = [...foreign.notes]
    const all = [...candidates, ...foreign.candidates]
    this.#forgetOthers(all)
    const unasked = await this.#ask(all, signal)
    if (unasked > 0) notes.push(`${unasked} more ports listen here: they are asked in the next rounds`)
    const speaking = all.flatMap((candidate) => {
      const verdict = this.#verdicts.get(keyOf(candidate))
      const isForeign = foreign.candidates.includes(candidate)
      return verdict === undefined || verdict.engine === null
        ? []
        : [{ ...candidate, ...verdict, isForeign, listeners: [] }]
    })
    const processes = holders.pids === null && speaking.length === 0 ? new Map() : await this.#proc.processes()
    const taken = await this.#take(speaking, processes, notes)
    const gpus = gpusOfEngines(
      taken.map(({ listeners }) => listeners),
      holders,
      processes,
    )
    notes.push(...unclaimed(holders, gpus, processes))
    return { engines: taken.map((found, i) => describe(found, gpus[i]!, processes)), notes }
  }

  /** Without process ids that may be another process' here: they become 0, which is none. */
  #trusted({ indexes, pids }: GpuHolders): GpuHolders {
    if (pids === null || !this.#proc.isContained) return { indexes, pids }
    const own = (pid: number) => (this.#proc.usesGpu(pid) ? pid : 0)
    return { indexes, pids: new Map([...pids].map(([index, all]) => [index, all.map(own)])) }
  }

  /** Containers with a network of their own, one of whose processes holds a GPU. */
  #foreign({ pids }: GpuHolders, own: readonly ListeningSocket[]): { candidates: Candidate[]; notes: string[] } {
    const known = new Set(own.map(({ inode }) => inode))
    const result: { candidates: Candidate[]; notes: string[] } = { candidates: [], notes: [] }
    for (const pid of new Set([...(pids?.values() ?? [])].flat().filter((one) => one > 0))) {
      const sockets = this.#proc.sockets(pid).filter(({ inode }) => !known.has(inode))
      if (sockets.length === 0) continue
      for (const { inode } of sockets) known.add(inode)
      const { candidates, unreachable } = foreignCandidatesOf(sockets, this.#proc.addresses(pid))
      result.candidates.push(...candidates)
      if (unreachable.length > 0) {
        result.notes.push(
          `Port ${unreachable.join(', ')} of the container of process ${pid}, which holds a GPU, listens on the container's loopback only: have it listen on 0.0.0.0, or run the agent in the container`,
        )
      }
    }
    return result
  }

  #forgetOthers(candidates: readonly Candidate[]): void {
    const present = new Set(candidates.map(keyOf))
    for (const key of this.#verdicts.keys()) if (!present.has(key)) this.#verdicts.delete(key)
  }

  /** Asks those that have no answer yet, or may give another one; returns how many are left for the next round. */
  async #ask(candidates: readonly Candidate[], signal: AbortSignal | undefined): Promise<number> {
    const due = candidates.filter((candidate) => {
      const verdict = this.#verdicts.get(keyOf(candidate))
      return verdict === undefined || (verdict.engine === null && this.#nowMs() >= verdict.againMs)
    })
    const queue = due.slice(0, MAX_ASKED)
    const askAll = async () => {
      for (let one = queue.shift(); one !== undefined && signal?.aborted !== true; one = queue.shift())
        this.#verdicts.set(keyOf(one), await this.#askOne(one, signal))
    }
    await Promise.all(Array.from({ length: PARALLEL }, askAll))
    return due.length - Math.min(due.length, MAX_ASKED)
  }

  async #askOne(candidate: Candidate, signal: AbortSignal | undefined): Promise<Verdict> {
    const before = this.#verdicts.get(keyOf(candidate))
    const times = before?.engine === null ? before.times + 1 : 1
    let longestMs = LONGEST_MS
    for (const url of candidate.urls) {
      try {
        const page = await this.#fetch(new URL(url), { timeoutMs: ASK_TIMEOUT_MS, maxBytes: ASK_BYTES, signal })
        const engine = this.#options.speaksEngine(page)
        if (engine !== null) return { engine, url }
        if (page.includes('# TYPE ')) longestMs = LONGEST_METRICS_MS
      } catch (error) {
        if (!(error instanceof PageError)) throw error
        if (error.status === 503) longestMs = LONGEST_STARTING_MS
        // Something answered: it is the same at its other address.
        if (error.code === 'unreachable') continue
      }
      break
    }
    return { engine: null, times, againMs: this.#nowMs() + Math.min(longestMs, PAUSE_MS * 2 ** (times - 1)) }
  }

  /** Those that are engines themselves, each once, with the processes that hold their sockets. */
  async #take(speaking: readonly Found[], processes: Processes, notes: string[]): Promise<Found[]> {
    if (speaking.length === 0) return []
    const { pids, denied } = await this.#proc.owners(new Set(speaking.flatMap(({ inodes }) => inodes)))
    const taken: Found[] = []
    for (const found of speaking) {
      const listeners = [...new Set(found.inodes.flatMap((inode) => pids.get(inode) ?? []))].sort((a, b) => a - b)
      const at = `${found.engine} at ${found.url}`
      const commands = listeners.map((pid) => processes.get(pid)?.command ?? '')
      const forwarder = commands.find((command) => FORWARDERS.has(command))
      const twin = taken.find((other) => listeners.length > 0 && `${other.listeners}` === `${listeners}`)
      if (listeners.length === 0 && denied > 0) {
        notes.push(
          `${at}: its process is not visible to this user; run the agent as root or with CAP_SYS_PTRACE to see its GPUs`,
        )
      }
      if (forwarder !== undefined) {
        notes.push(`${at} is not read: ${forwarder} forwards there; name the engine itself with --engine URL`)
      } else if (twin !== undefined) {
        notes.push(`${at} is not read: it is the same process as ${twin.url}`)
      } else taken.push({ ...found, listeners })
    }
    return withoutProxies(taken, processes, notes)
  }
}

type Processes = ReadonlyMap<number, ProcessInfo>

/** A container's published port is the engine in the container: where that one is found, it is not read twice. */
function withoutProxies(taken: readonly Found[], processes: Processes, notes: string[]): Found[] {
  const isProxy = ({ listeners }: Found) =>
    listeners.some((pid) => OF_CONTAINERS.has(processes.get(pid)?.command ?? ''))
  if (!taken.some(({ isForeign }) => isForeign)) return [...taken]
  return taken.filter((found) => {
    if (isProxy(found))
      notes.push(
        `${found.engine} at ${found.url} is not read: it is a container's published port, and engines in containers are read there`,
      )
    return !isProxy(found)
  })
}

/** GPUs that are in use, though no engine that was found has them. */
function unclaimed({ pids }: GpuHolders, found: readonly GpuFinding[], processes: Processes): string[] {
  if (pids === null || found.some(({ gpus }) => gpus === null)) return []
  const claimed = new Set(found.flatMap(({ gpus }) => gpus ?? []))
  return [...pids].flatMap(([index, holders]) => {
    const pid = holders.find((one) => one > 0)
    if (pid === undefined || claimed.has(index)) return []
    const command = processes.get(pid)?.command
    return `GPU ${index} is held by process ${pid}${command === undefined ? '' : ` (${command})`} and no engine was found for it; if it is one, start it with its metrics (SGLang: --enable-metrics, llama.cpp: --metrics), or name it with --engine URL`
  })
}

function describe(
  { url, engine, listeners, isForeign }: Found,
  { gpus, why }: GpuFinding,
  processes: Processes,
): FoundEngine {
  const [pid] = listeners
  const by = pid === undefined ? '' : ` of process ${pid} (${processes.get(pid)?.command ?? 'unknown'})`
  return { url, engine, gpus, why: `${engine}${by}${isForeign ? ' in a container' : ''}; ${why}` }
}

function keyOf({ inodes, port }: Candidate): string {
  return `${port} ${inodes.join(' ')}`
}
