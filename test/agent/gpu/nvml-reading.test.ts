// NVML through its real C interface, against a library with the true structures: what each call gives, and what each
// return code of each call does to a reading. In this process, so that all combinations take no time.

import assert from 'node:assert/strict'
import { registerHooks } from 'node:module'
import { test } from 'node:test'
import { type GpuReading, GpuSourceError } from '../../../src/agent/gpu/gpu-source.ts'
import { type NvmlLibrary, openNvmlLibrary } from '../../../src/agent/gpu/nvml/nvml-library.ts'
import { NvmlUninitialized, openNvml, readGpu } from '../../../src/agent/gpu/nvml/nvml-reading.ts'
import { standInForTests, type Variant } from './stand-in.ts'

const standIn = standInForTests()
const { skip } = standIn

const GPU_0: GpuReading = {
  gpuIndex: 0,
  uuid: 'GPU-00000000-0000-4000-8000-000000000000',
  name: 'NVIDIA H100 80GB HBM3',
  utilization: 0.1,
  memUsedMb: 20_000,
  memTotalMb: 81_559,
  powerW: 631.95,
  energyJ: 319_159.391,
  migProfile: null,
  pricePerHourUsd: null,
}

/** Calls of a figure, with what a reading lacks when they fail; null: the whole GPU. */
const CALLS: Record<string, Partial<GpuReading> | null> = {
  nvmlDeviceGetHandleByIndex_v2: null,
  nvmlDeviceGetName: { name: null, migProfile: null },
  nvmlDeviceGetUUID: { uuid: null },
  nvmlDeviceGetUtilizationRates: { utilization: null },
  nvmlDeviceGetMemoryInfo_v2: { memUsedMb: null, memTotalMb: null },
  nvmlDeviceGetPowerUsage: { powerW: null },
  nvmlDeviceGetTotalEnergyConsumption: { energyJ: null },
  nvmlDeviceGetMigMode: {},
}
const MIG_CALLS = ['nvmlDeviceGetMaxMigDeviceCount', 'nvmlDeviceGetMigDeviceHandleByIndex']
const CODES = [...Array.from({ length: 30 }, (_, i) => i + 1), 999, 12_345]
const QUIET = [3, 4, 13, 26]
const OF_GPU = [15, 16, 28]
const OF_DRIVER = [9, 12, 18]

async function open(variant?: Variant): Promise<NvmlLibrary> {
  const library = await openNvmlLibrary(standIn.library(variant))
  openNvml(library)
  return library
}

test('every figure is read from its place, in its unit', { skip }, async () => {
  standIn.show('count=2')
  const library = await open()
  assert.deepEqual(readGpu(library, 0), { gpuIndex: 0, reading: GPU_0, faults: [] })
  assert.deepEqual(readGpu(library, 1).reading, {
    ...GPU_0,
    gpuIndex: 1,
    uuid: 'GPU-00000001-0000-4000-8000-000000000000',
    utilization: 0.11,
    powerW: 631.951,
  })
  library.shutdown()
})

test('64-bit figures and texts of full length arrive whole', { skip }, async () => {
  const long = 'x'.repeat(95)
  standIn.show(
    'value.nvmlDeviceGetMemoryInfo_v2=1099511627776',
    'value.nvmlDeviceGetTotalEnergyConsumption=8796093022208000',
    `text.nvmlDeviceGetName=${long}yy`,
  )
  const library = await open()
  const { reading } = readGpu(library, 0)
  assert.equal(reading?.memUsedMb, 1024 * 1024)
  assert.equal(reading?.energyJ, 8_796_093_022_208)
  assert.equal(reading?.name, long)
  library.shutdown()
})

test('all ones mean not available, and a utilization above 100 % is unknown and named', { skip }, async () => {
  standIn.show(
    'value.nvmlDeviceGetPowerUsage=4294967295',
    'value.nvmlDeviceGetTotalEnergyConsumption=18446744073709551615',
    'value.nvmlDeviceGetMemoryInfo_v2=18446744073709551615',
    'value.nvmlDeviceGetUtilizationRates.0=4294967295',
    'value.nvmlDeviceGetUtilizationRates.1=101',
  )
  const library = await open()
  const unknown = { utilization: null, memUsedMb: null, powerW: null, energyJ: null }
  assert.deepEqual(readGpu(library, 0), { gpuIndex: 0, reading: { ...GPU_0, ...unknown }, faults: [] })
  assert.deepEqual(readGpu(library, 1).reading?.utilization, null)
  assert.match(readGpu(library, 1).faults.join(), /^GPU 1: the driver says 101 % utilization/)
  library.shutdown()
})

test('a split GPU has no utilization, and tells the profiles of the instances that are there', { skip }, async () => {
  standIn.show('mig.0=3g.40gb,2g.20gb,,1g.10gb+me', 'mig.1=')
  const library = await open()
  const split = { ...GPU_0, utilization: null, migProfile: '3g.40gb,2g.20gb,1g.10gb+me' }
  assert.deepEqual(readGpu(library, 0), { gpuIndex: 0, reading: split, faults: [] })
  assert.equal(readGpu(library, 1).reading?.migProfile, null)
  library.shutdown()
})

test('every code of every call costs what it concerns and nothing else', { skip }, async () => {
  standIn.show('count=2')
  const library = await open()
  for (const [call, lost] of Object.entries(CALLS)) {
    for (const code of CODES) {
      standIn.show(`code.${call}.1=${code}`)
      const at = `${call} answers ${code}`
      assert.deepEqual(readGpu(library, 0).reading, GPU_0, `${at} for GPU 1 alone`)
      standIn.show(`code.${call}.0=${code}`)
      if (code === 1) assert.throws(() => readGpu(library, 0), NvmlUninitialized, at)
      else if (OF_DRIVER.includes(code)) {
        assert.throws(() => readGpu(library, 0), {
          name: 'GpuSourceError',
          message: new RegExp(`${call} failed with ${code}\\b`),
        })
      } else {
        const { reading, faults } = readGpu(library, 0)
        const isOut = lost === null || OF_GPU.includes(code)
        // Older drivers' call stands in where the newer one is not known.
        const isReplaced = call === 'nvmlDeviceGetMemoryInfo_v2' && [...QUIET, 25].includes(code)
        const expected = isReplaced ? { ...GPU_0, memUsedMb: 20_479 } : { ...GPU_0, ...lost }
        assert.deepEqual(reading, isOut ? null : expected, at)
        const isNamed = !isReplaced && (lost === null || !QUIET.includes(code))
        assert.equal(faults.length, isNamed ? 1 : 0, `${at}: ${faults.join()}`)
        if (isNamed) assert.match(faults[0]!, new RegExp(`^GPU 0: ${call} failed with ${code}\\b`))
      }
    }
  }
  standIn.show()
  library.shutdown()
})

test('every code of the calls of a split GPU leaves the rest of its reading', { skip }, async () => {
  standIn.show('mig.0=3g.40gb,1g.10gb')
  const library = await open()
  for (const call of MIG_CALLS) {
    for (const code of CODES.filter((one) => ![1, ...OF_DRIVER, ...OF_GPU].includes(one))) {
      standIn.show('mig.0=3g.40gb,1g.10gb', `code.${call}=${code}`)
      const { reading, faults } = readGpu(library, 0)
      assert.deepEqual(reading, { ...GPU_0, utilization: null }, `${call} answers ${code}`)
      const isQuiet = QUIET.includes(code) || (code === 6 && call === 'nvmlDeviceGetMigDeviceHandleByIndex')
      assert.equal(faults.length > 0, !isQuiet, `${call} answers ${code}: ${faults.join()}`)
    }
  }
  standIn.show()
  library.shutdown()
})

test('every code of initialising and counting is an error that names the call', { skip }, async () => {
  const library = await openNvmlLibrary(standIn.library())
  for (const call of ['nvmlInit_v2', 'nvmlDeviceGetCount_v2']) {
    for (const code of CODES) {
      standIn.show(`code.${call}=${code}`)
      assert.throws(
        () => openNvml(library),
        (error) => error instanceof GpuSourceError && error.message.includes(`: ${call} failed with ${code}`),
        `${call} answers ${code}`,
      )
    }
  }
  for (const [code, remedy] of [
    [9, /modprobe nvidia/],
    [12, /install the driver/],
    [18, /restart the machine/],
    [4, /\/dev\/nvidia/],
    [999, /dmesg/],
  ] as const) {
    standIn.show(`code.nvmlInit_v2=${code}`)
    assert.throws(() => openNvml(library), { message: remedy })
  }
  standIn.show('value.nvmlDeviceGetCount_v2=0')
  assert.throws(() => openNvml(library), { message: /^NVML finds no GPU: see whether/ })
})

test('what an old driver lacks is null, and nothing is wrong', { skip }, async () => {
  standIn.show('count=1')
  const library = await open('OLD_DRIVER')
  // The old call counts what the driver reserves as used.
  const expected = { ...GPU_0, energyJ: null, memUsedMb: 20_479 }
  assert.deepEqual(readGpu(library, 0), { gpuIndex: 0, reading: expected, faults: [] })
  library.shutdown()
})

test('processes on a GPU are listed where asked for: many, none, and what fails', { skip }, async () => {
  const many = Array.from({ length: 40 }, (_, i) => 4000 + i)
  standIn.show('pids.0=4711,4712')
  const library = await open()
  assert.deepEqual(readGpu(library, 0, true).pids, [4711, 4712])
  assert.deepEqual(readGpu(library, 1, true).pids, [])
  standIn.show(`pids.1=${many.join(',')}`)
  assert.deepEqual(readGpu(library, 1, true).pids, many)
  assert.equal('pids' in readGpu(library, 0), false)
  standIn.show('code.nvmlDeviceGetComputeRunningProcesses_v3=7')
  assert.deepEqual(readGpu(library, 0, true), { gpuIndex: 0, reading: GPU_0, faults: [] }, 'costs nothing else')
  library.shutdown()
  const old = await open('OLD_DRIVER')
  assert.equal('pids' in readGpu(old, 0, true), false)
  old.shutdown()
})

test('a library that is none of NVIDIA’s, or not there, says so', { skip }, async () => {
  const other = await openNvmlLibrary(standIn.library('NOT_NVML'))
  assert.throws(() => openNvml(other), {
    message: /nvmlInit_v2 failed with 13: the library is too old, or not the one/,
  })
  await assert.rejects(openNvmlLibrary('/nowhere/libnvidia-ml.so.1'), {
    name: 'GpuSourceError',
    message: /^Cannot load NVML, "\/nowhere\/libnvidia-ml.so.1": .*; install the NVIDIA driver/,
  })
})

test('without koffi the reason says what to install', async () => {
  const hooks = registerHooks({
    resolve(specifier, context, next) {
      if (specifier === 'koffi') throw new Error('Cannot find package')
      return next(specifier, context)
    },
  })
  try {
    await assert.rejects(openNvmlLibrary('libnvidia-ml.so.1'), {
      name: 'GpuSourceError',
      message: /koffi cannot be loaded \(Cannot find package\); run npm install koffi, or use nvidia-smi/,
    })
  } finally {
    hooks.deregister()
  }
})
