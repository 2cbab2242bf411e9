// Samples that contradict the identity of a GPU. A slot (host + index) identifies a GPU in the ledger; one uuid in two
// slots means that a GPU is paid for twice, two names in one slot that two machines report under one host name. Both
// show within seconds, because the conflicting producers take turns, so the newest samples are enough to detect them.

import type { GpuDocument } from '../events/event.ts'

interface Slot {
  host: string | null
  gpu_index: number
}

/** A contradiction between samples. */
export type GpuConflict =
  | { kind: 'uuid_in_two_slots'; uuid: string; slots: Slot[] }
  | { kind: 'two_names_in_slot'; host: string | null; gpu_index: number; names: string[] }

/** Most slots or names that one conflict lists. */
const MAX_LISTED = 20

export class GpuConflicts {
  readonly #slotsByUuid = new Map<string, Map<string, Slot>>()
  readonly #namesBySlot = new Map<string, { slot: Slot; names: Set<string> }>()

  add({ host, gpu_index, uuid, name }: Pick<GpuDocument, 'host' | 'gpu_index' | 'uuid' | 'name'>): void {
    const slot = { host, gpu_index }
    const key = JSON.stringify([host, gpu_index])
    if (uuid !== undefined) {
      const slots = this.#slotsByUuid.get(uuid) ?? new Map<string, Slot>()
      this.#slotsByUuid.set(uuid, slots.set(key, slot))
    }
    if (name !== undefined) {
      const names = this.#namesBySlot.get(key)?.names ?? new Set<string>()
      this.#namesBySlot.set(key, { slot, names: names.add(name) })
    }
  }

  /** The conflicts among the samples added so far, in a fixed order. */
  list(): GpuConflict[] {
    const uuids = [...this.#slotsByUuid]
      .filter(([, slots]) => slots.size > 1)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([uuid, slots]) => {
        const listed = [...slots.values()].sort(bySlot).slice(0, MAX_LISTED)
        return { kind: 'uuid_in_two_slots' as const, uuid, slots: listed }
      })
    const names = [...this.#namesBySlot.values()]
      .filter((entry) => entry.names.size > 1)
      .sort((a, b) => bySlot(a.slot, b.slot))
      .map((entry) => {
        const listed = [...entry.names].sort().slice(0, MAX_LISTED)
        return { kind: 'two_names_in_slot' as const, ...entry.slot, names: listed }
      })
    return [...uuids, ...names]
  }
}

/** Orders by host (none first) in code units, the same in every locale, then by index. */
export function bySlot(a: Slot, b: Slot): number {
  const [hostA, hostB] = [a.host ?? '', b.host ?? '']
  return hostA < hostB ? -1 : hostA > hostB ? 1 : a.gpu_index - b.gpu_index
}
