// What the agent's tests have in common: a reading, a logger that remembers, a temporary directory, a wait for a
// condition.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { GpuReading } from '../../src/agent/gpu/gpu-source.ts'
import type { Logger } from '../../src/runtime/logger.ts'

/** A reading of a GPU, with figures replaced. */
export function reading(change: Partial<GpuReading>): GpuReading {
  const gpuIndex = change.gpuIndex ?? 0
  return {
    gpuIndex,
    uuid: `GPU-${gpuIndex}`,
    name: 'NVIDIA H100',
    utilization: 0.5,
    memUsedMb: 1000,
    memTotalMb: 81_559,
    powerW: 71.15,
    energyJ: null,
    migProfile: null,
    pricePerHourUsd: null,
    ...change,
  }
}

/** A logger that keeps `level message` of each line. */
export function quietLogger(): { lines: string[]; logger: Logger } {
  const lines: string[] = []
  const write = (level: string) => (_fields: object, message: string) => void lines.push(`${level} ${message}`)
  return { lines, logger: { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') } }
}

export function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-agent-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** Waits for a condition; fails after ten seconds. */
export async function until(what: string, check: () => boolean | Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + 10_000
  while (!(await check())) {
    if (performance.now() > deadlineMs) throw new Error(`Waited in vain until ${what}`)
    await sleep(5)
  }
}
