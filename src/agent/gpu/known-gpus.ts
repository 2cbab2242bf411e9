// The GPUs that a source has read so far, to tell of one that is not there any more. By UUID: when a GPU is gone, the
// driver may number the others anew.

import type { GpuReading } from './gpu-source.ts'

export class KnownGpus {
  readonly #byUuid = new Map<string, GpuReading>()

  add(readings: readonly GpuReading[]): void {
    for (const reading of readings) if (reading.uuid !== null) this.#byUuid.set(reading.uuid, reading)
  }

  /** Whether there are any, and all of them have one of these indices. */
  areAllIn(indices: ReadonlyMap<number, unknown>): boolean {
    const known = [...this.#byUuid.values()]
    return known.length > 0 && known.every(({ gpuIndex }) => indices.has(gpuIndex))
  }

  /** Addresses of all but those with these indices; null where there are none to leave out. */
  addressesWithout(indices: ReadonlyMap<number, unknown>): string[] | null {
    if (indices.size === 0) return null
    return [...this.#byUuid.values()].flatMap(({ gpuIndex, pciBusId }) =>
      indices.has(gpuIndex) ? [] : (pciBusId ?? []),
    )
  }

  /** One line for each GPU that is not among `readings` any more; of those with an index in `told` something else is said. */
  problemsWithout(readings: readonly GpuReading[], told: ReadonlySet<number>): string[] {
    const present = new Set(readings.map(({ uuid }) => uuid))
    return [...this.#byUuid.values()]
      .filter(({ uuid, gpuIndex }) => !present.has(uuid) && !told.has(gpuIndex))
      .map(
        ({ uuid, gpuIndex, name }) =>
          `GPU ${gpuIndex} (${name ?? 'without name'}, ${uuid}) is gone: it was read before and is not listed now; look for Xid in dmesg`,
      )
  }
}
