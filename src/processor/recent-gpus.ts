// The GPUs of the last hour of event time, with the conflicts in their identity: what /api/v1/gpus lists and what
// doctor checks; and the slots that tokens name. "Last" is relative to the newest sample, or token event, so that a
// replayed past shows its own GPUs.

import type { GpuDocument } from '../domain/events/event.ts'
import { type GpuConflict, GpuConflicts } from '../domain/fleet/gpu-conflicts.ts'
import type { UsedSlot } from '../domain/fleet/host-spellings.ts'
import { HOUR_MS, MAX_SAMPLE_GAP_MS } from '../domain/ledger/buckets.ts'
import { firstPerInstant } from '../domain/ledger/coverage.ts'
import { type CounterDoubt, EnergyCounter } from '../domain/ledger/energy.ts'
import type { EventStore } from '../store/event-store.ts'

const MAX_SLOTS = 10_000
/** Slots of token events are searched over so long, and in at most so many events. */
const TOKENS_MS = 10 * 60_000
const MAX_TOKENS = 20_000
/** Conflicts are searched in the newest samples: over as long as one sample covers, and in at most so many. */
const MAX_CONFLICT_SAMPLES = 20_000

/** A slot with an energy counter of which a difference is no figure of its GPU. */
export interface DoubtedCounter {
  host: string | null
  gpu_index: number
  doubt: Exclude<CounterDoubt, 'two GPUs'>
}

export interface RecentGpus {
  /** The newest sample of each slot. */
  samples: readonly GpuDocument[]
  conflicts: readonly GpuConflict[]
  /** Slots whose energy counter is not believed, in the samples that are searched for conflicts. */
  counters: readonly DoubtedCounter[]
  /** False where there were more samples than are searched for conflicts. */
  areConflictsComplete: boolean
}

/** `nameOf`: the one name of a host that has several; conflicts are those of the hosts, not of their names. */
export async function readRecentGpus(
  store: Pick<EventStore, 'newestMs' | 'latestSamplePerSlot' | 'readEvents'>,
  nameOf: (host: string | null) => string | null,
): Promise<RecentGpus> {
  const newestMs = await store.newestMs('gpu')
  if (newestMs === null) return { samples: [], conflicts: [], counters: [], areConflictsComplete: true }
  const samples = await store.latestSamplePerSlot(newestMs - HOUR_MS, MAX_SLOTS)
  const conflicts = new GpuConflicts()
  const joined = (sample: GpuDocument): GpuDocument => ({ ...sample, host: nameOf(sample.host) })
  for (const sample of samples) conflicts.add(joined(sample))
  let searched = 0
  const searchedSamples: GpuDocument[] = []
  for await (const sample of store.readEvents('gpu', newestMs - MAX_SAMPLE_GAP_MS, newestMs + 1)) {
    if (++searched > MAX_CONFLICT_SAMPLES) break
    const own = joined(sample)
    conflicts.add(own)
    searchedSamples.push(own)
  }
  return {
    samples,
    conflicts: conflicts.list(),
    counters: doubtedCounters(searchedSamples),
    areConflictsComplete: searched <= MAX_CONFLICT_SAMPLES,
  }
}

/** The first doubt of each slot; two GPUs in a slot are conflicts already. */
function doubtedCounters(samples: readonly GpuDocument[]): DoubtedCounter[] {
  const slots = Map.groupBy(samples, ({ host, gpu_index }) => JSON.stringify([host, gpu_index]))
  const window = { fromMs: Number.NEGATIVE_INFINITY, toMs: Number.POSITIVE_INFINITY }
  return [...slots.values()].flatMap((own) => {
    const sorted = firstPerInstant(own)
    const counter = new EnergyCounter(sorted, window)
    for (let at = 1; at < sorted.length; at++) {
      const doubt = counter.doubt(at)
      const { host, gpu_index } = own[0]!
      if (doubt !== null && doubt !== 'two GPUs') return [{ host, gpu_index, doubt }]
    }
    return []
  })
}

/** The slots that the newest token events name, with a host, each once; under the one name of a host. */
export async function readUsedSlots(
  store: Pick<EventStore, 'newestMs' | 'readEvents'>,
  nameOf: (host: string) => string,
): Promise<UsedSlot[]> {
  const newestMs = await store.newestMs('token')
  if (newestMs === null) return []
  const slots = new Map<string, UsedSlot>()
  let searched = 0
  for await (const event of store.readEvents('token', newestMs - TOKENS_MS, newestMs + 1)) {
    if (++searched > MAX_TOKENS) break
    if (event.host === null) continue
    const { gpu_index, gpus } = event
    const host = nameOf(event.host)
    for (const index of gpus ?? [gpu_index!]) slots.set(JSON.stringify([host, index]), { host, gpu_index: index })
  }
  return [...slots.values()]
}
