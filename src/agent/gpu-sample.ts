// Converts a GPU's reading to an event of topic gpu.metrics.v1. A figure that is unknown to the source (null) is
// omitted, never sent as 0. The event gets its identity here, once: `event_id` is the run's random name and a counter,
// so that sending the same bytes twice makes one document, and a clock that is set back cannot merge two events.

import type { GpuSample } from '../domain/events/event.ts'
import type { GpuReading, GpuSourceName } from './gpu/gpu-source.ts'
import type { ModelNames } from './model-names.ts'

/** Fields that all samples of one agent share. */
export interface SampleSettings {
  /** Host of the events. */
  host: string
  source: GpuSourceName
  /** Which model each GPU holds, as far as it is configured. */
  models: ModelNames
  /** USD per GPU-hour as configured; null: the source's, if it has one. */
  pricePerHourUsd: number | null
}

/** A sample as the agent sends it: with the source of its figures, and what a DCGM exporter alone knows. */
export type AgentSample = GpuSample & {
  source: GpuSourceName
  sm_active?: number
  dram_active?: number
  gr_engine_active?: number
  namespace?: string
  pod?: string
}

/** Converts one reading. `nowMs` is the agent's wall clock, epoch milliseconds. */
export function toSample(
  reading: GpuReading,
  { host, source, models, pricePerHourUsd }: SampleSettings,
  { eventId, nowMs }: { eventId: string; nowMs: number },
): AgentSample {
  return {
    ts: new Date(nowMs).toISOString(),
    host,
    gpu_index: reading.gpuIndex,
    ...withoutNulls({
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
      sm_active: reading.dcgm?.smActive ?? null,
      dram_active: reading.dcgm?.dramActive ?? null,
      gr_engine_active: reading.dcgm?.grEngineActive ?? null,
      namespace: reading.dcgm?.namespace ?? null,
      pod: reading.dcgm?.pod ?? null,
    }),
    source,
    event_id: eventId,
  }
}

function withoutNulls<T extends object>(fields: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null)) as {
    [K in keyof T]?: NonNullable<T[K]>
  }
}
