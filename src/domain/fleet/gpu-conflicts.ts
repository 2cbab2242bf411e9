// Samples that contradict the identity of a GPU. A slot (host + index) identifies a GPU in the ledger; one uuid in two
// slots means that a GPU is paid for twice; two uuids or names in one slot mean that two GPUs are reported as one, so
// that one of them costs nothing. All show within seconds, because the conflicting producers take turns, so the newest
// samples are enough to detect them. A uuid that follows another for good is no conflict: a board was exchanged, or
// indexes moved up after a GPU was lost.

import type { GpuDocument } from '../events/event.ts'

interface Slot {
  host: string | null
  gpu_index: number
}

/** A contradiction between samples. */
export type GpuConflict =
  | { kind: 'uuid_in_two_slots'; uuid: string; slots: Slot[] }
  | { kind: 'two_uuids_in_slot'; host: string | null; gpu_index: number; uuids: string[] }
  | { kind: 'two_names_in_slot'; host: string | null; gpu_index: number; names: string[] }

/** Event time of the first and last sample of a uuid in a slot, epoch milliseconds. */
interface Span {
  uuid: string
  firstMs: number
  lastMs: number
}

/** Most slots, uuids or names that one conflict lists. */
const MAX_LISTED = 20

export class GpuConflicts {
  readonly #slotsByUuid = new Map<string, Map<string, Slot>>()
  readonly #spansBySlot = new Map<string, { slot: Slot; spans: Map<string, Span> }>()
  readonly #namesBySlot = new Map<string, { slot: Slot; names: Set<string> }>()

  /** Samples may come in any order. */
  add({ ts, host, gpu_index, uuid, name }: Pick<GpuDocument, 'ts' | 'host' | 'gpu_index' | 'uuid' | 'name'>): void {
    const slot = { host, gpu_index }
    const key = JSON.stringify([host, gpu_index])
    if (uuid !== undefined) {
      const slots = this.#slotsByUuid.get(uuid) ?? new Map<string, Slot>()
      this.#slotsByUuid.set(uuid, slots.set(key, slot))
      const spans = this.#spansBySlot.get(key)?.spans ?? new Map<string, Span>()
      this.#spansBySlot.set(key, { slot, spans })
      const { firstMs, lastMs } = spans.get(uuid) ?? { firstMs: ts.getTime(), lastMs: ts.getTime() }
      spans.set(uuid, { uuid, firstMs: Math.min(firstMs, ts.getTime()), lastMs: Math.max(lastMs, ts.getTime()) })
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
    const pairs = [...this.#spansBySlot.values()]
      .map(({ slot, spans }) => ({ slot, uuids: overlapping([...spans.values()]) }))
      .filter(({ uuids }) => uuids.length > 0)
      .sort((a, b) => bySlot(a.slot, b.slot))
      .map(({ slot, uuids }) => ({ kind: 'two_uuids_in_slot' as const, ...slot, uuids: uuids.slice(0, MAX_LISTED) }))
    const names = [...this.#namesBySlot.values()]
      .filter((entry) => entry.names.size > 1)
      .sort((a, b) => bySlot(a.slot, b.slot))
      .map((entry) => {
        const listed = [...entry.names].sort().slice(0, MAX_LISTED)
        return { kind: 'two_names_in_slot' as const, ...entry.slot, names: listed }
      })
    return [...uuids, ...pairs, ...names]
  }
}

/** The uuids whose spans overlap with another's, sorted. */
function overlapping(spans: Span[]): string[] {
  const found = new Set<string>()
  let latest: Span | null = null
  for (const span of spans.sort((a, b) => a.firstMs - b.firstMs)) {
    // Whatever overlaps with this one and ends sooner than the latest overlaps with the latest as well.
    if (latest !== null && span.firstMs <= latest.lastMs) found.add(latest.uuid).add(span.uuid)
    if (latest === null || span.lastMs > latest.lastMs) latest = span
  }
  return [...found].sort()
}

/** Orders by host (none first) in code units, the same in every locale, then by index. */
export function bySlot(a: Slot, b: Slot): number {
  const [hostA, hostB] = [a.host ?? '', b.host ?? '']
  return hostA < hostB ? -1 : hostA > hostB ? 1 : a.gpu_index - b.gpu_index
}
