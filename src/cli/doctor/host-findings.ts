// Findings of `doctor` about the identity of hosts and GPUs: a container's id in the place of a host's name, one GPU
// under two names, two GPUs under one, and a host that tokens spell otherwise than samples. A slot, host and index,
// identifies a GPU in the ledger, so each splits, doubles or hides what it costs.

import type { GpuConflict } from '../../domain/ledger/gpu-conflicts.ts'
import { type HostSpelling, hostSpellings } from '../../domain/ledger/host-spellings.ts'
import { PriceBookVersions } from '../../processor/prices/price-book-versions.ts'
import { type DoubtedCounter, readRecentGpus, readUsedSlots } from '../../processor/recent-gpus.ts'
import type { EventStore } from '../../store/event-store.ts'
import type { Config } from '../options.ts'
import type { Finding } from './finding.ts'

/** What the stored samples and tokens show. */
export interface HostLook {
  /** Event time of each host's newest sample, epoch milliseconds. */
  newestMs: Map<string | null, number>
  conflicts: readonly GpuConflict[]
  counters: readonly DoubtedCounter[]
  spellings: readonly HostSpelling[]
}

/** What Docker and podman name a container's host by default. */
const CONTAINER_ID = /^[0-9a-f]{12}$/
const MAX_LISTED = 5

/** Reads the samples of the last hour of event time, and the newest tokens. */
export async function probeHosts(store: EventStore): Promise<HostLook> {
  const books = new PriceBookVersions(store.ledger)
  await books.refresh()
  const nameOf = <H extends string | null>(host: H): H => books.hosts.nameOf(host)
  const { samples, conflicts, counters } = await readRecentGpus(store, nameOf)
  const newestMs: HostLook['newestMs'] = new Map()
  for (const { host, ts } of samples) newestMs.set(host, Math.max(ts.getTime(), newestMs.get(host) ?? 0))
  const sampled = samples.map(({ host, gpu_index }) => ({ host: nameOf(host), gpu_index }))
  return { newestMs, conflicts, counters, spellings: hostSpellings(sampled, await readUsedSlots(store, nameOf)) }
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
  for (const conflict of look.conflicts) add(false, conflictText(conflict))
  for (const { tokenHost, sampleHost, gpu_indexes } of look.spellings) {
    const gpus = listed(gpu_indexes.map((index) => `GPU ${index}`))
    const found = `Tokens name host "${tokenHost}", of which no sample came; "${sampleHost}" has samples of ${gpus}`
    const entry = `hosts: [{ name: ${sampleHost}, aliases: [${tokenHost}] }]`
    add(false, `${found}: if it is one host, its time is paid for twice; join them in the price book: ${entry}`)
  }
  if (look.counters.length > 0) {
    const slots = look.counters.map(({ host, gpu_index, doubt }) => `"${host ?? ''}" GPU ${gpu_index} ${DOUBTS[doubt]}`)
    const used = 'its power_w is used instead, or no energy at all where it has none'
    add(null, `The energy counter (energy_j) of ${listed(slots)}: ${used}; check what sends it`)
  }
  if (findings.every(({ ok }) => ok === null) && look.newestMs.size > 0) {
    findings.push({ part: 'hosts', ok: true, message: `${look.newestMs.size} in the last hour of samples` })
  }
  return findings
}

function conflictText(conflict: GpuConflict): string {
  if (conflict.kind === 'uuid_in_two_slots') {
    const slots = listed(conflict.slots.map(({ host, gpu_index }) => `"${host ?? ''}" GPU ${gpu_index}`))
    const found = `One GPU, ${conflict.uuid}, is sampled under ${slots}, and paid for under each`
    return `${found}: give its host one name, or join its names in the price book (hosts)`
  }
  const slot = `"${conflict.host ?? ''}" GPU ${conflict.gpu_index}`
  if (conflict.kind === 'two_names_in_slot') {
    return `${slot} is sampled as ${listed(conflict.names)}: two machines use one host name; give each its own`
  }
  const found = `${slot} is sampled as ${listed(conflict.uuids)}, which take turns, and only one GPU is paid for`
  return `${found}: give each machine or container its own host name, and each GPU its own index`
}

const DOUBTS: Record<DoubtedCounter['doubt'], string> = {
  back: 'goes back',
  leap: 'leaps by more than a GPU can draw',
  stopped: 'rests while power is measured',
}

const REMEDY = 'each new container would be another host in the ledger; set hostname: in the compose file, or HOSTNAME'

function listed(names: readonly string[]): string {
  const more = names.length > MAX_LISTED ? ` and ${names.length - MAX_LISTED} more` : ''
  return `${names.slice(0, MAX_LISTED).join(', ')}${more}`
}
