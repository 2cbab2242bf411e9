// What `doctor` says of the identity of hosts and GPUs: a container's id in the place of a host's name, and one GPU under
// two names. A slot, host and index, is who a GPU is in the ledger, so both split or double what it costs.

import { GpuConflicts } from '../../http/gpu-conflicts.ts'
import type { EventStore } from '../../store/event-store.ts'
import type { Config } from '../options.ts'
import type { Finding } from './finding.ts'

/** What the stored samples tell. */
export interface HostLook {
  /** Event time of each host's newest sample, epoch milliseconds. */
  newestMs: Map<string | null, number>
  conflicts: ReturnType<GpuConflicts['list']>
}

const HOUR_MS = 3_600_000
const MAX_SLOTS = 10_000
/** Two producers of one slot take turns, so the last samples are enough to see both. */
const TURNS_MS = 90_000
const MAX_TURNS = 20_000
/** What Docker and podman call a container's host unless they are told otherwise. */
const CONTAINER_ID = /^[0-9a-f]{12}$/
const MAX_LISTED = 5

/** Looks at the samples of the last hour of event time. */
export async function probeHosts(store: EventStore): Promise<HostLook> {
  const look: HostLook = { newestMs: new Map(), conflicts: [] }
  const newestMs = await store.newestMs('gpu')
  if (newestMs === null) return look
  const conflicts = new GpuConflicts()
  for (const sample of await store.latestSamplePerSlot(newestMs - HOUR_MS, MAX_SLOTS)) {
    conflicts.add(sample)
    look.newestMs.set(sample.host, Math.max(sample.ts.getTime(), look.newestMs.get(sample.host) ?? 0))
  }
  let looked = 0
  for await (const sample of store.readEvents('gpu', newestMs - TURNS_MS, newestMs + 1)) {
    if (++looked > MAX_TURNS) break
    conflicts.add(sample)
  }
  look.conflicts = conflicts.list()
  return look
}

/** `publishes`: whether events with this machine's HOSTNAME are to be expected. */
export function hostFindings(look: HostLook, config: Config, publishes: boolean): Finding[] {
  const findings: Finding[] = []
  const add = (ok: false | null, message: string) => findings.push({ part: 'hosts', ok, message })
  for (const name of ['HOSTNAME', 'DEFAULT_HOST'] as const) {
    const value = config[name]
    if (value === null || !CONTAINER_ID.test(value)) continue
    const matters = name === 'DEFAULT_HOST' || publishes || look.newestMs.has(value)
    add(matters ? false : null, `${name} is "${value}", a container's id: ${REMEDY}`)
  }
  const ids = [...look.newestMs.keys()].filter(
    (host) => host !== null && CONTAINER_ID.test(host) && host !== config.HOSTNAME,
  )
  if (ids.length > 0)
    add(false, `Samples come from ${listed(ids.map((id) => `"${id}"`))}, ids of containers: ${REMEDY}`)
  for (const conflict of look.conflicts) {
    if (conflict.kind === 'uuid_in_two_slots') {
      const slots = listed(conflict.slots.map(({ host, gpu_index }) => `"${host ?? ''}" GPU ${gpu_index}`))
      add(
        false,
        `One GPU, ${conflict.uuid}, is sampled under ${slots}, and paid for under each: give its host one name`,
      )
    } else {
      const slot = `"${conflict.host ?? ''}" GPU ${conflict.gpu_index}`
      add(false, `${slot} is sampled as ${listed(conflict.names)}: two machines use one host name; give each its own`)
    }
  }
  if (findings.every(({ ok }) => ok === null) && look.newestMs.size > 0) {
    findings.push({ part: 'hosts', ok: true, message: `${look.newestMs.size} in the last hour of samples` })
  }
  return findings
}

const REMEDY = 'each new container would be another host in the ledger; set hostname: in the compose file, or HOSTNAME'

function listed(names: readonly string[]): string {
  const more = names.length > MAX_LISTED ? ` and ${names.length - MAX_LISTED} more` : ''
  return `${names.slice(0, MAX_LISTED).join(', ')}${more}`
}
