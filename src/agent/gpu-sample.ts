// From a GPU's reading to the event of topic gpu.metrics.v1. What the source does not tell (null) is left out, never sent as 0.
// The event gets its identity here, once: `event_id` is the run's random name and a counter, so that repeats of the same
// bytes stay one document, and a clock that is set back cannot make two events one.

import type { GpuSample } from '../domain/events/schemas.ts'
import type { GpuReading, GpuSourceName } from './gpu/gpu-source.ts'
import type { ModelNames } from './model-names.ts'

/** What all samples of one agent have in common. */
export interface SampleSettings {
  /** Host in the events. */
  host: string
  source: GpuSourceName
  /** Which model each GPU holds, as far as a person said so. */
  models: ModelNames
  /** USD per GPU-hour that a person said; null: as the source knows it, else none. */
  pricePerHourUsd: number | null
}

/** A sample as the agent sends it: `source` says where the figures come from. */
export type AgentSample = GpuSample & { source: GpuSourceName }

/** The event of one reading. `nowMs` is the agent's wall clock, epoch milliseconds. */
export function toSample(
  reading: GpuReading,
  { host, source, models, pricePerHourUsd }: SampleSettings,
  { eventId, nowMs }: { eventId: string; nowMs: number },
): AgentSample {
  return {
    ts: new Date(nowMs).toISOString(),
    host,
    gpu_index: reading.gpuIndex,
    ...present({
      uuid: reading.uuid,
      name: reading.name,
      utilization: reading.utilization,
      mem_used_mb: reading.memUsedMb,
      mem_total_mb: reading.memTotalMb,
      power_w: reading.powerW,
      energy_j: reading.energyJ,
      mig_profile: reading.migProfile,
      price_per_hour_usd: pricePerHourUsd ?? reading.pricePerHourUsd,
      model_loaded: models(reading.gpuIndex),
    }),
    source,
    event_id: eventId,
  }
}

/** The fields without those that are null. */
function present<T extends object>(fields: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null)) as {
    [K in keyof T]?: NonNullable<T[K]>
  }
}
