// The GPUs that a source has read so far, to name one that has disappeared. Keyed by UUID: when a GPU is gone, the
// driver may renumber the others.

import type { GpuReading } from './gpu-source.ts'

export class KnownGpus {
  readonly #byUuid = new Map<string, GpuReading>()

  add(readings: readonly GpuReading[]): void {
    for (const reading of readings) if (reading.uuid !== null) this.#byUuid.set(reading.uuid, reading)
  }

  /** One line for each GPU that `readings` lack; those with an index in `explained` have a line of their own. */
  missingFrom(readings: readonly GpuReading[], explained: ReadonlySet<number> = new Set()): string[] {
    const present = new Set(readings.map(({ uuid }) => uuid))
    return [...this.#byUuid.values()]
      .filter(({ uuid, gpuIndex }) => !present.has(uuid) && !explained.has(gpuIndex))
      .map(
        ({ uuid, gpuIndex, name }) =>
          `GPU ${gpuIndex} (${name ?? 'without name'}, ${uuid}) is gone: it was read before and is not listed now; look for Xid in dmesg`,
      )
  }
}
