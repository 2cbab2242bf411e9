// Which GPUs each engine has: those that its processes hold, by the driver. The process that listens is seldom the one
// that computes: vLLM's and SGLang's workers are its children, and with several API servers its siblings. What another
// engine's own processes hold is never an engine's. Pure.

import { nearestAncestor, type ProcessInfo } from './process-table.ts'

export interface GpuHolders {
  /** The GPUs of this host, by index. */
  indexes: readonly number[]
  /** Processes with a context on each GPU, by index; null: the source of GPU figures does not know them. */
  pids: ReadonlyMap<number, readonly number[]> | null
}

export interface GpuFinding {
  /** Ascending; empty: it has none; null: not known. */
  gpus: number[] | null
  why: string
}

type Processes = ReadonlyMap<number, ProcessInfo>

/**
 * The GPUs of each engine, in the order of `engines`: for each the processes that hold its socket, none where these are
 * not known (another user's). `processes` are all that are visible here.
 */
export function gpusOfEngines(
  engines: readonly (readonly number[])[],
  holders: GpuHolders,
  processes: Processes,
): GpuFinding[] {
  const { pids } = holders
  if (pids === null) {
    return engines.map(() => theOnlyOne(holders, 'which processes hold GPUs is known by NVML only'))
  }
  const servers = new Set(engines.flat())
  const hasStrangers = [...pids.values()].flat().some((pid) => !processes.has(pid))
  return engines.map((listeners) => {
    if (listeners.length === 0) return theOnlyOne(holders, 'its process is not visible here')
    const serverOf = (pid: number) => nearestAncestor(pid, servers, processes)
    const own = heldBy(pids, (pid) => listeners.includes(serverOf(pid) ?? Number.NaN))
    if (own !== null) return own
    const groups = new Set(listeners.flatMap((pid) => processes.get(pid)?.group ?? []))
    const isBeside = (pid: number) => serverOf(pid) === null && groups.has(processes.get(pid)?.group ?? Number.NaN)
    const beside = heldBy(pids, isBeside)
    if (beside !== null) return { ...beside, why: `${beside.why}, in the process group of its server` }
    if (!hasStrangers) return { gpus: [], why: 'no process of it holds a GPU' }
    return theOnlyOne(holders, 'no process of it holds a GPU, but some that are not visible here do')
  })
}

/** On a host with one GPU that one is meant. */
function theOnlyOne({ indexes }: GpuHolders, why: string): GpuFinding {
  if (indexes.length === 1) return { gpus: [...indexes], why: `${why}; this host has one GPU` }
  return { gpus: null, why: `${why}; name its GPUs with --gpus` }
}

function heldBy(
  holders: ReadonlyMap<number, readonly number[]>,
  isOwn: (pid: number) => boolean,
): { gpus: number[]; why: string } | null {
  const held = [...holders].filter(([, pids]) => pids.some(isOwn))
  if (held.length === 0) return null
  const gpus = held.map(([index]) => index).sort((a, b) => a - b)
  const pids = [...new Set(held.flatMap(([, all]) => all.filter(isOwn)))].sort((a, b) => a - b)
  const shown = `${pids.slice(0, 4).join(', ')}${pids.length > 4 ? ' and others' : ''}`
  return { gpus, why: `${pids.length === 1 ? 'process' : 'processes'} ${shown} of it on GPU ${gpus.join(', ')}` }
}
