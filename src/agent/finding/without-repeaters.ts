// Which of the sockets that speak like an engine are one. Some programs pass on what another one serves, and a server
// may have two ports: read as well, the same tokens would count twice, or those of another host here. Pure.

import type { ProcessInfo } from './process-table.ts'
import type { Candidate } from './socket-candidates.ts'

/** A socket that speaks like an engine. */
export interface Found extends Candidate {
  engine: string
  url: string
  /** Processes that hold its sockets; empty: not visible. */
  listeners: number[]
}

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

export interface Surroundings {
  processes: ReadonlyMap<number, ProcessInfo>
  /** Whether it is in a container with a network of its own. */
  isForeign: (found: Found) => boolean
}

/** Engines, each once: not what forwards to one, and adds a note for each of these. */
export function withoutRepeaters(
  speaking: readonly Found[],
  { processes, isForeign, notes, denied }: Surroundings & { notes: string[]; denied: number },
): Found[] {
  const runs = (found: Found, commands: ReadonlySet<string>) =>
    found.listeners.map((pid) => processes.get(pid)?.command ?? '').find((command) => commands.has(command))
  const isPublished = (found: Found) => runs(found, OF_CONTAINERS) !== undefined
  const hasForeign = speaking.some(isForeign)
  const taken: Found[] = []
  for (const found of speaking) {
    const forwarder = runs(found, FORWARDERS)
    const twin = taken.find(({ listeners }) => listeners.length > 0 && `${listeners}` === `${found.listeners}`)
    const why =
      forwarder !== undefined
        ? `${forwarder} forwards there; name the engine itself with --engine URL`
        : twin !== undefined
          ? `it is the same process as ${twin.url}`
          : hasForeign && isPublished(found)
            ? "it is a container's published port, and engines in containers are read there"
            : null
    if (why === null) taken.push(found)
    else notes.push(`${found.engine} at ${found.url} is not read: ${why}`)
    if (found.listeners.length === 0 && denied > 0) {
      notes.push(
        `${found.engine} at ${found.url}: its process is not visible to this user; run the agent as root or with CAP_SYS_PTRACE to see its GPUs`,
      )
    }
  }
  return taken
}
