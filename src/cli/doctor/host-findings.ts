// Findings of `doctor` about the identity of hosts and GPUs: a container's id in the place of a host's name, one GPU
// under two names, two GPUs under one, and a host that tokens spell otherwise than samples. A slot, host and index,
// identifies a GPU in the ledger, so each splits, doubles or hides what it costs.

import { type IdentityLook, identityNotes, readIdentity } from '../../processor/identity-notes.ts'
import { PriceBookVersions } from '../../processor/prices/price-book-versions.ts'
import type { EventStore } from '../../store/event-store.ts'
import type { Config } from '../options.ts'
import type { Finding } from './finding.ts'

/** What the stored samples and tokens show. */
export interface HostLook extends IdentityLook {
  /** Event time of each host's newest sample, epoch milliseconds. */
  newestMs: Map<string | null, number>
}

/** What Docker and podman name a container's host by default. */
const CONTAINER_ID = /^[0-9a-f]{12}$/
const MAX_LISTED = 5

/** Reads the samples of the last hour of event time, and the newest tokens. */
export async function probeHosts(store: EventStore): Promise<HostLook> {
  const books = new PriceBookVersions(store.ledger)
  await books.refresh()
  const { samples, ...look } = await readIdentity(store, (host) => books.hosts.nameOf(host))
  const newestMs: HostLook['newestMs'] = new Map()
  for (const { host, ts } of samples) newestMs.set(host, Math.max(ts.getTime(), newestMs.get(host) ?? 0))
  return { ...look, newestMs }
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
  for (const { code, message } of identityNotes(look)) add(code === 'energy_counter' ? null : false, message)
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
