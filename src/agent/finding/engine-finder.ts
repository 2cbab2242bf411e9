// Finds the inference engines of this host: asks what listens here for its page of metrics, and takes what speaks like
// an engine. Each socket is asked once, with a limit on time, size and number; again soon only while it may still be
// starting. Then which process holds the socket, which GPUs it has, and whether it is an engine at all or forwards to
// one: a forwarder's page would count the same tokens twice, or those of another host. A container on a network of its
// own is looked into where one of its processes holds a GPU. The result has what is taken, what is not, and why.

import { fetchPage, PageError } from '../exposition/fetch-page.ts'
import { type GpuFinding, type GpuHolders, gpusOfEngines } from './gpus-of-engine.ts'
import type { ListeningSocket } from './listening-sockets.ts'
import { ProcReader, type SocketOwners } from './proc-reader.ts'
import { type Candidate, candidatesOf, foreignCandidatesOf } from './socket-candidates.ts'
import { type Found, type Surroundings, withoutRepeaters } from './without-repeaters.ts'

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
/** Looking up who holds a socket takes a call for each descriptor of this host: after so long, or for a new engine. */
const OWNERS_MS = 60_000
export class EngineFinder {
  readonly #options: EngineFinderOptions
  readonly #proc: ProcReader
  readonly #fetch: typeof fetchPage
  readonly #nowMs: () => number
  readonly #verdicts = new Map<string, Verdict>()
  #owners: (SocketOwners & { inodes: ReadonlySet<number>; untilMs: number }) | null = null
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
    const speaking = await this.#withListeners(all)
    const gpuPids = [...(holders.pids?.values() ?? [])].flat()
    const processes = this.#proc.lineages([...gpuPids, ...speaking.flatMap(({ listeners }) => listeners)])
    const isForeign = (found: Found) => foreign.candidates.some((one) => keyOf(one) === keyOf(found))
    const taken = withoutRepeaters(speaking, { processes, isForeign, notes, denied: this.#owners?.denied ?? 0 })
    const gpus = gpusOfEngines(
      taken.map(({ listeners }) => listeners),
      holders,
      processes,
    )
    notes.push(...unclaimed(holders, gpus, processes))
    return { engines: taken.map((found, i) => describe(found, gpus[i]!, { processes, isForeign })), notes }
  }

  /** Those that speak like an engine, with the processes that hold their sockets: these are looked up now and then. */
  async #withListeners(candidates: readonly Candidate[]): Promise<Found[]> {
    const speaking = candidates.flatMap((candidate) => {
      const verdict = this.#verdicts.get(keyOf(candidate))
      return verdict === undefined || verdict.engine === null ? [] : [{ ...candidate, ...verdict }]
    })
    const inodes = new Set(speaking.flatMap((found) => found.inodes))
    const known = this.#owners
    if (
      inodes.size > 0 &&
      (known === null || this.#nowMs() >= known.untilMs || ![...inodes].every((inode) => known.inodes.has(inode)))
    ) {
      this.#owners = { ...(await this.#proc.owners(inodes)), inodes, untilMs: this.#nowMs() + OWNERS_MS }
    }
    return speaking.map((found) => ({
      ...found,
      listeners: [...new Set(found.inodes.flatMap((inode) => this.#owners?.pids.get(inode) ?? []))].sort(
        (a, b) => a - b,
      ),
    }))
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
    const networks = new Set([this.#proc.network()])
    const result: { candidates: Candidate[]; notes: string[] } = { candidates: [], notes: [] }
    for (const pid of new Set([...(pids?.values() ?? [])].flat().filter((one) => one > 0))) {
      const network = this.#proc.network(pid)
      if (network !== null && networks.has(network)) continue
      networks.add(network)
      const sockets = this.#proc.sockets(pid).filter(({ inode }) => !known.has(inode))
      if (sockets.length === 0) continue
      for (const { inode } of sockets) known.add(inode)
      const { candidates, unreachable } = foreignCandidatesOf(sockets, this.#proc.addresses(pid))
      result.candidates.push(...candidates)
      if (unreachable.length > 0) {
        result.notes.push(
          `Port ${unreachable.join(', ')} of the container of process ${pid}, which holds a GPU, cannot be reached from here (its loopback, or no address): have it listen on 0.0.0.0, or run the agent in the container`,
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
}

/** GPUs that are in use, though no engine that was found has them. */
function unclaimed({ pids }: GpuHolders, found: readonly GpuFinding[], processes: Surroundings['processes']): string[] {
  if (pids === null || found.some(({ gpus }) => gpus === null)) return []
  const claimed = new Set(found.flatMap(({ gpus }) => gpus ?? []))
  return [...pids].flatMap(([index, holders]) => {
    const pid = holders.find((one) => one > 0)
    if (pid === undefined || claimed.has(index)) return []
    const command = processes.get(pid)?.command
    return `GPU ${index} is held by process ${pid}${command === undefined ? '' : ` (${command})`} and no engine was found for it; if it is one, start it with its metrics (SGLang: --enable-metrics, llama.cpp: --metrics), or name it with --engine URL`
  })
}

function describe(found: Found, { gpus, why }: GpuFinding, { processes, isForeign }: Surroundings): FoundEngine {
  const { url, engine, listeners } = found
  const [pid] = listeners
  const by = pid === undefined ? '' : ` of process ${pid} (${processes.get(pid)?.command ?? 'unknown'})`
  return { url, engine, gpus, why: `${engine}${by}${isForeign(found) ? ' in a container' : ''}; ${why}` }
}

function keyOf({ inodes, port }: Candidate): string {
  return `${port} ${inodes.join(' ')}`
}
