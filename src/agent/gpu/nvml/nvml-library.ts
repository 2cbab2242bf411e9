// libnvidia-ml.so.1, the driver's own library, through koffi: one function for each call that a reading needs, by its
// versioned symbol, with results as laid out in memory on 64-bit machines (nvml.h, API 13; little-endian). A call
// returns NVML's return code; a symbol that an old library lacks returns "function not found", as NVML itself does for
// what its driver lacks. A figure of all ones is not available. Read-only calls: nothing here changes a GPU's state
// (persistence mode, clocks), and no CUDA context is created. Calls block their thread: see nvml-process.ts.

import { constants } from 'node:os'
import type { LibraryHandle } from 'koffi'
import { GpuSourceError } from '../gpu-source.ts'

// Return codes (nvmlReturn_t) that have a name here; what each means for a reading is in nvml-reading.ts.
export const SUCCESS = 0
export const UNINITIALIZED = 1
export const NO_PERMISSION = 4
export const NOT_FOUND = 6
/** Also returned here for a symbol that an old library lacks. */
export const FUNCTION_NOT_FOUND = 13
/** The driver does not know this version of a structure. */
export const VERSION_MISMATCH = 25

/** The result of one call; the value is null where the code is not 0, or the figure is not available. */
export interface CallResult<T> {
  call: string
  code: number
  value: T | null
}

/** A device (nvmlDevice_t): an opaque address. */
export type Device = bigint

export interface Memory {
  usedBytes: number | null
  totalBytes: number | null
}

type DeviceCall<T> = (device: Device) => CallResult<T>

export interface NvmlLibrary {
  init(): CallResult<never>
  shutdown(): CallResult<never>
  /** The library's text for a code; null when it has none. */
  errorText(code: number): string | null
  /** GPUs as of `init`. */
  count(): CallResult<number>
  device(index: number): CallResult<Device>
  name: DeviceCall<string>
  uuid: DeviceCall<string>
  /** Per cent of the last sample period in which a kernel ran. */
  utilizationPercent: DeviceCall<number>
  /** Used memory without what the driver reserves for itself. */
  memory: DeviceCall<Memory>
  /** For older drivers; used memory includes what the driver reserves. */
  memoryV1: DeviceCall<Memory>
  powerMilliwatts: DeviceCall<number>
  /** Since the driver was loaded. */
  energyMillijoules: DeviceCall<number>
  /** 1: the GPU is split into instances. */
  migMode: DeviceCall<number>
  migMaxCount: DeviceCall<number>
  migDevice(device: Device, index: number): CallResult<Device>
  /** Ids of the processes with a compute context on the GPU, its MIG instances included; at most 1024. */
  computePids: DeviceCall<number[]>
}

/** Kinds of C parameters. `out` receives the result, `second` one that is not used. */
type Parameter = 'device' | 'index' | 'out' | 'second' | 'length'

const C_TYPES = { device: 'void *', index: 'uint32_t', out: 'void *', second: 'void *', length: 'uint32_t' } as const
/** NVML_DEVICE_NAME_V2_BUFFER_SIZE and NVML_DEVICE_UUID_V2_BUFFER_SIZE; no structure that is read here is larger. */
const OUT_BYTES = 96
/** nvmlMemory_v2_t has its version and size in its first field. */
const MEMORY_V2 = 0x0200_0000 | 40

/** nvmlProcessInfo_t of the versions 2 and 3: {u32 pid, u64 usedGpuMemory, u32 gpuInstanceId, computeInstanceId} */
const PROCESS_BYTES = 24
const MAX_PROCESSES = 1024

/** @throws GpuSourceError when koffi is not installed or `path` cannot be loaded. */
export async function openNvmlLibrary(path: string): Promise<NvmlLibrary> {
  const koffi = await import('koffi').catch((error: Error) => {
    throw new GpuSourceError(
      `Cannot call NVML: the npm package koffi cannot be loaded (${firstLine(error)}); run npm install koffi, or use nvidia-smi`,
    )
  })
  try {
    return bind(koffi.load(path))
  } catch (error) {
    throw new GpuSourceError(
      `Cannot load NVML, "${path}": ${firstLine(error as Error)}; install the NVIDIA driver, in a container start it with its GPUs (--gpus all)`,
    )
  }
}

/**
 * Asks Linux to kill this process when its parent ends: one that hangs in the driver reacts to nothing else, and a new
 * agent would start a second one beside it. Without effect on other systems, and without koffi.
 */
export async function dieWithParent(): Promise<void> {
  const PR_SET_PDEATHSIG = 1
  try {
    const koffi = await import('koffi')
    koffi.load(null).func('prctl', 'int', ['int', 'ulong'])(PR_SET_PDEATHSIG, constants.signals.SIGKILL)
  } catch {}
}

function bind(library: LibraryHandle): NvmlLibrary {
  const out = Buffer.alloc(OUT_BYTES)
  const second = Buffer.alloc(8)

  function call<T>(name: string, parameters: readonly Parameter[], decode: (bytes: Buffer) => T | null, version = 0) {
    const types = parameters.map((kind) => C_TYPES[kind])
    const native = optional(() => library.func(name, 'int', types))
    return (device: Device | null = null, index = 0): CallResult<T> => {
      if (native === null) return { call: name, code: FUNCTION_NOT_FOUND, value: null }
      out.fill(0)
      out.writeUInt32LE(version)
      const given = { device, index, out, second, length: OUT_BYTES }
      const code: number = native(...parameters.map((kind) => given[kind]))
      return { call: name, code, value: code === SUCCESS ? decode(out) : null }
    }
  }
  const list = Buffer.alloc(MAX_PROCESSES * PROCESS_BYTES)
  /** `second` holds how many fit, and then how many there are. */
  function pidsOf(name: string): DeviceCall<number[]> {
    const native = optional(() => library.func(name, 'int', ['void *', 'void *', 'void *']))
    return (device) => {
      if (native === null) return { call: name, code: FUNCTION_NOT_FOUND, value: null }
      second.writeUInt32LE(MAX_PROCESSES)
      const code: number = native(device, second, list)
      const count = Math.min(second.readUInt32LE(), MAX_PROCESSES)
      const pidAt = (_: unknown, i: number) => list.readUInt32LE(i * PROCESS_BYTES)
      return { call: name, code, value: code === SUCCESS ? Array.from({ length: count }, pidAt) : null }
    }
  }
  const pidsV3 = pidsOf('nvmlDeviceGetComputeRunningProcesses_v3')
  const pidsV2 = pidsOf('nvmlDeviceGetComputeRunningProcesses_v2')
  const errorString = optional(() => library.func('nvmlErrorString', 'str', ['int']))
  const deviceAt = call('nvmlDeviceGetHandleByIndex_v2', ['index', 'out'], addressIn)
  return {
    init: call<never>('nvmlInit_v2', [], nothingIn),
    shutdown: call<never>('nvmlShutdown', [], nothingIn),
    errorText: (code) => errorString?.(code) ?? null,
    count: call('nvmlDeviceGetCount_v2', ['out'], figureIn),
    device: (index) => deviceAt(null, index),
    name: call('nvmlDeviceGetName', ['device', 'out', 'length'], textIn),
    uuid: call('nvmlDeviceGetUUID', ['device', 'out', 'length'], textIn),
    // nvmlUtilization_t {u32 gpu, u32 memory}
    utilizationPercent: call('nvmlDeviceGetUtilizationRates', ['device', 'out'], figureIn),
    // nvmlMemory_v2_t {u32 version, u64 total, reserved, free, used}
    memory: call('nvmlDeviceGetMemoryInfo_v2', ['device', 'out'], (bytes) => memoryIn(bytes, 8, 32), MEMORY_V2),
    // nvmlMemory_t {u64 total, free, used}
    memoryV1: call('nvmlDeviceGetMemoryInfo', ['device', 'out'], (bytes) => memoryIn(bytes, 0, 16)),
    powerMilliwatts: call('nvmlDeviceGetPowerUsage', ['device', 'out'], figureIn),
    energyMillijoules: call('nvmlDeviceGetTotalEnergyConsumption', ['device', 'out'], (bytes) =>
      longFigureIn(bytes, 0),
    ),
    migMode: call('nvmlDeviceGetMigMode', ['device', 'out', 'second'], figureIn),
    migMaxCount: call('nvmlDeviceGetMaxMigDeviceCount', ['device', 'out'], figureIn),
    computePids: (device) => {
      const result = pidsV3(device)
      return result.code === FUNCTION_NOT_FOUND ? pidsV2(device) : result
    },
    migDevice: call('nvmlDeviceGetMigDeviceHandleByIndex', ['device', 'index', 'out'], addressIn),
  }
}

/** Null where the library has no such symbol. */
function optional<T>(find: () => T): T | null {
  try {
    return find()
  } catch {
    return null
  }
}

function nothingIn(): null {
  return null
}

function addressIn(bytes: Buffer): Device {
  return bytes.readBigUInt64LE(0)
}

function figureIn(bytes: Buffer): number | null {
  const figure = bytes.readUInt32LE(0)
  return figure === 0xffff_ffff ? null : figure
}

function longFigureIn(bytes: Buffer, offset: number): number | null {
  const figure = bytes.readBigUInt64LE(offset)
  return figure === 0xffff_ffff_ffff_ffffn ? null : Number(figure)
}

function memoryIn(bytes: Buffer, totalOffset: number, usedOffset: number): Memory {
  return { totalBytes: longFigureIn(bytes, totalOffset), usedBytes: longFigureIn(bytes, usedOffset) }
}

/** Null when it is empty. */
function textIn(bytes: Buffer): string | null {
  const end = bytes.indexOf(0)
  const text = bytes.toString('utf8', 0, end === -1 ? bytes.length : end).trim()
  return text === '' ? null : text
}

function firstLine(error: Error): string {
  return error.message.split('\n')[0]!.replace(/^Failed to load shared library: /, '')
}
