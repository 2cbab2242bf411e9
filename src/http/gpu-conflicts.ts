// Samples that contradict the identity of a GPU. A slot (host + index) is who a GPU is in the ledger; one uuid in two
// slots means that a GPU is paid for twice, two names in one slot that two machines report under one host name. Both
// show within seconds, because the contradicting producers take turns, so the last samples are enough to see them.

import type { GpuDocument } from '../domain/events/documents.ts'
import { bySlot } from './live-view.ts'

interface SlotName {
  host: string | null
  gpu_index: number
}

/** A contradiction between samples. */
export type GpuConflict =
  | { kind: 'uuid_in_two_slots'; uuid: string; slots: SlotName[] }
  | { kind: 'two_names_in_slot'; host: string | null; gpu_index: number; names: string[] }

/** Most slots or names that one conflict lists. */
const MAX_LISTED = 20

export class GpuConflicts {
  readonly #slotsByUuid = new Map<string, Map<string, SlotName>>()
  readonly #namesBySlot = new Map<string, { slot: SlotName; names: Set<string> }>()

  add({ host, gpu_index, uuid, name }: Pick<GpuDocument, 'host' | 'gpu_index' | 'uuid' | 'name'>): void {
    const slot = { host, gpu_index }
    const key = JSON.stringify([host, gpu_index])
    if (uuid !== undefined) addTo(this.#slotsByUuid, uuid, () => new Map<string, SlotName>()).set(key, slot)
    if (name !== undefined) addTo(this.#namesBySlot, key, () => ({ slot, names: new Set<string>() })).names.add(name)
  }

  /** What contradicts, in a fixed order. */
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

function addTo<V>(map: Map<string, V>, key: string, make: () => V): V {
  let value = map.get(key)
  if (value === undefined) {
    value = make()
    map.set(key, value)
  }
  return value
}
