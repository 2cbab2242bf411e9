// The GPUs of the last hour of event time, with the conflicts in their identity: what /api/v1/gpus lists and what
// doctor checks. "Last" is relative to the newest sample, so that a replayed past shows its own GPUs.

import type { GpuDocument } from '../domain/events/event.ts'
import { HOUR_MS, MAX_SAMPLE_GAP_MS } from '../domain/ledger/buckets.ts'
import { type GpuConflict, GpuConflicts } from '../domain/ledger/gpu-conflicts.ts'
import type { EventStore } from '../store/event-store.ts'

const MAX_SLOTS = 10_000
/** Conflicts are searched in the newest samples: over as long as one sample covers, and in at most so many. */
const MAX_CONFLICT_SAMPLES = 20_000

export interface RecentGpus {
  /** The newest sample of each slot. */
  samples: readonly GpuDocument[]
  conflicts: readonly GpuConflict[]
  /** False where there were more samples than are searched for conflicts. */
  areConflictsComplete: boolean
}

export async function readRecentGpus(
  store: Pick<EventStore, 'newestMs' | 'latestSamplePerSlot' | 'readEvents'>,
): Promise<RecentGpus> {
  const newestMs = await store.newestMs('gpu')
  if (newestMs === null) return { samples: [], conflicts: [], areConflictsComplete: true }
  const samples = await store.latestSamplePerSlot(newestMs - HOUR_MS, MAX_SLOTS)
  const conflicts = new GpuConflicts()
  for (const sample of samples) conflicts.add(sample)
  let searched = 0
  for await (const sample of store.readEvents('gpu', newestMs - MAX_SAMPLE_GAP_MS, newestMs + 1)) {
    if (++searched > MAX_CONFLICT_SAMPLES) break
    conflicts.add(sample)
  }
  return { samples, conflicts: conflicts.list(), areConflictsComplete: searched <= MAX_CONFLICT_SAMPLES }
}
