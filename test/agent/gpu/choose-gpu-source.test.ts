// Which source of GPU figures is taken, why not the others, and the seed's made-up figures.

import assert from 'node:assert/strict'
import { chmodSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { chooseGpuSource, type GpuChoiceOptions, probeGpuSources } from '../../../src/agent/gpu/choose-gpu-source.ts'
import { openSeedSource } from '../../../src/agent/gpu/seed-source.ts'
import { standInForTests } from './stand-in.ts'

const standIn = standInForTests()
const { skip, directory } = standIn
const SEED = new URL('../../../examples/gpu_seed.json', import.meta.url).pathname
const FIXTURES = new URL('fixtures', import.meta.url).pathname
const NOWHERE = {
  nvmlLibrary: '/nowhere/libnvidia-ml.so.1',
  nvidiaSmiPath: '/nowhere/nvidia-smi',
  dcgmUrl: new URL('http://127.0.0.1:1/metrics'),
  seedPath: null,
}

const smi = join(directory, 'nvidia-smi')
writeFileSync(smi, `#!/bin/sh\ncat ${FIXTURES}/two-gpus.csv\n`)
chmodSync(smi, 0o755)

async function choose(t: TestContext, options: Partial<GpuChoiceOptions>) {
  const { source, tried } = await chooseGpuSource({ want: 'auto', ...NOWHERE, ...options })
  t.after(() => source?.close())
  return { source, name: source?.name, tried }
}

test('auto takes NVML where it answers, and tries nothing else', { skip }, async (t) => {
  standIn.show('count=8', 'text.nvmlDeviceGetName.7=NVIDIA L4')
  const { name, source, tried } = await choose(t, {
    nvmlLibrary: standIn.library(),
    nvidiaSmiPath: smi,
    seedPath: SEED,
  })
  assert.equal(name, 'nvml')
  assert.deepEqual(tried, [{ name: 'nvml', ok: true, message: '8 GPUs (7 × NVIDIA H100 80GB HBM3, NVIDIA L4)' }])
  assert.equal((await source!.read()).length, 8)
})

test('auto takes nvidia-smi next, then a DCGM exporter, then the seed, and says why not those before', async (t) => {
  const bySmi = await choose(t, { nvidiaSmiPath: smi, seedPath: SEED })
  assert.deepEqual(
    bySmi.tried.map(({ name, ok }) => [name, ok]),
    [
      ['nvml', false],
      ['nvidia-smi', true],
    ],
  )
  assert.match(bySmi.tried[0]!.message, /^Cannot load NVML, "\/nowhere\/.*; install the NVIDIA driver/)
  const exporter = createServer((_request, response) => response.end('DCGM_FI_DEV_GPU_UTIL{gpu="2"} 5\n'))
  await new Promise<void>((resolve) => {
    exporter.listen(0, '127.0.0.1', resolve)
  })
  t.after(() => exporter.close())
  const dcgmUrl = new URL(`http://127.0.0.1:${(exporter.address() as AddressInfo).port}/metrics`)
  const byDcgm = await choose(t, { dcgmUrl, seedPath: SEED })
  assert.deepEqual(
    [byDcgm.name, byDcgm.tried.at(-1)],
    ['dcgm', { name: 'dcgm', ok: true, message: '1 GPU (without name)' }],
  )
  const bySeed = await choose(t, { seedPath: SEED })
  assert.equal(bySeed.name, 'seed')
  assert.deepEqual(
    bySeed.tried.map(({ name, ok }) => [name, ok]),
    [
      ['nvml', false],
      ['nvidia-smi', false],
      ['dcgm', false],
      ['seed', true],
    ],
  )
  assert.match(bySeed.tried[1]!.message, /"\/nowhere\/nvidia-smi" was not found; install the NVIDIA driver/)
})

test('auto makes no figures up where no seed is named', async (t) => {
  const { source, tried } = await choose(t, {})
  assert.equal(source, null)
  assert.deepEqual(
    tried.map(({ ok }) => ok),
    [false, false, false, false],
  )
  assert.match(tried[3]!.message, /^No seed file is named: set GPU_SEED/)
})

test('a source that is asked for by name is the only one tried', async (t) => {
  const seed = await choose(t, { want: 'seed', nvidiaSmiPath: smi, seedPath: SEED })
  assert.deepEqual([seed.name, seed.tried.length], ['seed', 1])
  const nvml = await choose(t, { want: 'nvml', nvidiaSmiPath: smi, seedPath: SEED })
  assert.deepEqual([nvml.name, nvml.tried.length], [undefined, 1])
})

test('a driver that takes long to initialise its GPUs is waited for', { skip }, async (t) => {
  standIn.show('hang.nvmlDeviceGetHandleByIndex_v2=500')
  const { name, tried } = await choose(t, { nvmlLibrary: standIn.library(), nvidiaSmiPath: smi, timeoutMs: 250 })
  assert.deepEqual([name, tried.length], ['nvml', 1])
  standIn.show()
})

test('a source that fails later stays the same source and says so', { skip }, async (t) => {
  standIn.show('count=1')
  const { source } = await choose(t, { nvmlLibrary: standIn.library(), nvidiaSmiPath: smi, seedPath: SEED })
  standIn.show('count=1', 'code.nvmlDeviceGetHandleByIndex_v2=15')
  await assert.rejects(source!.read(), { message: /GPU is lost/ })
  assert.equal(source!.faults.length, 1)
  standIn.show('count=1')
  assert.equal((await source!.read())[0]?.name, 'NVIDIA H100 80GB HBM3')
})

test('a probe tells of all', { skip }, async () => {
  standIn.show('count=1', 'code.nvmlDeviceGetPowerUsage=999')
  const tried = await probeGpuSources({ ...NOWHERE, nvmlLibrary: standIn.library(), nvidiaSmiPath: smi })
  assert.deepEqual(
    tried.map(({ name, ok }) => [name, ok]),
    [
      ['nvml', true],
      ['nvidia-smi', true],
      ['dcgm', false],
      ['seed', false],
    ],
  )
  assert.match(tried[0]!.message, /^1 GPU \(NVIDIA H100 80GB HBM3\); GPU 0: nvmlDeviceGetPowerUsage failed with 999/)
  assert.equal(tried[1]!.message, '2 GPUs (2 × NVIDIA L40S)')
})

test('seed figures move around those of the file, and what it does not tell is unknown', async () => {
  const source = openSeedSource(SEED)
  const readings = await Promise.all(Array.from({ length: 50 }, () => source.read()))
  const first = readings.map((gpus) => gpus[0]!)
  assert.deepEqual(
    readings[0]!.map(({ gpuIndex }) => gpuIndex),
    [0, 1, 2, 3],
  )
  assert.ok(new Set(first.map(({ utilization }) => utilization)).size > 10, 'they move')
  for (const { utilization, memUsedMb, powerW } of first) {
    assert.ok(
      Math.abs(utilization! - 0.72) <= 0.05 && Math.abs(memUsedMb! - 61_440) <= 4_096 && Math.abs(powerW! - 310) <= 20,
    )
  }
  const { uuid, energyJ, migProfile, name, memTotalMb, pricePerHourUsd } = first[0]!
  assert.deepEqual(
    [uuid, energyJ, migProfile, name, memTotalMb, pricePerHourUsd],
    [null, null, null, 'NVIDIA A100-SXM4-80GB', 81_920, 2.2],
  )
})

test('a seed of several hosts gives the GPUs of this one, and a bad one says what is wrong', async () => {
  const path = join(directory, 'seed.json')
  const seed = (gpus: object[]) => writeFileSync(path, JSON.stringify(gpus))
  const names = async (hostname?: string) =>
    (await openSeedSource(path, hostname === undefined ? {} : { hostname }).read()).map(({ name }) => name)
  const onA = { gpu_index: 0, host: 'a', name: 'A' }
  const onB = { gpu_index: 0, host: 'b', name: 'B' }
  seed([onA, onB, { gpu_index: 1, name: 'C' }])
  assert.deepEqual(await names('b'), ['B', 'C'])
  seed([onA])
  assert.deepEqual(await names('elsewhere'), ['A'])
  seed([onA, onB])
  assert.throws(() => openSeedSource(path, { hostname: 'c' }), {
    name: 'GpuSourceError',
    message: /it has GPUs of a, b, and none of this host, c/,
  })
  seed([onA, { gpu_index: 0, name: 'C' }])
  assert.throws(() => openSeedSource(path), { name: 'GpuSourceError', message: /GPU 0 is there twice for one host/ })
  seed([{ gpu_index: 0, utilization: 70 }])
  assert.throws(() => openSeedSource(path), { name: 'GpuSourceError', message: /looks like per cent/ })
  assert.throws(() => openSeedSource('/nowhere.json'), {
    name: 'GpuSourceError',
    message: /^Cannot read seed file "\/nowhere.json"/,
  })
})
