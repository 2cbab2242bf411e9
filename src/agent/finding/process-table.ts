// Processes and how they descend from each other, by Linux' /proc/PID/stat. Pure. Format: proc_pid_stat(5).

export interface ProcessInfo {
  pid: number
  parent: number
  /** Process group: what one command of a shell, or one service, has started, unless it left it. */
  group: number
  /** The command's name, at most 15 characters. */
  command: string
}

/** Null when the text is not one of stat. The name may hold blanks and brackets, so its end is the last bracket. */
export function parseStat(text: string): ProcessInfo | null {
  const open = text.indexOf('(')
  const close = text.lastIndexOf(')')
  if (open === -1 || close < open) return null
  const [, parent, group] = text.slice(close + 2).split(' ')
  const info = { pid: Number.parseInt(text, 10), parent: Number(parent), group: Number(group) }
  if (!Object.values(info).every(Number.isInteger)) return null
  return { ...info, command: text.slice(open + 1, close) }
}

/** The first of `candidates` on the way from a process up to its ancestors, itself included; null: none. */
export function nearestAncestor(
  pid: number,
  candidates: ReadonlySet<number>,
  processes: ReadonlyMap<number, Pick<ProcessInfo, 'parent'>>,
): number | null {
  const seen = new Set<number>()
  for (let at: number | undefined = pid; at !== undefined && !seen.has(at); at = processes.get(at)?.parent) {
    if (candidates.has(at)) return at
    seen.add(at)
  }
  return null
}
