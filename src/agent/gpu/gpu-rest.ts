// Lets GPUs sleep. A GPU may have itself powered down when nobody has it open (runtime power management, "RTD3": mostly
// in notebooks and small hosts, and only where the driver says so). Asking a GPU for figures opens it, which wakes it and,
// asked every second, keeps it awake. So a GPU that may sleep is left alone once it has been idle for a while, and for as
// long as the kernel says that it is suspended: that much can be known without touching it. Elsewhere nothing is
// held back: an open but idle GPU clocks down by itself, and one that is opened anew each second would be initialised
// anew each second, where no persistence daemon runs.

import { readFileSync } from 'node:fs'
import type { GpuReading } from './gpu-source.ts'

export interface GpuRestOptions {
  /** Where the driver tells of its GPUs. */
  procRoot?: string
  /** Where the kernel tells of PCI devices. */
  sysRoot?: string
  /** A GPU that may sleep and has been idle for this long is left alone … */
  idleMs?: number
  /** … for this long, unless it is suspended by then. Within the 90 s that a sample covers. */
  restMs?: number
}

export interface GpuRest {
  /**
   * GPUs not to be touched now, by index, each with what is known of it untouched: a suspended one runs nothing; null
   * where it is not known yet whether it will sleep.
   */
  held(nowMs: number): Map<number, GpuReading | null>
  /** Takes note of what was read. */
  saw(readings: readonly GpuReading[], nowMs: number): void
}

interface Sleeper {
  last: GpuReading
  idleSinceMs: number | null
  restUntilMs: number | null
}

export function gpuRest({
  procRoot = '/proc/driver/nvidia/gpus',
  sysRoot = '/sys/bus/pci/devices',
  idleMs = 10_000,
  restMs = 15_000,
}: GpuRestOptions = {}): GpuRest {
  /** By address; null for a GPU that never sleeps, which is looked up once. */
  const sleepers = new Map<string, Sleeper | null>()

  function held(nowMs: number): Map<number, GpuReading | null> {
    const found = new Map<number, GpuReading | null>()
    for (const [address, sleeper] of sleepers) {
      if (sleeper === null) continue
      if (/^suspend(ed|ing)\b/.test(textOf(`${sysRoot}/${address}/power/runtime_status`))) {
        sleeper.restUntilMs = null
        found.set(sleeper.last.gpuIndex, asleep(sleeper.last))
      } else if (sleeper.restUntilMs !== null && nowMs < sleeper.restUntilMs) {
        found.set(sleeper.last.gpuIndex, null)
      }
    }
    return found
  }

  function saw(readings: readonly GpuReading[], nowMs: number): void {
    for (const reading of readings) {
      const address = addressOf(reading.pciBusId)
      if (address === null) continue
      if (!sleepers.has(address))
        sleepers.set(address, maySleep(`${procRoot}/${address}/power`) ? fresh(reading) : null)
      const sleeper = sleepers.get(address)
      if (sleeper === null || sleeper === undefined) continue
      const idleSinceMs = reading.utilization === 0 ? (sleeper.idleSinceMs ?? nowMs) : null
      const isDue = idleSinceMs !== null && nowMs - idleSinceMs >= idleMs
      sleepers.set(address, {
        last: reading,
        idleSinceMs: isDue ? null : idleSinceMs,
        restUntilMs: isDue ? nowMs + restMs : null,
      })
    }
  }
  return { held, saw }
}

/** The kernel has it powered down: no kernel runs on it. What it draws and holds is not known. */
function asleep(last: GpuReading): GpuReading {
  return { ...last, utilization: 0, memUsedMb: null, powerW: null, energyJ: null }
}

function fresh(last: GpuReading): Sleeper {
  return { last, idleSinceMs: null, restUntilMs: null }
}

/** The driver's `00000000:0C:00.0` as the kernel writes it, `0000:0c:00.0`. */
function addressOf(pciBusId: string | null | undefined): string | null {
  if (pciBusId === null || pciBusId === undefined) return null
  return pciBusId.toLowerCase().replace(/^0000(?=[0-9a-f]{4}:)/, '')
}

/** The driver's own word, a line such as `Runtime D3 status:          Enabled (fine-grained)`. */
function maySleep(path: string): boolean {
  return /^Runtime D3 status:\s*Enabled/m.test(textOf(path))
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
