// What contradicts in the identity of hosts and GPUs, as sentences with what to do: one GPU under two names, two GPUs
// under one, a host that tokens spell otherwise than samples, an energy counter that is not believed. `doctor` lists
// them, and /health beside its problems: they cost money, and restarting the process would not help.

import type { GpuConflict } from '../domain/fleet/gpu-conflicts.ts'
import { type HostSpelling, hostSpellings, spellingText } from '../domain/fleet/host-spellings.ts'
import type { CounterDoubt } from '../domain/ledger/energy.ts'
import type { EventStore } from '../store/event-store.ts'
import { type DoubtedCounter, readRecentGpus, readUsedSlots } from './recent-gpus.ts'

/** A note: `code` is stable. */
export interface Note {
  code: GpuConflict['kind'] | 'host_spelling' | 'energy_counter'
  message: string
}

export interface IdentityLook {
  conflicts: readonly GpuConflict[]
  counters: readonly DoubtedCounter[]
  spellings: readonly HostSpelling[]
}

const MAX_LISTED = 5

/** Reads the newest samples and tokens; `nameOf`: the one name of a host. Rejects with a StoreError. */
export async function readIdentity(
  store: Pick<EventStore, 'newestMs' | 'latestSamplePerSlot' | 'readEvents'>,
  nameOf: <H extends string | null>(host: H) => H,
): Promise<IdentityLook & Pick<Awaited<ReturnType<typeof readRecentGpus>>, 'samples'>> {
  const { samples, conflicts, counters } = await readRecentGpus(store, nameOf)
  const sampled = samples.map(({ host, gpu_index }) => ({ host: nameOf(host), gpu_index }))
  return { samples, conflicts, counters, spellings: hostSpellings(sampled, await readUsedSlots(store, nameOf)) }
}

/** All notes of a look; empty where all is well. */
export function identityNotes({ conflicts, counters, spellings }: IdentityLook): Note[] {
  const notes: Note[] = conflicts.map((conflict) => ({ code: conflict.kind, message: conflictText(conflict) }))
  for (const spelling of spellings) notes.push({ code: 'host_spelling', message: spellingText(spelling) })
  if (counters.length > 0) {
    const slots = counters.map(({ host, gpu_index, doubt }) => `"${host ?? ''}" GPU ${gpu_index} ${DOUBTS[doubt]}`)
    const used = 'its power_w is used instead, or no energy at all where it has none'
    const message = `The energy counter (energy_j) of ${listed(slots)}: ${used}; check what sends it`
    notes.push({ code: 'energy_counter', message })
  }
  return notes
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

const DOUBTS: Record<Exclude<CounterDoubt, 'two GPUs'>, string> = {
  back: 'goes back',
  leap: 'leaps by more than a GPU can draw',
  stopped: 'rests while power is measured',
}

function listed(names: readonly string[]): string {
  const more = names.length > MAX_LISTED ? ` and ${names.length - MAX_LISTED} more` : ''
  return `${names.slice(0, MAX_LISTED).join(', ')}${more}`
}
