// GPUs that power themselves down are let go when idle and not touched while they sleep; all others are read all the time.

import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { gpuRest } from '../../../src/agent/gpu/gpu-rest.ts'
import type { GpuReading } from '../../../src/agent/gpu/gpu-source.ts'

const directory = mkdtempSync(join(tmpdir(), 'pertoken-rest-'))
after(() => rmSync(directory, { recursive: true, force: true }))

const READING: GpuReading = {
  gpuIndex: 0,
  uuid: 'GPU-a',
  name: 'NVIDIA RTX',
  pciBusId: '00000000:0C:00.0',
  utilization: 0,
  memUsedMb: 10,
  memTotalMb: 8_192,
  powerW: 9,
  energyJ: 5,
  migProfile: null,
  pricePerHourUsd: null,
}

/** A GPU of which the driver says this, and the kernel what `kernelSays` is called with. */
function gpu(driverSays: string | null) {
  const procRoot = mkdtempSync(join(directory, 'proc-'))
  const sysRoot = mkdtempSync(join(directory, 'sys-'))
  mkdirSync(join(sysRoot, '0000:0c:00.0/power'), { recursive: true })
  mkdirSync(join(procRoot, '0000:0c:00.0'))
  if (driverSays !== null)
    writeFileSync(join(procRoot, '0000:0c:00.0/power'), `Runtime D3 status:          ${driverSays}\n`)
  const kernelSays = (text: string) => writeFileSync(join(sysRoot, '0000:0c:00.0/power/runtime_status'), `${text}\n`)
  kernelSays('active')
  return { rest: gpuRest({ procRoot, sysRoot, idleMs: 1_000, restMs: 5_000 }), kernelSays }
}

test('an idle GPU rests for a while, is seen asleep or read again, and a busy one is always read', () => {
  const { rest, kernelSays } = gpu('Enabled (fine-grained)')
  const steps: [atMs: number, utilization: number | null, held: boolean][] = [
    [0, 0, false],
    [999, 0, false],
    [1_500, 0, true],
    [6_499, null, true],
    [6_500, 0.2, false],
    [7_500, 0, false],
    [8_499, 0.1, false],
    [8_600, 0, false],
    [9_700, 0, true],
  ]
  for (const [atMs, utilization, isHeld] of steps) {
    if (utilization !== null) rest.saw([{ ...READING, utilization }], atMs)
    assert.equal(rest.held(atMs).has(0), isHeld, `at ${atMs}`)
  }
  assert.equal(rest.held(9_800).get(0), null, 'whether it sleeps is not known yet')
  kernelSays('suspended')
  const asleep = { ...READING, memUsedMb: null, powerW: null, energyJ: null }
  assert.deepEqual([...rest.held(9_900)], [[0, asleep]])
  assert.ok(rest.held(1_000_000).has(0), 'as long as it sleeps')
  kernelSays('active')
  assert.equal(rest.held(1_000_001).size, 0, 'somebody has woken it')
})

test('a GPU that never sleeps is never held back', () => {
  for (const says of ['Disabled by default', 'Not supported', '?', null]) {
    const { rest, kernelSays } = gpu(says)
    for (let atMs = 0; atMs < 100_000; atMs += 500) rest.saw([READING], atMs)
    kernelSays('suspended')
    assert.equal(rest.held(100_000).size, 0, String(says))
  }
  const { rest } = gpu('Enabled (coarse-grained)')
  for (let atMs = 0; atMs < 3_000; atMs += 500) rest.saw([{ ...READING, pciBusId: null }], atMs)
  assert.equal(rest.held(3_000).size, 0, 'without an address')
})
